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
    followers: tuple[range, ...]  # for every destination frame the sources up to the next, as places in a group
    destination_frames: Tensor  # int64, places in a group
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
        destinations = range(0, length, factor)
        followers = tuple(range(frame + 1, min(frame + factor, length)) for frame in destinations)
        tensors = (torch.tensor(destinations), sources, slots)
        regions.append(_Region(start, stop, groups, followers, *(each.to(device) for each in tensors)))
    return _Places(rank.to(device), kept.nonzero()[:, 0].to(device), tuple(regions))


@torch.no_grad()
def _match(patches: Tensor, region: _Region) -> Tensor:
    """Merged row of each source patch of a region, [B, groups · sources]; patches is [B, frames, h·w, C]. Some groups
    at a time, so that their copies never stand in memory for the whole clip."""
    grouped = patches.unflatten(1, (region.groups, -1))
    batch, cells = len(patches), patches.shape[2]
    scores = batch * max(map(len, region.followers)) * len(region.destination_frames) * cells**2
    at_once = max(1, _SCORES_AT_ONCE // scores)
    best = [_best_of(some, region) for some in grouped.split(at_once, dim=1)]
    return region.slots.expand(batch, -1, -1).gather(2, torch.cat(best, dim=1)).flatten(1)


def _best_of(grouped: Tensor, region: _Region) -> Tensor:
    """The destination, as its place in its group, of each source patch, [B, groups, sources].

    The sources that follow a destination frame see the destinations in an order that begins with it, and their own
    place in every frame first: so ties, which in bfloat16 are the rule where little moves, join what is nearest.
    """
    cells = grouped.shape[3]
    targets = grouped.index_select(2, region.destination_frames).flatten(2, 3)
    targets = torch.nn.functional.normalize(targets, dim=-1)  # a source's own length does not change its best match
    count = targets.shape[2]
    around = torch.cat((targets, targets), dim=2) if len(region.destination_frames) > 1 else targets
    best = []
    for number, frames in enumerate(region.followers):
        if frames:
            sources = grouped[:, :, frames.start : frames.stop].flatten(2, 3)
            found = most_similar(sources, around[:, :, number * cells : number * cells + count], cells)
            best.append((found + number * cells) % count)
    return torch.cat(best, dim=2)


def most_similar(sources: Tensor, targets: Tensor, cells: int = 0) -> Tensor:
    """The best destination, [B, groups, sources], the first of equals; some rows at a time, to bound memory.

    cells  patches of a frame, where sources and targets are whole frames: the score at a source's own place in each of
           them is then raised by one step of the type, which wins ties and what rounding alone set apart

    `max` does the same as `argmax`, which is three times slower in bf16 on a CPU.
    """
    batch, groups, count, _ = sources.shape
    rows = max(1, min(count, _SCORES_AT_ONCE // (batch * groups * targets.shape[2])))
    keys, best = targets.transpose(-1, -2), []
    for start in range(0, count, rows):
        scores = sources[:, :, start : start + rows] @ keys
        if cells:
            _raise_own_place(scores, start, cells)
        best.append(scores.max(dim=-1).indices)
    return torch.cat(best, dim=2)


def _raise_own_place(scores: Tensor, start: int, cells: int) -> None:
    """Of rows that begin with source patch number `start`, [B, groups, rows, targets], in place."""
    rows, targets = scores.shape[2:]
    place = torch.arange(start, start + rows, device=scores.device) % cells
    own = place[:, None] + torch.arange(0, targets, cells, device=scores.device)
    own = own.expand(*scores.shape[:2], -1, -1)
    raised = scores.gather(3, own) * (1 + torch.finfo(scores.dtype).eps)
    scores.scatter_(3, own, raised)
