"""Frame-parallel inference: every rank holds consecutive frames, and only what attention keeps of them travels.

A clip is split into whole groups of frames, so that queries are merged where they lie. In a global layer each rank asks
for its own frames; the kept keys/values of all ranks are gathered (tokens, before projection: half of what keys and
values would be). Dense attention passes the tokens of all ranks around a ring instead, a part at a time, and joins the
parts by their log-sum-exp, so that memory does not grow with the number of ranks.

With one process nothing here is used. `world` says which processes there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from spark3r.attention import Kernel, P, Planner, Reduction
from spark3r.kernels import attend_with_lse, merge_parts
from spark3r.tokens import TokenLayout, WholeClip


def split(frames: int, ranks: int, group_size: int) -> list[slice]:
    """The frames of each rank: whole groups, as even as can be; ranks without a frame come last.

    >>> split(50, 2, 20)
    [slice(0, 20, None), slice(20, 50, None)]
    """
    groups = -(-frames // group_size)
    ends = [min(frames, group_size * (groups * (rank + 1) // ranks)) for rank in range(ranks)]
    ends = sorted({0, *ends})
    parts = [slice(start, stop) for start, stop in zip(ends, ends[1:], strict=False)]
    return parts + [slice(frames, frames)] * (ranks - len(parts))


@dataclass
class Traffic:
    """What the collectives of one rank have moved and taken."""

    bytes: int = 0  # received from other ranks
    calls: int = 0


class Ranks:
    """The processes that share one clip, and what they can do together. Sizes are told, never asked for."""

    def __init__(self, group: Any = None):
        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.traffic = Traffic()

    def start_gather(self, x: Tensor, counts: Sequence[int], dim: int) -> Callable[[], Tensor]:
        """Begins to join the parts of all ranks along `dim` (counts[r] long on rank r); call the answer to have them."""
        most = max(counts)
        rows = x.movedim(dim, 0).contiguous()
        padded = rows.new_empty(most, *rows.shape[1:])
        padded[: len(rows)] = rows
        buffers = [torch.empty_like(padded) for _ in counts]
        work = dist.all_gather([_bytes(b) for b in buffers], _bytes(padded), group=self.group, async_op=True)
        self._count(padded.nbytes * (self.size - 1))

        def finish() -> Tensor:
            if work is not None:
                work.wait()
            return torch.cat([part[:count] for part, count in zip(buffers, counts, strict=True)]).movedim(0, dim)

        return finish

    def gather(self, x: Tensor, counts: Sequence[int], dim: int = 0) -> Tensor:
        """The parts of all ranks along `dim`."""
        return self.start_gather(x, counts, dim)()

    def ring(self, x: Tensor, counts: Sequence[int], dim: int) -> Iterator[tuple[int, Tensor]]:
        """(rank, its part) for all ranks, one's own first; the next part travels while the last is being used."""
        part, owner = x.movedim(dim, 0).contiguous(), self.rank
        after, before = ((self.rank + step) % self.size for step in (1, -1))
        for remaining in reversed(range(self.size)):
            travelling: list[Any] = []
            following = part
            if remaining:
                previous = (owner - 1) % self.size
                following = part.new_empty(counts[previous], *part.shape[1:])
                sends = dist.P2POp(dist.isend, _bytes(part), self._global(after), self.group)
                receives = dist.P2POp(dist.irecv, _bytes(following), self._global(before), self.group)
                travelling = dist.batch_isend_irecv([sends, receives])
                self._count(following.nbytes)
            yield owner, part.movedim(0, dim)
            for work in travelling:
                work.wait()
            part, owner = following, (owner - 1) % self.size

    def exchange(self, framed: Tensor, starts: Sequence[int], order: Sequence[int]) -> Tensor:
        """Frames of the whole clip rearranged: place i receives frame order[i]. framed [S_r, …] are those of this rank,
        starts[r] … starts[r + 1] the places of rank r. Only frames that change rank travel."""

        def holder(frame: int) -> int:
            return next(rank for rank in range(self.size) if starts[rank] <= frame < starts[rank + 1])

        here = range(starts[self.rank], starts[self.rank + 1])
        out = torch.empty_like(framed)
        pending: list[Any] = []
        kept: list[Tensor] = []  # until they are sent
        arriving: list[tuple[int, Tensor]] = []
        for place, frame in enumerate(order):
            giver, taker = holder(frame), holder(place)
            if giver == taker == self.rank:
                out[place - here.start] = framed[frame - here.start]
            elif giver == self.rank:
                kept.append(framed[frame - here.start].contiguous())
                pending.append(dist.P2POp(dist.isend, _bytes(kept[-1]), self._global(taker), self.group))
            elif taker == self.rank:
                arriving.append((place, torch.empty_like(framed[0])))
                receive = _bytes(arriving[-1][1])
                pending.append(dist.P2POp(dist.irecv, receive, self._global(giver), self.group))
                self._count(arriving[-1][1].nbytes)
        for work in dist.batch_isend_irecv(pending) if pending else ():
            work.wait()
        for place, frame_tokens in arriving:
            out[place - here.start] = frame_tokens
        return out

    def any(self, flag: bool) -> bool:
        """Whether it holds on any rank; tells all the same, so that all stop at the same block."""
        votes = torch.tensor([int(flag)])
        dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self.group)
        return bool(votes[0])

    def _global(self, rank: int) -> int:
        return rank if self.group is None else dist.get_global_rank(self.group, rank)

    def _count(self, received: int) -> None:
        self.traffic.bytes += received
        self.traffic.calls += 1


