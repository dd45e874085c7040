"""What the processes that share a clip can do together: gather, pass around, exchange frames, agree.

Every size is told, never asked for, and tensors travel as plain bytes, so that any type goes by any backend.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

_BYTES_AT_ONCE = 64 << 20


@dataclass
class Moved:
    """What came from other ranks, and how long this one waited for it."""

    bytes: int = 0
    waited_ms: float = 0.0


@dataclass
class Traffic:
    """What the collectives of one rank have moved and taken: by stage, and by block of the trunk."""

    stage: str = ""  # under which what follows is counted
    block: int | None = None  # the same; None: not in the trunk
    by_stage: dict[str, Moved] = field(default_factory=dict)
    by_block: dict[int, Moved] = field(default_factory=dict)

    @property
    def all(self) -> Moved:
        """What all stages together moved."""
        parts = self.by_stage.values()
        return Moved(sum(part.bytes for part in parts), sum(part.waited_ms for part in parts))

    def count(self, received: int) -> None:
        """Adds bytes that arrived to the stage at hand."""
        for moved in self._here():
            moved.bytes += received

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time in the context as spent in collectives."""
        started = time.perf_counter()
        try:
            yield
        finally:
            for moved in self._here():
                moved.waited_ms += (time.perf_counter() - started) * 1e3

    def _here(self) -> Iterator[Moved]:
        yield self.by_stage.setdefault(self.stage, Moved())
        if self.block is not None:
            yield self.by_block.setdefault(self.block, Moved())


class Ranks:
    """The processes that share one clip, and what they can do together. Sizes are told, never asked for."""

    def __init__(self, group: Any = None):
        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.traffic = Traffic()

    def start_gather(self, x: Tensor, counts: Sequence[int], dim: int) -> Callable[[], Tensor]:
        """Begins to join the parts of all ranks along `dim`, counts[r] long on rank r; the answer waits for them."""
        most = max(counts)
        rows = x.movedim(dim, 0).contiguous()
        padded = rows.new_empty(most, *rows.shape[1:])
        padded[: len(rows)] = rows
        with torch.inference_mode(False):  # gloo of torch 2.3 fills them in a thread that is in no such mode
            arriving = [torch.empty(padded.nbytes, dtype=torch.uint8, device=x.device) for _ in counts]
        work = dist.all_gather(arriving, _bytes(padded), group=self.group, async_op=True)
        self.traffic.count(padded.nbytes * (self.size - 1))

        def finish() -> Tensor:
            if work is not None:
                with self.traffic.waiting():
                    work.wait()
            parts = (part.view(x.dtype).view(padded.shape) for part in arriving)
            return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]).movedim(0, dim)

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
                self.traffic.count(following.nbytes)
            yield owner, part.movedim(0, dim)
            with self.traffic.waiting():
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
                self.traffic.count(arriving[-1][1].nbytes)
        with self.traffic.waiting():
            for work in dist.batch_isend_irecv(pending) if pending else ():
                work.wait()
        for place, frame_tokens in arriving:
            out[place - here.start] = frame_tokens
        return out

    def sum(self, x: Tensor) -> Tensor:
        """The sum over all ranks of a tensor that each has."""
        total = x.contiguous().clone()
        with self.traffic.waiting():
            dist.all_reduce(total, group=self.group)
        self.traffic.count(total.nbytes * min(1, self.size - 1))
        return total

    def any(self, flag: bool) -> bool:
        """Whether it holds on any rank; tells all the same, so that all stop at the same block."""
        votes = torch.tensor([int(flag)])
        with self.traffic.waiting():
            dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self.group)
        return bool(votes[0])

    def send(self, rank: int, array: np.ndarray) -> None:
        """Rows [N, …] for another rank, some at a time."""
        for rows in _pieces(array):
            plain = torch.from_numpy(np.ascontiguousarray(rows).reshape(-1).view(np.uint8))
            dist.send(plain, self._global(rank), self.group)

    def receive(self, rank: int, into: np.ndarray) -> None:
        """What another rank `send`s, of this shape and type, written into an array that may lie on disk."""
        for rows in _pieces(into):
            arriving = torch.empty(rows.nbytes, dtype=torch.uint8)
            with self.traffic.waiting():
                dist.recv(arriving, self._global(rank), self.group)
            self.traffic.count(rows.nbytes)
            rows[...] = arriving.numpy().view(rows.dtype).reshape(rows.shape)

    def _global(self, rank: int) -> int:
        return rank if self.group is None else dist.get_global_rank(self.group, rank)


def _pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """Views of some rows each, so that what travels at once is bounded."""
    rows = max(1, _BYTES_AT_ONCE // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield array[start : start + rows]


def _bytes(x: Tensor) -> Tensor:
    """The same memory as plain bytes: every backend moves these, whatever the type."""
    return x.view(-1).view(torch.uint8)
