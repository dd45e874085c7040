"""The one trunk: special tokens in front of the patches, then frame and global attention in the order of the config."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from spark3r.attention import LayerPlanner, Planner, Rotation, dense
from spark3r.models.blocks import Block, grid_rotation, normal_, whole_rotation
from spark3r.models.config import ModelConfig, Rope, Scope
from spark3r.tokens import TokenLayout

FEWEST_FRAMES_TO_CHOOSE_FROM = 3  # with fewer, the first frame is the reference


class Trunk(nn.Module):
    """Walks the blocks and keeps only the layers that the heads read."""

    periods: Tensor  # [D/4] of the "whole" rotary positions, where there are any

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        slots = 2 if config.tokens.reference_has_own_tokens else 1
        self.special = nn.Parameter(torch.empty(slots, config.tokens.special, config.width))
        normal_(self.special, config.tokens.std)
        if config.tokens.reference_embedding:
            self.reference = nn.Parameter(torch.empty(config.width))
            normal_(self.reference, config.tokens.std)
        if any(block.rope == "whole" for block in config.blocks):
            self.register_buffer("periods", torch.ones(self._head_dim // 4))
        self.blocks = nn.ModuleList(Block(config.width, config.heads, block) for block in config.blocks)

    def layout(self, frames: int, grid: tuple[int, int]) -> TokenLayout:
        """Where the tokens of a clip stand, and which of its frames, in the trunk's order, is the reference."""
        reference = frames // 2 if self.config.tokens.reference == "middle" else 0
        return TokenLayout(frames, self.config.tokens.special, grid, reference)

    def forward(self, patches: Tensor, layout: TokenLayout, plan: Planner = dense) -> list[Tensor]:
        """patches [B·S, h·w, C] as the encoder gives them, or [B·S, P, C] with room in front (see `empty_tokens`; then
        the memory is the trunk's own from here on) → for every tap the frame and global outputs side by side,
        [B, S, P, 2C], frames in the order they came in."""
        x, order = self._entering(patches, layout)  # x: [B, N, C], updated in place from here on
        rotation_of = cache(lambda rope, scope: self._rotation(rope, scope, layout, x.device))
        kept, rooms, layer = [], self._rooms(x, since=-1), 0
        for index, (block, config) in enumerate(zip(self.blocks, self.config.blocks, strict=True)):
            if index == self.config.tokens.enter_at:
                x = self._with_special(x, layout)
            rotation = rotation_of(config.rope, config.scope)
            if config.scope == "frame":
                x = layout.joined(block(layout.framed(x), rotation, in_place=True))
                rooms = self._rooms(x, since=index)
            elif config.scope == "register":
                x = _among_specials(block, x, layout)
            else:
                x = block(x, rotation, _planned(plan, layout, layer), in_place=True)
                layer += 1
            if index in self.config.taps:
                both = rooms.pop()
                both[..., x.shape[-1] :] = x
                both = both.unflatten(1, (layout.frames, layout.per_frame))
                kept.append(both if order is None else _in_order(both, order.argsort(dim=1)))
        return kept

    def _rooms(self, x: Tensor, since: int) -> list[Tensor]:
        """Memory [B, N, 2C] for each tap from frame block `since` up to the next one. Its first half holds the frame
        output x [B, N, C], which is about to change."""
        scopes = [block.scope for block in self.config.blocks]
        following = scopes.index("frame", since + 1) if "frame" in scopes[since + 1 :] else len(scopes)
        rooms = [x.new_empty(*x.shape[:2], 2 * x.shape[-1]) for tap in self.config.taps if since <= tap < following]
        for room in rooms:
            room[..., : x.shape[-1]] = x
        return rooms

    def empty_tokens(self, layout: TokenLayout) -> Tensor:
        """Memory for a clip's tokens, [S, P, C]: patches belong at the end of each frame's row."""
        return torch.empty(layout.frames, layout.per_frame, self.config.width, device=self.special.device)

    def _entering(self, patches: Tensor, layout: TokenLayout) -> tuple[Tensor, Tensor | None]:
        """Tokens [B, N, C] with room for the specials, and the order [B, S] their frames were put in (None: as is)."""
        framed = patches.unflatten(0, (-1, layout.frames))  # [B, S, P or h·w, C]
        if framed.shape[2] < layout.per_frame:
            room = framed.new_zeros(*framed.shape[:2], layout.special, framed.shape[-1])
            framed = torch.cat((room, framed), dim=2)
        if self.config.tokens.reference != "balanced" or layout.frames < FEWEST_FRAMES_TO_CHOOSE_FROM:
            return framed.flatten(1, 2), None
        order = reference_first(balanced_reference(framed[:, :, 0]), layout.frames)
        return _in_order(framed, order).flatten(1, 2), order

    def _with_special(self, x: Tensor, layout: TokenLayout) -> Tensor:
        """The same tokens with the special ones written."""
        is_reference = torch.arange(layout.frames, device=x.device) == layout.reference
        slot = (~is_reference).long() if len(self.special) > 1 else torch.zeros_like(is_reference, dtype=torch.int64)
        x = x.clone() if torch.is_grad_enabled() else x
        special, patches = layout.split(x)
        special[:] = self.special[slot]
        if self.config.tokens.reference_embedding:
            special[:, layout.reference] += self.reference
            patches[:, layout.reference] += self.reference
        return x

    def _rotation(self, rope: Rope, scope: Scope, layout: TokenLayout, device: torch.device) -> Rotation | None:
        """The rotary tables of the tokens that one call of such a block sees together."""
        if rope is None or scope == "register":
            return None
        if rope == "whole":
            rotation = whole_rotation(layout.grid, layout.special, self.periods)
        else:
            rotation = grid_rotation(layout.grid, layout.special, self._head_dim, device, flat=rope == "flat")
        return rotation if scope == "frame" else rotation.repeated(layout.frames)

    @property
    def _head_dim(self) -> int:
        return self.config.width // self.config.heads


