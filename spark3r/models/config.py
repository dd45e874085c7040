"""What makes one model family different from another, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Scope = Literal["frame", "global", "register"]
Rope = Literal["grid", "flat", "whole"] | None


@dataclass(frozen=True)
class BlockConfig:
    """One transformer block.

    scope       frame: attention inside each frame; global: over all tokens of the clip (here reduction acts);
                register: over the special tokens of all frames only
    rope        grid: row and column halves at integer positions; flat: the same, all patches at one position;
                whole: the whole head at normalised positions; None: no rotation
    """

    scope: Scope
    rope: Rope = "grid"
    qk_norm: bool = True
    layer_scale: bool = True
    mlp: Literal["gelu", "swiglu"] = "gelu"
    mlp_hidden: int = 0  # 0: four times the width
    norm_eps: float = 1e-5
    qk_norm_eps: float = 1e-5
    length_gain: float = 0.0  # sharpening of global attention with the length of its context (attention.Kernel)
    length_reference: int = 1


@dataclass(frozen=True)
class TokenConfig:
    """The special tokens in front of every frame's patches and what they know of the reference frame."""

    camera: int = 1
    registers: int = 4
    reference: Literal["none", "first", "middle"] = "first"
    reference_has_own_tokens: bool = True  # the reference frame's special tokens differ from the other frames'
    reference_embedding: bool = False  # a learned vector added to every token of the reference frame

    @property
    def special(self) -> int:
        return self.camera + self.registers


@dataclass(frozen=True)
class ResizeRule:
    """How an image becomes the network's input (models.preprocess)."""

    longer_side: int
    multiple: int


@dataclass(frozen=True)
class ModelConfig:
    """A model: everything needed to build it and to load its weights."""

    name: str
    patch: int
    width: int
    heads: int
    blocks: tuple[BlockConfig, ...]
    taps: tuple[int, ...]  # global blocks whose outputs (with the frame block before them) the heads read
    resize: ResizeRule
    tokens: TokenConfig = field(default_factory=TokenConfig)
    stem_width: int = 64  # channels of the convolutional stem at a quarter of the resolution
    position_grid: tuple[int, int] = (6, 8)  # the learned position table, resampled to other grids
    position_std: float = 0.6
    head_width: int = 64
    sensitive_layers: tuple[int, ...] | None = None  # global layers that bear less pruning (METHOD §2)

    @property
    def global_blocks(self) -> tuple[int, ...]:
        """Indices of the blocks in which reduction acts."""
        return tuple(i for i, block in enumerate(self.blocks) if block.scope == "global")
