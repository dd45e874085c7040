"""The one trunk: special tokens in front of the patches, then frame and global attention in the order of the config."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from spark3r.attention import Planner, dense
from spark3r.models.blocks import Block, grid_rotation, normal_
from spark3r.models.config import ModelConfig
from spark3r.tokens import TokenLayout


class Trunk(nn.Module):
    """Walks the blocks and keeps only the layers that the heads read."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        slots = 2 if config.tokens.reference_has_own_tokens else 1
        self.special = nn.Parameter(torch.empty(slots, config.tokens.special, config.width))
        normal_(self.special, config.position_std)
        if config.tokens.reference_embedding:
            self.reference = nn.Parameter(torch.empty(config.width))
            normal_(self.reference, config.position_std)
        self.blocks = nn.ModuleList(Block(config.width, config.heads, block) for block in config.blocks)

    def layout(self, frames: int, grid: tuple[int, int]) -> TokenLayout:
        """Where the tokens of a clip stand, and which of its frames is the reference."""
        reference = frames // 2 if self.config.tokens.reference == "middle" else 0
        return TokenLayout(frames, self.config.tokens.special, grid, reference)

    def forward(self, patches: Tensor, layout: TokenLayout, plan: Planner = dense) -> list[Tensor]:
        """patches [B·S, h·w, C] → for every tap the frame and global outputs side by side, [B, S, P, 2C]."""
        x = self._with_special(patches, layout)  # [B, N, C]
        kept, last_frame, layer = [], x, 0
        for index, (block, config) in enumerate(zip(self.blocks, self.config.blocks, strict=True)):
            rotation = grid_rotation(layout.grid, layout.special, self._head_dim, x.device)
            if config.scope == "frame":
                x = last_frame = layout.joined(block(layout.framed(x), rotation))
                continue
            x = block(x, rotation.repeated(layout.frames), partial(plan, layout=layout, layer=layer))
            layer += 1
            if index in self.config.taps:
                kept.append(torch.cat((last_frame, x), dim=-1).unflatten(1, (layout.frames, layout.per_frame)))
        return kept

    def _with_special(self, patches: Tensor, layout: TokenLayout) -> Tensor:
        framed = patches.unflatten(0, (-1, layout.frames))  # [B, S, h·w, C]
        slot = torch.zeros(layout.frames, dtype=torch.int64, device=patches.device)
        is_reference = torch.arange(layout.frames, device=patches.device) == layout.reference
        if len(self.special) > 1:
            slot = (~is_reference).long()
        special = self.special[slot].expand(len(framed), -1, -1, -1)
        x = torch.cat((special, framed), dim=2)
        if self.config.tokens.reference_embedding:
            x = x + is_reference[:, None, None] * self.reference
        return x.flatten(1, 2)

    @property
    def _head_dim(self) -> int:
        return self.config.width // self.config.heads
