"""Frame-parallel inference: every rank holds consecutive frames, and only what attention keeps of them travels.

A clip is split into whole groups of frames, so that queries are merged where they lie. In a global layer each rank asks
for its own frames; the kept keys/values of all ranks are gathered (tokens, before projection: half of what keys and
values would be). Dense attention passes the tokens of all ranks around a ring instead, a part at a time, and joins the
parts by their log-sum-exp, so that memory does not grow with the number of ranks.

With one process nothing here is used. `world` says which processes there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from spark3r.attention import Kernel, P, Planner, Reduction
from spark3r.kernels import attend_with_lse, merge_parts
from spark3r.ranks import Ranks
from spark3r.reduction.anchor import AmongFrames, Anchored
from spark3r.reduction.planner import SchedulePlanner
from spark3r.reduction.uniform import MergedBothSides
from spark3r.tokens import TokenLayout, WholeClip


class FrameShare(WholeClip):
    """The frames that this rank holds, and how to reach those of the others."""

    spread = True

    def __init__(self, ranks: Ranks, parts: Sequence[slice]):
        self.ranks, self.parts = ranks, parts
        self.counts = [part.stop - part.start for part in parts]
        self.here = parts[ranks.rank]
        self._kept: dict[object, tuple[list[int], Tensor]] = {}

    def part_of(self, layout: TokenLayout) -> TokenLayout:
        return layout.part(self.here.start, self.here.stop)

    def total(self, held: int) -> int:
        return self.parts[-1].stop

    def any(self, flag: bool) -> bool:
        return self.ranks.any(flag)

    def gather(self, framed: Tensor, dim: int = 1) -> Tensor:
        return self.ranks.gather(framed, self.counts, dim)

    def own(self, framed: Tensor, dim: int = 1) -> Tensor:
        return framed.narrow(dim, self.here.start, self.here.stop - self.here.start)

    def in_order(self, framed: Tensor, order: Tensor) -> Tensor:
        starts = [part.start for part in self.parts] + [self.parts[-1].stop]
        clips = zip(framed, order.tolist(), strict=True)
        return torch.stack([self.ranks.exchange(clip, starts, frames) for clip, frames in clips])

    def now_in(self, stage: str, block: int | None = None) -> None:
        self.ranks.traffic.stage, self.ranks.traffic.block = stage, block

    def across(self, plan: Planner, whole: TokenLayout) -> Planner:
        """The same planner with keys/values from the frames of all ranks."""

        def planned(x: Tensor, layout: TokenLayout, layer: int) -> Reduction:
            if isinstance(plan, SchedulePlanner) and plan.schedule.policy == "uniform" and plan.acts(layer):
                tokens = self.ranks.gather(x, [n * layout.per_frame for n in self.counts], dim=1)
                return _OwnOfAll(
                    cast(MergedBothSides, plan(tokens, whole, layer)), self._own_tokens(layout), layout.per_frame
                )
            if isinstance(plan, SchedulePlanner) and plan.acts(layer):
                keys = plan.context_side()(x, layout, layer)
                if isinstance(keys, AmongFrames):
                    return keys
                if isinstance(keys, Anchored):
                    return _AnchoredAcross(keys, self)
                arriving = _Arriving(keys, self, x, layout, key=(plan.schedule.policy, layout, plan.schedule.at(layer)))
                return _Gathered(plan(x, layout, layer), arriving)  # queries are matched while keys/values travel
            local = plan(x, layout, layer)
            if type(local) is Reduction:
                return _Ring(self)
            return _Gathered(local, _Arriving(local, self, x, layout))

        return planned

    def _own_tokens(self, layout: TokenLayout) -> slice:
        return slice(self.here.start * layout.per_frame, self.here.stop * layout.per_frame)

    def kept(
        self, local: Reduction, layout: TokenLayout, device: torch.device, key: object
    ) -> tuple[list[int], Tensor]:
        """How many keys/values each rank keeps, and the place within its frame of every one of them, in order; asked
        of the others once for every `key`, on which alone it then depends (None: on the tokens too)."""
        if key in self._kept:
            return self._kept[key]
        tokens = _Places(torch.arange(layout.total, device=device))
        places = local.context_rotation(tokens).index % layout.per_frame
        counts = self.ranks.gather(torch.tensor([len(places)], device=device), [1] * self.ranks.size).tolist()
        known = counts, self.ranks.gather(places, counts)
        if key is not None:
            self._kept[key] = known
        return known


@dataclass(frozen=True)
class _Places:
    """Numbers of tokens, asked for in place of their rotary rows."""

    index: Tensor  # [K] int64

    def rows(self, chosen: Tensor) -> _Places:
        return _Places(self.index[chosen])


class _Arriving:
    """The kept keys/values of all ranks on their way, from when this is made. Frames share one table of rotary rows, so
    those of tokens that came from elsewhere are found by their place in the frame."""

    def __init__(self, local: Reduction, share: FrameShare, x: Tensor, layout: TokenLayout, key: object = None):
        counts, self.places = share.kept(local, layout, x.device, key)
        self.tokens = share.ranks.start_gather(local.context(x), counts, dim=1)


class _Gathered(Reduction):
    """A rank's own queries, which are merged and projected meanwhile, against the kept keys/values of all ranks."""

    arrives = True

    def __init__(self, local: Reduction, arriving: _Arriving):
        self.local, self.arriving = local, arriving

    def queries(self, x: Tensor) -> Tensor:
        return self.local.queries(x)

    def context(self, x: Tensor) -> Tensor:
        return self.arriving.tokens()

    def restore(self, out: Tensor) -> Tensor:
        return self.local.restore(out)

    def answers(self) -> Tensor | None:
        return self.local.answers()

    def query_rotation(self, rotation: P) -> P:
        return self.local.query_rotation(rotation)

    def context_rotation(self, rotation: P) -> P:
        return rotation.rows(self.arriving.places)

    def attend(self, kernel: Kernel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.local.attend(kernel, q, k, v)


class _Ring(Reduction):
    """Dense attention: keys and values of all ranks pass by, one rank's at a time, and the parts merge into one
    softmax; no rank ever holds more than two parts (Liu et al., ring attention, arXiv 2310.01889)."""

    def __init__(self, share: FrameShare):
        self.share = share

    def attend(self, kernel: Kernel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        frames = self.share.here.stop - self.share.here.start
        counts = [count * (k.shape[2] // frames) for count in self.share.counts]
        scale, merged = kernel.scale(q.shape[-1], sum(counts)), None
        for _, both in self.share.ranks.ring(torch.stack((k, v)), counts, dim=3):
            part = attend_with_lse(q, both[0], both[1], scale)
            merged = part if merged is None else merge_parts([merged, part])
        assert merged is not None
        return merged[0]


class _AnchoredAcross(Anchored):
    """AVGGT's keys from all ranks, and the mean of what all of them dropped."""

    def __init__(self, local: Anchored, share: FrameShare):
        super().__init__(local.kept, local.all_tokens)
        self.share = share
        mine = torch.tensor([local.all_kept, local.all_tokens], device=local.kept.device)
        sizes = share.ranks.gather(mine[None], [1] * share.ranks.size)
        self.counts = sizes[:, 0].tolist()
        self.all_kept, self.all_tokens = sizes.sum(0).tolist()

    def kept_of(self, x: Tensor) -> Tensor:
        return self.share.ranks.gather(super().kept_of(x), self.counts, dim=2)

    def sum_of_dropped(self, x: Tensor) -> Tensor:
        return self.share.ranks.sum(super().sum_of_dropped(x))


class _OwnOfAll(Reduction):
    """FastVGGT merges across the whole clip, so every rank has all tokens, and asks for the rows its own are in."""

    def __init__(self, merged: MergedBothSides, own: slice, per_frame: int):
        self.merged = merged
        self.places = merged.merged.destination % per_frame  # all frames share one table
        self.rows, self.slot = merged.merged.slot[0, own].unique(return_inverse=True)

    def queries(self, x: Tensor) -> Tensor:
        return self.merged.tokens.index_select(1, self.rows)

    def context(self, x: Tensor) -> Tensor:
        return self.merged.tokens

    def restore(self, out: Tensor) -> Tensor:
        return out.index_select(1, self.slot)

    def query_rotation(self, rotation: P) -> P:
        return rotation.rows(self.places[self.rows])

    def context_rotation(self, rotation: P) -> P:
        return rotation.rows(self.places)
