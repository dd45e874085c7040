"""The one trunk: special tokens in front of the patches, then frame and global attention in the order of the config."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from spark3r.attention import LayerPlanner, Planner, Rotation, dense
from spark3r.meta import device_kind
from spark3r.models.blocks import Block, grid_rotation, normal_, whole_rotation
from spark3r.models.config import ModelConfig, Rope, Scope
from spark3r.models.tapped import Tapped
from spark3r.tokens import WHOLE_CLIP, TokenLayout, WholeClip

FEWEST_FRAMES_TO_CHOOSE_FROM = 3  # with fewer, the first frame is the reference
_FRAMES_READ_AT_ONCE = 16  # of a tapped layer, so that both its outputs stand side by side for few frames only


Reader = Callable[[int, Tapped], tuple[Tensor, ...]]
"""What heads keep of tapped layer number `tap`, of some frames at a time: tensors [B, F, …]. What is read of a frame
depends on that frame alone."""


def whole_layer(tap: int, tapped: Tapped) -> tuple[Tensor, ...]:
    """The reader that keeps everything."""
    return (tapped.joined(),)


class _Half(NamedTuple):
    """The output of a frame block, kept until the layer is tapped: special tokens exactly, for cameras are read from
    them; patches in the type that the blocks work in."""

    special: Tensor  # [B, S, special, C]
    patches: Tensor  # [B, S, h·w, C]


class Trunk(nn.Module):
    """Walks the blocks and keeps only what the heads read of the layers that they tap."""

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

    def forward(
        self,
        patches: Tensor,  # [B·S, h·w, C] as the encoder gives them, or [B·S, P, C] with room in front (see
        # `empty_tokens`; then the memory is the trunk's own from here on)
        layout: TokenLayout,
        plan: Planner = dense,
        read: Reader = whole_layer,
        offload: bool = False,
        clip: WholeClip = WHOLE_CLIP,  # says where the frames are that are not among these
    ) -> list[tuple[Tensor, ...]]:
        """For every tap what `read` keeps of it, [B, S, …], frames in the order they came in; with `offload` in pinned
        memory of the CPU."""
        x, order = self._entering(patches, layout, clip)  # x: [B, N, C], updated in place from here on
        rotation_of = cache(lambda rope, scope: self._rotation(rope, scope, layout, x.device))
        half, kept, layer = self._half(x, layout, since=-1), [], 0
        for index, (block, config) in enumerate(zip(self.blocks, self.config.blocks, strict=True)):
            if index == self.config.tokens.enter_at:
                x = self._with_special(x, layout)
            rotation = rotation_of(config.rope, config.scope)
            if config.scope == "frame":
                x = layout.joined(block(layout.framed(x), rotation, in_place=True))
                half = self._half(x, layout, since=index)
            elif config.scope == "register":
                x = _among_specials(block, x, layout, clip)
            else:
                x = block(x, rotation, _planned(plan, layout, layer), in_place=True)
                layer += 1
            if index in self.config.taps:
                assert half is not None
                whole = x.unflatten(1, (layout.frames, layout.per_frame))
                kept.append(_read(partial(read, len(kept)), half, whole, layout.grid, order, offload, clip))
        return kept

    def _half(self, x: Tensor, layout: TokenLayout, since: int) -> _Half | None:
        """A copy of the frame output x [B, N, C], which is about to change, where a layer is tapped between frame block
        `since` and the next one."""
        scopes = [block.scope for block in self.config.blocks]
        following = scopes.index("frame", since + 1) if "frame" in scopes[since + 1 :] else len(scopes)
        if not any(since <= tap < following for tap in self.config.taps):
            return None
        special, patches = layout.split(x)
        first = cast(Block, self.blocks[0])
        return _Half(special.clone(), patches.to(first.attn.qkv.weight.dtype, copy=True))

    def empty_tokens(self, layout: TokenLayout) -> Tensor:
        """Memory for a clip's tokens, [S, P, C]: patches belong at the end of each frame's row."""
        return torch.empty(layout.frames, layout.per_frame, self.config.width, device=self.special.device)

    def _entering(self, patches: Tensor, layout: TokenLayout, clip: WholeClip) -> tuple[Tensor, Tensor | None]:
        """Tokens [B, N, C] with room for the specials, and the order [B, S] their frames were put in (None: as is)."""
        framed = patches.unflatten(0, (-1, layout.frames))  # [B, S, P or h·w, C]
        if framed.shape[2] < layout.per_frame:
            room = framed.new_zeros(*framed.shape[:2], layout.special, framed.shape[-1])
            framed = torch.cat((room, framed), dim=2)
        frames = clip.total(layout.frames)
        if self.config.tokens.reference != "balanced" or frames < FEWEST_FRAMES_TO_CHOOSE_FROM:
            return framed.flatten(1, 2), None
        order = reference_first(balanced_reference(clip.gather(framed[:, :, 0])), frames)
        return _put_in_order(framed, order, clip).flatten(1, 2), order

    def _with_special(self, x: Tensor, layout: TokenLayout) -> Tensor:
        """The same tokens with the special ones written."""
        reference = -1 if layout.reference is None else layout.reference  # -1: it is held elsewhere
        is_reference = torch.arange(layout.frames, device=x.device) == reference
        slot = (~is_reference).long() if len(self.special) > 1 else torch.zeros_like(is_reference, dtype=torch.int64)
        x = x.clone() if torch.is_grad_enabled() else x
        special, patches = layout.split(x)
        special[:] = self.special[slot]
        if self.config.tokens.reference_embedding and layout.reference is not None:
            special[:, layout.reference] += self.reference
            patches[:, layout.reference] += self.reference
        return x

    def _rotation(self, rope: Rope, scope: Scope, layout: TokenLayout, device: torch.device) -> Rotation | None:
        """The rotary tables of a frame's tokens."""
        if rope is None or scope == "register":
            return None
        if rope == "whole":
            return whole_rotation(layout.grid, layout.special, self.periods)
        return grid_rotation(layout.grid, layout.special, self._head_dim, device, flat=rope == "flat")

    @property
    def _head_dim(self) -> int:
        return self.config.width // self.config.heads


