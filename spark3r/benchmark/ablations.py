"""Where the paper leaves a choice open, the alternatives measured (reduction.reduce says which were taken).

Every variant changes one decision of the method; all else is as shipped, at the same factors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spark3r.attention import Planner, Reduction, Rotation
from spark3r.benchmark.sensitivity import Sample
from spark3r.metrics.cloud import View, cloud_errors
from spark3r.metrics.depth import depth_errors
from spark3r.metrics.trajectory import trajectory_errors
from spark3r.models.network import Network
from spark3r.models.preprocess import resize, to_tensor
from spark3r.reduction import ReductionSchedule, SchedulePlanner
from spark3r.reduction.merge import MergePlan, plan_query_merge
from spark3r.reduction.prune import kept_context
from spark3r.reduction.reduce import MergedAndPruned
from spark3r.tokens import TokenLayout

METRICS = ("abs_rel", "ate_relative", "rotation_deg", "accuracy", "completeness")


@dataclass(frozen=True)
class Ablations:
    """The alternatives for one network under one schedule, each as a planner of global layers."""

    network: Network
    schedule: ReductionSchedule

    def planners(self) -> dict[str, Planner]:
        """Name → planner. The first is what is shipped."""
        return {
            "as shipped": SchedulePlanner(self.schedule),
            "matched on query projections": self.matched_on_queries,
            "not matched: same cell of the destination frame": self.same_cell,
            "destinations: middle frame of every stretch": self.middle_destinations,
            "destinations: cells staggered over frames": self.staggered_destinations,
            "merged query at the mean of its members' places": self.mean_place,
            "matching shared by pairs of layers": _SharedMatching(SchedulePlanner(self.schedule)),
            "keys/values: cells staggered over frames": self.staggered_context,
            "keys/values: averaged over frames": self.averaged_context,
        }

    def matched_on_queries(self, x: Tensor, layout: TokenLayout, layer: int) -> Reduction:
        """Sources are matched to destinations by their queries, not by their tokens."""
        attn: Any = self.network.trunk.blocks[self.network.config.global_blocks[layer]].attn
        width = x.shape[-1]
        q = F.linear(x.to(attn.qkv.weight.dtype), attn.qkv.weight[:width], attn.qkv.bias[:width])
        q = attn.q_norm(q.unflatten(-1, (attn.heads, -1)).float()).flatten(-2)
        return self._reduction(plan_query_merge(q, layout, *self._merging(layer)), layout, layer)

    def same_cell(self, x: Tensor, layout: TokenLayout, layer: int) -> Reduction:
        """Sources merge into the destination at the same place of the picture, whatever it shows."""
        factor, group = self._merging(layer)
        frame = torch.arange(layout.frames)
        target = frame - frame % group % factor
        kept = layout.keep_patches_of(frame == target)
        rank = (kept.cumsum(0) - 1).reshape(layout.frames, -1)
        slot = torch.cat((rank[:, : layout.special], rank[target][:, layout.special :]), dim=1).flatten()
        return self._reduction(MergePlan(slot.expand(len(x), -1), kept.nonzero()[:, 0]), layout, layer)

    def middle_destinations(self, x: Tensor, layout: TokenLayout, layer: int) -> Reduction:
        """The middle of every `query_factor` frames is the destination, not the first."""
        factor, group = self._merging(layer)
        place = torch.arange(layout.frames) % group
        length = (layout.frames - torch.arange(layout.frames) + place).clamp_max(group)
        middle = (place % factor == factor // 2) | ((place == length - 1) & (place % factor < factor // 2))
        return self._reduction(_merge_into(x, layout, middle[:, None].expand(-1, layout.patches), group), layout, layer)

    def staggered_destinations(self, x: Tensor, layout: TokenLayout, layer: int) -> Reduction:
        """Which frame is the destination is staggered over the patches."""
        factor, group = self._merging(layer)
        place = torch.arange(layout.frames) % group
        chosen = (place[:, None] + torch.arange(layout.patches)) % factor == 0
        return self._reduction(_merge_into(x, layout, chosen, group), layout, layer)

    def mean_place(self, x: Tensor, layout: TokenLayout, layer: int) -> Reduction:
        """A merged query stands at the mean place of its members, not at its destination's."""
        merged = plan_query_merge(x, layout, *self._merging(layer))
        return _AtMeanPlace(merged, self._kept(layout, layer))

    def staggered_context(self, x: Tensor, layout: TokenLayout, layer: int) -> Reduction:
        """Which frame keeps a patch's keys/values is staggered over the patches."""
        factor = self.schedule.at(layer).kv_factor
        chosen = (torch.arange(layout.frames)[:, None] + torch.arange(layout.patches)) % factor == 0
        chosen[layout.reference] = True
        kept = torch.cat((torch.ones(layout.frames, layout.special, dtype=torch.bool), chosen), dim=1).flatten()
        return MergedAndPruned(plan_query_merge(x, layout, *self._merging(layer)), kept.nonzero()[:, 0])

    def averaged_context(self, x: Tensor, layout: TokenLayout, layer: int) -> Reduction:
        """Keys/values are averaged over frames instead of pruned."""
        factor = self.schedule.at(layer).kv_factor
        context = plan_query_merge(x, layout, min(factor, 64), factor)
        return _AveragedContext(plan_query_merge(x, layout, *self._merging(layer)), None, context)

    def _merging(self, layer: int) -> tuple[int, int]:
        return self.schedule.at(layer).query_factor, self.schedule.group_size

    def _kept(self, layout: TokenLayout, layer: int) -> Tensor:
        return kept_context(layout, self.schedule.at(layer).kv_factor, torch.device("cpu"))

    def _reduction(self, merged: MergePlan, layout: TokenLayout, layer: int) -> Reduction:
        return MergedAndPruned(merged, self._kept(layout, layer))