def _bytes(x: Tensor) -> Tensor:
    """The same memory as plain bytes: every backend moves these, whatever the type."""
    return x.view(-1).view(torch.uint8)


class FrameShare(WholeClip):
    """The frames that this rank holds, and how to reach those of the others."""

    def __init__(self, ranks: Ranks, parts: Sequence[slice]):
        self.ranks, self.parts = ranks, parts
        self.counts = [part.stop - part.start for part in parts]
        self.here = parts[ranks.rank]

    def layout(self, clip: TokenLayout) -> TokenLayout:
        return clip.part(self.here.start, self.here.stop)

    def gather(self, framed: Tensor, dim: int = 1) -> Tensor:
        return self.ranks.gather(framed, self.counts, dim)

    def own(self, framed: Tensor, dim: int = 1) -> Tensor:
        return framed.narrow(dim, self.here.start, self.here.stop - self.here.start)

    def in_order(self, framed: Tensor, order: Tensor) -> Tensor:
        starts = [part.start for part in self.parts] + [self.parts[-1].stop]
        clips = zip(framed, order.tolist(), strict=True)
        return torch.stack([self.ranks.exchange(clip, starts, frames) for clip, frames in clips])

    def across_ranks(self, plan: Planner) -> Planner:
        """The same planner, with keys/values from the frames of all ranks."""

        def planned(x: Tensor, layout: TokenLayout, layer: int) -> Reduction:
            local = plan(x, layout, layer)
            return _Ring(self) if type(local) is Reduction else _Gathered(local, self, x, layout)

        return planned

    def kept(self, local_reduction: Reduction, layout: TokenLayout, device: torch.device) -> tuple[list[int], Tensor]:
        """How many keys/values each rank keeps, and the place within its frame of every one of them, in order."""
        tokens = _Places(torch.arange(layout.total, device=device))
        local = local_reduction.context_rotation(tokens).index % layout.per_frame
        counts = self.ranks.gather(torch.tensor([len(local)], device=device), [1] * self.ranks.size).tolist()
        return counts, self.ranks.gather(local, counts)


@dataclass(frozen=True)
class _Places:
    """Numbers of tokens, asked for in place of their rotary rows."""

    index: Tensor  # [K] int64

    def rows(self, chosen: Tensor) -> _Places:
        return _Places(self.index[chosen])


class _Gathered(Reduction):
    """A rank's own queries against the kept keys/values of all ranks. Frames share one table of rotary rows, so those
    of tokens that came from elsewhere are found by their place in the frame."""

    def __init__(self, local: Reduction, share: FrameShare, x: Tensor, layout: TokenLayout):
        self.local = local
        kept = local.context(x)
        counts, self.places = share.kept(local, layout, x.device)
        self._arriving = share.ranks.start_gather(kept, counts, dim=1)  # while queries are merged and projected

    def queries(self, x: Tensor) -> Tensor:
        return self.local.queries(x)

    def context(self, x: Tensor) -> Tensor:
        return self._arriving()

    def restore(self, out: Tensor) -> Tensor:
        return self.local.restore(out)

    def query_rotation(self, rotation: P) -> P:
        return self.local.query_rotation(rotation)

    def context_rotation(self, rotation: P) -> P:
        return rotation.rows(self.places)

    def attend(self, kernel: Kernel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.local.attend(kernel, q, k, v)


class _Ring(Reduction):
    """Dense attention: keys and values of all ranks pass by, one rank's at a time, and the parts merge into one softmax,
    so that no rank ever holds more than two parts (Liu et al., ring attention, arXiv 2310.01889)."""

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