def _planned(plan: Planner, layout: TokenLayout, layer: int) -> LayerPlanner:
    return lambda x: plan(x, layout, layer)


def _among_specials(block: nn.Module, x: Tensor, layout: TokenLayout) -> Tensor:
    """The special tokens of all frames pass through the block together; patches stay as they are."""
    special, patches = layout.split(x)
    updated = block(special.flatten(1, 2)).unflatten(1, (layout.frames, layout.special))
    return torch.cat((updated, patches), dim=2).flatten(1, 2)


def balanced_reference(class_tokens: Tensor) -> Tensor:
    """The frame [B] int64 nearest to the middle of the clip's in three measures of its class token [B, S, C]: mean
    similarity to the other frames, length, and spread of its direction's entries."""
    length = class_tokens.norm(dim=-1)
    direction = class_tokens / length[..., None]
    similarity = (direction @ direction.mT).sum(-1) - direction.square().sum(-1)
    scores = torch.stack((similarity / (class_tokens.shape[1] - 1), length, direction.var(dim=-1)))  # [3, B, S]
    low, high = scores.amin(dim=-1, keepdim=True), scores.amax(dim=-1, keepdim=True)
    return ((scores - low) / (high - low + 1e-8) - 0.5).abs().sum(0).argmin(dim=-1)


def reference_first(reference: Tensor, frames: int) -> Tensor:
    """Orders of frames [B, S] with the reference [B] in front and the others as they were: S=5, 3 → 3, 0, 1, 2, 4."""
    place = torch.arange(frames, device=reference.device).expand(len(reference), -1)
    return torch.where(place == reference[:, None], -1, place).argsort(dim=1)


def _in_order(framed: Tensor, order: Tensor) -> Tensor:
    """Frames of [B, S, P, C] rearranged: place i receives frame order[i]."""
    return torch.stack([clip[frames] for clip, frames in zip(framed, order, strict=True)])