def _merge_into(x: Tensor, layout: TokenLayout, chosen: Tensor, group_size: int) -> MergePlan:
    """Merging into any chosen patches [S, h·w], group by group: slower than the shipped plan, free in its places."""
    special = torch.ones(layout.frames, layout.special, dtype=torch.bool)
    kept = torch.cat((special, chosen), dim=1).flatten()
    slot = (kept.cumsum(0) - 1).repeat(len(x), 1)
    tokens = layout.patch_tokens()
    for start in range(0, layout.frames, group_size):
        frames = slice(start, start + group_size)
        targets, sources = tokens[frames][chosen[frames]], tokens[frames][~chosen[frames]]
        best = (x[:, sources] @ F.normalize(x[:, targets], dim=-1).mT).argmax(dim=-1)
        slot[:, sources] = slot[0, targets][best]
    return MergePlan(slot, kept.nonzero()[:, 0])


class _AtMeanPlace(MergedAndPruned):
    """A merged query is rotated by the mean direction of its members' rotations, not by its destination's."""

    def query_rotation(self, rotation: Any) -> Any:  # of one clip: each would need its own
        assert self.merged is not None
        cos, sin = (self.merged.merge(table[None])[0] for table in rotation.tables(self.merged.slot.shape[1]))
        length = torch.hypot(cos, sin).clamp_min(1e-6)
        return Rotation(cos / length, sin / length, rotation.parts)


@dataclass(frozen=True)
class _AveragedContext(MergedAndPruned):
    """Keys/values averaged by similarity instead of pruned."""

    averaged: MergePlan

    def context(self, x: Tensor) -> Tensor:
        return self.averaged.merge(x)

    def context_rotation(self, rotation: Any) -> Any:
        return rotation.rows(self.averaged.destination)


class _SharedMatching:
    """Every second layer merges as the layer before it did."""

    def __init__(self, plan: SchedulePlanner):
        self.plan = plan
        self.last: Reduction | None = None

    def __call__(self, x: Tensor, layout: TokenLayout, layer: int) -> Reduction:
        reduction = self.plan(x, layout, layer) if layer % 2 == 0 or self.last is None else self.last
        self.last = reduction
        return reduction


def measure_ablations(
    sample: Sample,
    network: Network,
    schedule: ReductionSchedule,
    progress: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """One row per variant, and one for dense: errors against truth (metrics.Scores says what they are)."""
    assert sample.truth is not None, "ablations are scored against truth"
    images = to_tensor(resize(network.config, sample.frames.images), network.device)[None]
    planners: dict[str, Planner | None] = {"dense": None, **Ablations(network, schedule).planners()}
    rows = []
    for name, plan in planners.items():
        if progress is not None:
            progress(f"{sample.name}: {name}")
        with torch.inference_mode():
            prediction = network(images) if plan is None else network(images, plan)
        view = View(
            *(
                part[0].float().cpu().numpy()
                for part in (prediction.depth, prediction.world_from_camera, prediction.intrinsics)
            )
        )
        truth = View(sample.truth.depth, sample.truth.world_from_camera, sample.truth.intrinsics)
        errors = {
            **depth_errors(view.depth, truth.depth)._asdict(),
            **trajectory_errors(view.world_from_camera, truth.world_from_camera)._asdict(),
            **cloud_errors(view, truth)._asdict(),
        }
        about = {"clip": sample.name, "frames": len(sample.frames), "variant": name}
        rows.append({**about, **{metric: float(errors[metric]) for metric in METRICS}})
    return rows
