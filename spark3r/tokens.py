"""Where each token stands: the only file that adds specials to patches.

A clip of S frames is one row of N = S · P tokens. Every frame holds its special tokens first (camera, registers,
cls), then its patches in row-major order:

    frame 0: s0 s1 … | p00 p01 … p(h-1)(w-1)      frame 1: s0 s1 … | p00 …      …
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenLayout:
    """The arrangement of a clip's tokens: S frames, `special` tokens each, a grid of h × w patches each.

    `reference` is the frame, in the order of the tokens, whose camera the model takes as the world; it
    is always kept among keys/values. Where these are a part of a longer clip, `first` is the place of their first
    frame in it, and `reference` is None if it lies in another part.
    """

    frames: int
    special: int
    grid: tuple[int, int]
    reference: int | None = 0
    first: int = 0

    def __post_init__(self) -> None:
        if self.frames < 1 or self.special < 0 or min(self.grid) < 1:
            raise ValueError(f"{self}: frames and both grid sides must be 1 or more, special 0 or more")
        if self.reference is not None and not 0 <= self.reference < self.frames:
            raise ValueError(f"reference={self.reference}: must be a frame index below {self.frames}")

    def part(self, start: int, stop: int) -> TokenLayout:
        """The layout of the frames start … stop - 1 alone."""
        held = self.reference is not None and start <= self.reference < stop
        reference = self.reference - start if held and self.reference is not None else None
        return replace(self, frames=stop - start, reference=reference, first=self.first + start)

    @property
    def patches(self) -> int:
        """Patch tokens per frame, h · w."""
        return self.grid[0] * self.grid[1]

    @property
    def per_frame(self) -> int:
        """All tokens per frame, P."""
        return self.special + self.patches

    @property
    def total(self) -> int:
        """All tokens of the clip, N = S · P."""
        return self.frames * self.per_frame

    def tokens_keeping_patches_of(self, frames: int) -> int:
        """How many tokens remain when only `frames` frames keep their patches and every special token stays."""
        return self.frames * self.special + frames * self.patches

    def keep_patches_of(self, kept_frames: Tensor) -> Tensor:
        """The mask [N] that keeps every special token and the patches of the frames marked in `kept_frames` [S]."""
        mask = kept_frames[:, None].repeat(1, self.per_frame)
        mask[:, : self.special] = True
        return mask.flatten()

    def keep_patches(self, chosen: Tensor) -> Tensor:
        """The mask [N] that keeps every special token and the patches marked in `chosen` [S, h·w]."""
        special = chosen.new_ones(self.frames, self.special)
        return torch.cat((special, chosen), dim=1).flatten()

    def is_patch(self, device: torch.device | None = None) -> Tensor:
        """Which tokens are patches, [N] bool."""
        return ~self.keep_patches_of(torch.zeros(self.frames, dtype=torch.bool, device=device))

    def patch_tokens(self, device: torch.device | None = None) -> Tensor:
        """Index of every patch token in the clip's row, [S, h·w] int64."""
        start = torch.arange(self.frames, device=device)[:, None] * self.per_frame + self.special
        return start + torch.arange(self.patches, device=device)

    def special_tokens(self, device: torch.device | None = None) -> Tensor:
        """Index of every special token in the clip's row, [S, special] int64."""
        start = torch.arange(self.frames, device=device)[:, None] * self.per_frame
        return start + torch.arange(self.special, device=device)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Separates x [B, N, C] into specials [B, S, special, C] and patches [B, S, h·w, C] (views)."""
        framed = x.unflatten(1, (self.frames, self.per_frame))
        return framed[:, :, : self.special], framed[:, :, self.special :]

    def framed(self, x: Tensor) -> Tensor:
        """The same tokens with one row per frame: [B, N, C] → [B·S, P, C] (a view where memory allows)."""
        return x.reshape(-1, self.per_frame, x.shape[-1])

    def joined(self, x: Tensor) -> Tensor:
        """The inverse of `framed`: [B·S, P, C] → [B, N, C]."""
        return x.reshape(-1, self.total, x.shape[-1])


def split_frames(frames: int, ranks: int, group_size: int) -> list[slice]:
    """The frames of each rank: whole groups, as even as can be; ranks that get none come last.

    >>> split_frames(50, 2, 20)
    [slice(0, 20, None), slice(20, 50, None)]
    """
    groups = -(-frames // group_size)
    ends = sorted({0, *(min(frames, group_size * (groups * (rank + 1) // ranks)) for rank in range(ranks))})
    parts = [slice(start, stop) for start, stop in pairwise(ends)]
    return parts + [slice(frames, frames)] * (ranks - len(parts))


_Plan = TypeVar("_Plan")


class WholeClip:
    """All frames of a clip in one process. Where they are spread over several, `distributed.FrameShare` stands here."""

    spread = False

    def part_of(self, layout: TokenLayout) -> TokenLayout:
        """The layout of the frames held here, of a clip's."""
        return layout

    def total(self, held: int) -> int:
        """How many frames the clip has, where so many are held here."""
        return held

    def gather(self, framed: Tensor, dim: int = 1) -> Tensor:
        """What every frame holds, of all frames, in the order of the clip; `dim` counts frames."""
        return framed

    def own(self, framed: Tensor, dim: int = 1) -> Tensor:
        """The part of what was gathered that belongs to the frames held here."""
        return framed

    def in_order(self, framed: Tensor, order: Tensor) -> Tensor:
        """Frames of [B, S, …] rearranged: place i of a clip receives frame order[i] of it, order [B, S]."""
        return torch.stack([clip[frames] for clip, frames in zip(framed, order, strict=True)])

    def across(self, plan: _Plan, whole: TokenLayout) -> _Plan:
        """A planner for these frames' global layers, of the planner of a clip of layout `whole`."""
        return plan

    def any(self, flag: bool) -> bool:
        """Whether it holds wherever frames are held."""
        return flag

    def now_in(self, stage: str, block: int | None = None) -> None:
        """Told before each step of a run, for whoever counts by stage and by block of the trunk."""


WHOLE_CLIP = WholeClip()
