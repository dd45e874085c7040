"""What the trunk shows the heads of a layer that they tap."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Tapped(NamedTuple):
    """A tapped layer of some frames: the output of the frame block, and that of the block after it."""

    special: Tensor  # [B, F, special, 2C], both side by side, exactly
    local: Tensor  # [B, F, h·w, C] patches, in the type that the blocks work in
    whole: Tensor  # [B, F, h·w, C] patches
    grid: tuple[int, int]  # h, w

    @classmethod
    def of(cls, both: Tensor, special: int, grid: tuple[int, int]) -> Tapped:
        """From both outputs side by side, [B, F, P, 2C]."""
        local, whole = both[:, :, special:].chunk(2, dim=-1)
        return cls(both[:, :, :special], local, whole, grid)

    def joined(self) -> Tensor:  # [B, F, P, 2C]
        """Both halves side by side, patches only."""
        patches = torch.cat((self.local.to(self.whole.dtype), self.whole), dim=-1)
        return torch.cat((self.special, patches), dim=2)
