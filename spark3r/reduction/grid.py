"""The rival that keeps a few patches of every frame: the grid of RegimeVGGT (github.com/Brandon-Z-226/RegimeVGGT).

Where Spark3R keeps whole frames, here every frame keeps keys/values on a coarse grid of its patches; the grid shifts
from frame to frame so that all places are covered over time. The reference frame stays whole, and so do special tokens.

Where this departs from the published code: queries are merged as Spark3R merges them (theirs merges both sides as
FastVGGT does, then thins the merged keys/values); no salient patches are protected beyond the grid; the grid is not cut
at the last whole tile.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spark3r.attention import Reduction
from spark3r.reduction.policy import Policy
from spark3r.reduction.reduce import MergedAndPruned, merged_count, merged_queries
from spark3r.tokens import TokenLayout

if TYPE_CHECKING:
    from spark3r.reduction.schedule import ReductionSchedule


class Grid(Policy):
    """Queries merged as in Spark3R; keys/values of one patch in about kv_factor of every frame."""

    reads = ("query_factor", "kv_factor")

    def plan(
        self, x: Tensor, layout: TokenLayout, layer: int, schedule: ReductionSchedule, match_dtype: torch.dtype
    ) -> Reduction:
        query_factor, kv_factor = schedule.at(layer)
        merged = merged_queries(x, layout, query_factor, schedule.group_size, match_dtype)
        return MergedAndPruned(merged, kept_on_grid(layout, kv_factor, True, x.device) if kv_factor > 1 else None)

    def token_counts(self, layout: TokenLayout, layer: int, schedule: ReductionSchedule) -> tuple[int, int]:
        query_factor, kv_factor = schedule.at(layer)
        kept = kept_on_grid(layout, kv_factor, True, torch.device("cpu"))
        return merged_count(layout, query_factor, schedule.group_size), len(kept)


def tile_of(factor: int) -> tuple[int, int]:
    """(rows, columns) of a nearly square tile of about `factor` patches, of which one is kept: 4 → 2×2, 25 → 5×5."""
    rows = math.isqrt(factor)
    return rows, round(factor / rows)


@lru_cache(maxsize=16)
def kept_on_grid(layout: TokenLayout, factor: int, shifting: bool, device: torch.device) -> Tensor:
    """Tokens that stay keys/values, [K] int64: every special, the reference frame, one patch of each tile.

    Shifting, frame f of tiles of a rows and b columns keeps row (f div b) mod a and column f mod b of each tile, so
    that a · b frames in a row keep every place once.
    """
    (height, width), (rows, columns) = layout.grid, tile_of(factor)
    with torch.inference_mode(False):
        frame = (torch.arange(layout.frames)[:, None] + layout.first) * shifting  # its place in the clip, or 0
        row = torch.arange(height) % rows == frame // columns % rows  # [S, h]
        column = torch.arange(width) % columns == frame % columns  # [S, w]
        chosen = (row[:, :, None] & column[:, None, :]).flatten(1)
        if layout.reference is not None:
            chosen[layout.reference] = True
        return layout.keep_patches(chosen).nonzero()[:, 0].to(device)
