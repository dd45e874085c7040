"""Query merging inside groups of neighbouring frames (choices 1–3 in reduce.py).

In every group of consecutive frames the patches of frames 0, factor, 2·factor, … are destinations; each other patch
joins the destination it is most similar to. Special tokens stand alone. A plan is one index per token, so no token can
be lost or counted twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from spark3r.kernels.elementwise import mean_of_members
from spark3r.meta import device_kind
from spark3r.tokens import TokenLayout

_SCORES_AT_ONCE = 1 << 26  # similarity scores held at once, in elements: 128 MiB of bf16

_ROWS_AT_ONCE = 1 << 12  # tokens summed at once on a CPU: their float32 copies stay in cache


@dataclass(frozen=True)
class MergePlan:
    """Which of M merged rows each of N tokens belongs to."""

    slot: Tensor  # [B, N] int64, the merged row of each token
    destination: Tensor  # [M] int64, the token at whose place each merged row stands

    def merge(self, x: Tensor) -> Tensor:  # [B, N, C] → [B, M, C]
        """The mean of every row's tokens, summed in float32; deterministic on every device."""
        batch, _, width = x.shape
        flat, rows = self.rows(), batch * len(self.destination)
        if device_kind(x.device) == "cuda":
            order = flat.sort(stable=True)
            starts = torch.searchsorted(order.values, torch.arange(rows + 1, device=x.device))
            return mean_of_members(x.reshape(-1, width), order.indices, starts).reshape(batch, -1, width)
        total = _sum_rows(x.reshape(-1, width), flat, rows)
        count = _sum_rows(torch.ones_like(flat, dtype=torch.float32)[:, None], flat, rows)
        return total.div_(count).to(x.dtype).reshape(batch, -1, width)

    def unmerge(self, y: Tensor) -> Tensor:  # [B, M, C] → [B, N, C]
        """Every token receives its row's value."""
        return y.flatten(0, 1).index_select(0, self.rows()).unflatten(0, self.slot.shape)

    def rows(self) -> Tensor:
        """The merged row of each token among the rows of all clips of the batch, [B · N]."""
        clips = torch.arange(len(self.slot), device=self.slot.device)
        return (self.slot + clips[:, None] * len(self.destination)).flatten()


def _sum_rows(x: Tensor, index: Tensor, rows: int) -> Tensor:
    """Sums the rows x [N, C] that share an index, into [rows, C] float32, in a fixed order on a CPU."""
    total = x.new_zeros(rows, x.shape[1], dtype=torch.float32)
    for part, places in zip(x.split(_ROWS_AT_ONCE), index.split(_ROWS_AT_ONCE), strict=True):
        total.scatter_add_(0, places[:, None].expand_as(part), part.float())
    return total


def plan_query_merge(
    x: Tensor,  # [B, N, C], the tokens entering one global layer
    layout: TokenLayout,
    factor: int,
    group_size: int,
    match_dtype: torch.dtype = torch.float32,
) -> MergePlan:
    """Matches every source patch to its most similar destination of the same group (cosine similarity)."""
    places = _places(layout, factor, group_size, x.device)
    slot = places.rank.repeat(x.shape[0], 1)
    _, patches = layout.split(x)
    for region in places.regions:
        matched = _match(patches[:, region.start : region.stop].to(match_dtype), region)
        slot[:, region.source_tokens] = matched
    return MergePlan(slot, places.destination)


class _Region(NamedTuple):
    """Some groups of equal length, matched together: all full groups, or the last incomplete one."""

    start: int  # first frame
    stop: int
    groups: int
    source_frames: Tensor  # int64, places in a group
    destination_frames: Tensor
    source_tokens: Tensor  # [groups · sources] int64, place in the clip's row of each source patch
    slots: Tensor  # [groups, destinations] int64, merged row of each destination patch


class _Places(NamedTuple):
    rank: Tensor  # [N] int64, merged row of every token that keeps its own; anything for sources
    destination: Tensor  # [M] int64
    regions: tuple[_Region, ...]


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # so that indices made while reconstructing serve gradients too
def _places(layout: TokenLayout, factor: int, group_size: int, device: torch.device) -> _Places:
    """All that does not depend on the tokens' values, computed once on the CPU so that layers never synchronise."""
    in_group = torch.arange(layout.frames) % group_size
    kept_frames = in_group % factor == 0
    kept = layout.keep_patches_of(kept_frames)
    rank = kept.cumsum(0) - 1
    full = layout.frames // group_size * group_size
    spans = [(0, full, group_size), (full, layout.frames, layout.frames - full)]
    tokens = layout.patch_tokens()
    regions = []
    for start, stop, length in spans:
        is_destination = torch.arange(length) % factor == 0
        if start == stop or is_destination.all():
            continue
        chosen = kept_frames[start:stop]
        slots = rank[tokens[start:stop][chosen]].reshape((stop - start) // length, -1)
        sources = tokens[start:stop][~chosen].flatten()
        groups = (stop - start) // length
        frames = ((~is_destination).nonzero()[:, 0], is_destination.nonzero()[:, 0])
        regions.append(_Region(start, stop, groups, *(each.to(device) for each in (*frames, sources, slots))))
    return _Places(rank.to(device), kept.nonzero()[:, 0].to(device), tuple(regions))


def _match(patches: Tensor, region: _Region) -> Tensor:
    """Merged row of each source patch of a region, [B, groups · sources]; patches is [B, frames, h·w, C]. Some groups
    at a time, so that their copies never stand in memory for the whole clip."""
    grouped = patches.unflatten(1, (region.groups, -1))
    batch, cells = len(patches), patches.shape[2]
    scores = batch * len(region.source_frames) * len(region.destination_frames) * cells**2
    at_once = max(1, _SCORES_AT_ONCE // scores)
    best = [_best_of(some, region) for some in grouped.split(at_once, dim=1)]
    return region.slots.expand(batch, -1, -1).gather(2, torch.cat(best, dim=1)).flatten(1)


def _best_of(grouped: Tensor, region: _Region) -> Tensor:
    """The destination, as its place in its group, of each source patch, [B, groups, sources]."""
    sources = grouped.index_select(2, region.source_frames).flatten(2, 3)
    targets = grouped.index_select(2, region.destination_frames).flatten(2, 3)
    targets = torch.nn.functional.normalize(targets, dim=-1)  # a source's own length does not change its best match
    return most_similar(sources, targets)


def most_similar(sources: Tensor, targets: Tensor) -> Tensor:
    """The best destination, [B, groups, sources], the first of equals; some rows at a time, to bound memory.

    `max` does the same as `argmax`, which is three times slower in bf16 on a CPU.
    """
    batch, groups, count, _ = sources.shape
    rows = max(1, min(count, _SCORES_AT_ONCE // (batch * groups * targets.shape[2])))
    keys = targets.transpose(-1, -2)
    return torch.cat([(part @ keys).max(dim=-1).indices for part in sources.split(rows, dim=2)], dim=2)
