"""The rival that compresses both sides alike: FastVGGT (arXiv 2509.02560, github.com/mystorm16/FastVGGT).

Queries, keys and values are the same merged tokens. Destinations are the patches of the reference frame and one patch
of every small cell of every other frame, its place in the cell drawn at random with a fixed seed; each other patch
joins the destination it is most similar to, and takes a copy of its answer. Special tokens stand alone.

Where this departs from the published code: matching looks at the reference frame and at the group of neighbouring
frames (practically all best matches are there) instead of the whole clip; every source is merged, so that the factor is
what it says, where theirs leaves the least similar ones and an evenly spread tenth alone; tokens are merged before they
are projected, theirs after.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from spark3r.attention import P, Reduction
from spark3r.reduction.grid import tile_of
from spark3r.reduction.merge import MergePlan, most_similar
from spark3r.reduction.policy import LayerFactors, Policy
from spark3r.tokens import TokenLayout

if TYPE_CHECKING:
    from spark3r.reduction.schedule import ReductionSchedule

SEED = 33  # as published


class Uniform(Policy):
    """One factor for both sides, by merging."""

    reads = ("query_factor",)

    def factors(self, query_factor: int, kv_factor: int) -> LayerFactors:
        return LayerFactors(query_factor, query_factor)

    def plan(
        self, x: Tensor, layout: TokenLayout, layer: int, schedule: ReductionSchedule, match_dtype: torch.dtype
    ) -> Reduction:
        merged = plan_cell_merge(x, layout, schedule.query_factor, schedule.group_size, match_dtype)
        return MergedBothSides(merged, merged.merge(x))

    def token_counts(self, layout: TokenLayout, layer: int, schedule: ReductionSchedule) -> tuple[int, int]:
        rows, columns = tile_of(schedule.query_factor)
        cells = math.ceil(layout.grid[0] / rows) * math.ceil(layout.grid[1] / columns)
        count = layout.frames * layout.special + layout.patches + (layout.frames - 1) * cells
        return count, count


class MergedBothSides(Reduction):
    """Keys/values are the very tokens that ask; one merge serves both."""

    def __init__(self, merged: MergePlan, tokens: Tensor):
        self.merged = merged
        self.tokens = tokens  # [B, M, C]

    def queries(self, x: Tensor) -> Tensor:
        return self.tokens

    def context(self, x: Tensor) -> Tensor:
        return self.tokens

    def restore(self, out: Tensor) -> Tensor:
        return self.merged.unmerge(out)

    def answers(self) -> Tensor | None:
        return self.merged.rows()

    def query_rotation(self, rotation: P) -> P:
        return rotation.rows(self.merged.destination)

    def context_rotation(self, rotation: P) -> P:
        return rotation.rows(self.merged.destination)


def plan_cell_merge(
    x: Tensor,  # [B, N, C], the tokens entering one global layer
    layout: TokenLayout,
    factor: int,
    group_size: int,
    match_dtype: torch.dtype = torch.float32,
) -> MergePlan:
    """Matches every source patch to its most similar destination among its group's and the reference frame's."""
    places = _places(layout, factor, group_size, x.device)
    slot = places.rank.repeat(len(x), 1)
    for sources, targets in places.groups:
        keys = F.normalize(x.index_select(1, targets).to(match_dtype), dim=-1)
        best = most_similar(x.index_select(1, sources).to(match_dtype)[:, None], keys[:, None])[:, 0]
        slot[:, sources] = places.rank[targets][best]
    return MergePlan(slot, places.destination)


class _Places(NamedTuple):
    rank: Tensor  # [N] int64, merged row of every token that keeps its own; anything for sources
    destination: Tensor  # [M] int64
    groups: tuple[tuple[Tensor, Tensor], ...]  # (sources, targets): tokens of each group that are matched


@lru_cache(maxsize=16)
def _places(layout: TokenLayout, factor: int, group_size: int, device: torch.device) -> _Places:
    """All that does not depend on the tokens' values, made once on the CPU so that layers never synchronise."""
    with torch.inference_mode(False):
        chosen = destination_patches(layout, factor)
        kept = layout.keep_patches(chosen)
        tokens, groups = layout.patch_tokens(), []
        anchors = tokens[layout.reference]
        for start in range(0, layout.frames, group_size):
            frames = torch.arange(start, min(start + group_size, layout.frames))
            sources = tokens[frames][~chosen[frames]]
            others = frames[frames != layout.reference]
            targets = torch.cat((anchors, tokens[others][chosen[others]]))
            if len(sources):
                groups.append((sources.to(device), targets.to(device)))
        rank = kept.cumsum(0) - 1
        return _Places(rank.to(device), kept.nonzero()[:, 0].to(device), tuple(groups))


def destination_patches(layout: TokenLayout, factor: int) -> Tensor:
    """The patches that others merge into, [S, h·w] bool: the reference frame's, and one of each cell of `factor`."""
    (height, width), (rows, columns) = layout.grid, tile_of(factor)
    top, left = torch.arange(0, height, rows), torch.arange(0, width, columns)
    draw = torch.Generator().manual_seed(SEED)
    shape = (layout.frames, len(top), len(left))
    row = top[:, None] + _below(draw, shape, (height - top).clamp_max(rows)[:, None])
    column = left + _below(draw, shape, (width - left).clamp_max(columns))
    chosen = torch.zeros(layout.frames, layout.patches, dtype=torch.bool)
    chosen.scatter_(1, (row * width + column).flatten(1), True)
    chosen[layout.reference] = True
    return chosen


def _below(draw: torch.Generator, shape: tuple[int, ...], limit: Tensor) -> Tensor:
    """Whole numbers from 0 to limit - 1."""
    return (torch.rand(shape, generator=draw) * limit).long().minimum(limit - 1)