def _read(
    read: Callable[[Tapped], tuple[Tensor, ...]],
    half: _Half,
    whole: Tensor,  # [B, S, P, C]
    grid: tuple[int, int],
    order: Tensor | None,  # [B, S]
    offload: bool,
    clip: WholeClip,
) -> tuple[Tensor, ...]:
    """What is read of a tapped layer, some frames at a time: all of it never stands in memory, and what is kept as it
    stands is not copied. Frames that are spread over ranks go back to their places once they are read, for then they
    are small."""
    frames, special = whole.shape[1], half.special.shape[2]
    at_once = frames if torch.is_grad_enabled() else _FRAMES_READ_AT_ONCE
    place = None if order is None else order.argsort(dim=1)
    rooms: list[Tensor] = []
    for start in range(0, frames, at_once):
        some = slice(start, min(start + at_once, frames))

        def chosen(x: Tensor, some: slice = some) -> Tensor:
            return x[:, some] if place is None or clip.spread else clip.in_order(x, place[:, some])

        specials = torch.cat((chosen(half.special), chosen(whole[:, :, :special])), dim=-1)
        tapped = Tapped(specials, chosen(half.patches), chosen(whole[:, :, special:]), grid)
        parts = read(tapped)
        if torch.is_grad_enabled() and not offload and not clip.spread:
            return parts
        stays = [part is tapped.local and place is None and not offload for part in parts]
        rooms = rooms or [
            half.patches if as_is else _room(part, frames, offload) for part, as_is in zip(parts, stays, strict=True)
        ]
        for room, part, as_is in zip(rooms, parts, stays, strict=True):
            if not as_is:
                room[:, some].copy_(part, non_blocking=True)
    return tuple(rooms) if place is None or not clip.spread else tuple(clip.in_order(room, place) for room in rooms)


def _room(part: Tensor, frames: int, offload: bool) -> Tensor:
    """Memory [B, S, …] for all frames of what is read of some, [B, F, …]."""
    shape = (len(part), frames, *part.shape[2:])
    if not offload:
        return part.new_empty(shape)
    pinned = device_kind(part.device) == "cuda"
    return torch.empty(shape, dtype=part.dtype, device="meta" if part.is_meta else "cpu", pin_memory=pinned)


def _planned(plan: Planner, layout: TokenLayout, layer: int) -> LayerPlanner:
    return lambda x: plan(x, layout, layer)


def _among_specials(block: nn.Module, x: Tensor, layout: TokenLayout, clip: WholeClip) -> Tensor:
    """The special tokens of all frames pass through the block together; patches stay as they are. Without gradients x
    itself is updated."""
    special, patches = layout.split(x)
    everywhere = clip.gather(special)
    updated = clip.own(block(everywhere.flatten(1, 2)).unflatten(1, everywhere.shape[1:3]))
    if torch.is_grad_enabled():
        return torch.cat((updated, patches), dim=2).flatten(1, 2)
    special.copy_(updated)
    return x


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


def _put_in_order(framed: Tensor, order: Tensor, clip: WholeClip) -> Tensor:
    """Frames of [B, S, P, C] in an order of `reference_first`; without gradients in their own memory. Those in front of
    the reference move up by one: from the last to the first, each place finds the frame before it still there."""
    if torch.is_grad_enabled() or clip.spread:
        return clip.in_order(framed, order)
    reference = clip.in_order(framed, order[:, :1])
    for start in reversed(range(0, framed.shape[1], _FRAMES_READ_AT_ONCE)):
        some = slice(start, start + _FRAMES_READ_AT_ONCE)
        framed[:, some] = clip.in_order(framed, order[:, some])
    framed[:, :1] = reference
    return framed
