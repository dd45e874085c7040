"""Transformer blocks and rotary positions, shared by every family."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

from spark3r.attention import Attention, Kernel, LayerPlanner, Linear, Rotation, no_reduction
from spark3r.kernels.elementwise import add_scaled, add_scaled_normed, gated, linear_gelu, normed
from spark3r.kernels.rows import rows_at_once
from spark3r.models.config import BlockConfig


class Mlp(nn.Module):
    """Linear – GELU – Linear."""

    def __init__(self, width: int, hidden: int, outputs: int = 0):
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, outputs or width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(linear_gelu(x, self.fc1.weight, self.fc1.bias))


class SwiGlu(nn.Module):
    """The gated MLP: w3(silu(a) · b) with [a | b] = w12(x)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.w12 = Linear(width, 2 * hidden)
        self.w3 = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.w3(gated(self.w12(x)))


class LayerScale(nn.Module):
    """A learned factor per channel on what a block adds."""

    def __init__(self, width: int, initial: float = 0.01):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm transformer block. The residual stream keeps the type it arrives in (float32 in every family)."""

    def __init__(self, width: int, heads: int, config: BlockConfig):
        super().__init__()
        self.hidden = hidden = config.mlp_hidden or 4 * width
        self.norm1 = nn.LayerNorm(width, eps=config.norm_eps)
        self.attn = Attention(
            width,
            heads,
            qk_norm=config.qk_norm,
            qk_norm_eps=config.qk_norm_eps,
            kernel=Kernel(config.length_gain, config.length_reference),
        )
        self.ls1 = LayerScale(width) if config.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=config.norm_eps)
        self.mlp = SwiGlu(width, hidden) if config.mlp == "swiglu" else Mlp(width, hidden)
        self.ls2 = LayerScale(width) if config.layer_scale else nn.Identity()

    def forward(
        self,
        x: Tensor,  # [B, N, C]
        rotation: Rotation | None = None,
        plan: LayerPlanner = no_reduction,
        in_place: bool = False,  # without gradients x itself may be updated
    ) -> Tensor:  # [B, N, C]
        if torch.is_grad_enabled():
            x = x + self.ls1(self.attn(self.norm1(x), rotation, plan))
            return x + self.ls2(self.mlp(self.norm2(x)))
        return self._update(x if in_place else x.clone(memory_format=torch.contiguous_format), rotation, plan)

    def _update(self, x: Tensor, rotation: Rotation | None, plan: LayerPlanner) -> Tensor:
        """In place and in parts: inner layers never exist for all tokens of a long clip at once. Sequences that need
        not see each other go through the whole block while they are in cache."""
        width, weight = x.shape[-1], self.attn.qkv.weight
        rows = rows_at_once(self.mlp, self.hidden, x.numel() // width, weight.new_empty(1, width))
        sequences = max(1, rows // x.shape[1]) if plan is no_reduction else len(x)
        for part in x.split(sequences):
            self._feed(part.view(-1, x.shape[-1]), *self._attended(part, rotation, plan, rows), rows)
        return x

    def _attended(
        self, x: Tensor, rotation: Rotation | None, plan: LayerPlanner, rows: int
    ) -> tuple[Tensor, Tensor | None]:
        """Answers [M, C] of attention, and which of them each token receives (None: its own, for they are [N, C])."""
        tokens = self._normed(x, rows)
        reduced = self.attn.reduced(tokens, plan)
        del tokens  # of a long clip the largest thing that stands here
        asked = self.attn.asked(reduced, rotation)
        del reduced
        reduction = asked.reduction
        answers = self.attn.answered(asked)
        receives = reduction.answers()
        if receives is None:
            answers = reduction.restore(answers)
        return answers.flatten(0, 1), receives

    def _normed(self, x: Tensor, rows: int) -> Tensor:
        """The first norm, in the type that attention works in; some rows at a time, for a long clip is one sequence."""
        out = torch.empty(x.shape, dtype=self.attn.qkv.weight.dtype, device=x.device)
        parts = (each.view(-1, x.shape[-1]).split(rows) for each in (x, out))
        for part, normed_part in zip(*parts, strict=True):
            normed(part, self.norm1.weight, self.norm1.bias, self.norm1.eps, out=normed_part)
        return out

    def _feed(self, x: Tensor, change: Tensor, receives: Tensor | None, rows: int) -> None:
        """Adds what attention answered to x [N, C], and what the MLP makes of it."""
        norm, dtype = self.norm2, self.attn.qkv.weight.dtype
        for start in range(0, len(x), rows):
            some = slice(start, min(start + rows, len(x)))
            update, chosen = (change[some], None) if receives is None else (change, receives[some])
            part, tokens = add_scaled_normed(
                x[some], update, _gamma(self.ls1), chosen, norm.weight, norm.bias, norm.eps, dtype
            )
            add_scaled(part, self.mlp(tokens), _gamma(self.ls2))


def _gamma(scale: nn.Module) -> Tensor | None:
    return scale.gamma if isinstance(scale, LayerScale) else None


@lru_cache(maxsize=32)
def grid_rotation(
    grid: tuple[int, int], special: int, head_dim: int, device: torch.device, *, flat: bool = False
) -> Rotation:
    """Tables of one frame for the two-part rotary embedding (base 100): rows turn the head's first half, columns the
    second. Patches stand at (row + 1, column + 1), or all at (1, 1) if `flat`; special tokens at (0, 0), unrotated."""
    with torch.inference_mode(False):  # so that tables made while reconstructing serve training too
        return _grid_rotation(grid, special, head_dim, device, flat)


def _grid_rotation(grid: tuple[int, int], special: int, head_dim: int, device: torch.device, flat: bool) -> Rotation:
    rows, columns = torch.meshgrid(*(torch.arange(1, side + 1) for side in grid), indexing="ij")
    place = torch.stack((rows, columns), dim=-1).reshape(-1, 2)  # [h·w, 2]
    place = torch.ones_like(place) if flat else place
    place = torch.cat((place.new_zeros(special, 2), place)).to(device, torch.float32)
    quarter = head_dim // 4
    frequency = 100.0 ** (-torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
    angle = place[:, :, None] * frequency  # [P, 2, D/4]
    return Rotation.by(angle)


def whole_rotation(
    grid: tuple[int, int],
    special: int,
    periods: Tensor,  # [D/4]
) -> Rotation:
    """Tables of one frame for the rotary embedding over the whole head: the longer side of the grid spans [-1, 1],
    rows turn the first half of the pairs and columns the second. Special tokens stay unrotated."""
    longer = max(grid)
    rows, columns = (
        (2 * torch.arange(side, device=periods.device, dtype=torch.float32) + 1) / longer - 1 for side in grid
    )
    place = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).reshape(-1, 2)  # [h·w, 2]
    angle = (2 * math.pi * place[:, :, None] / periods.float()).flatten(1)  # [h·w, D/2]
    angle = torch.cat((angle.new_zeros(special, angle.shape[1]), angle))[:, None]  # [P, 1, D/2]
    return Rotation.by(angle)


def normal_(parameter: Tensor, std: float) -> Tensor:
    """Fills a parameter from a normal distribution cut at three standard deviations."""
    return nn.init.trunc_normal_(parameter, std=std, a=-3 * std, b=3 * std)


def initialise(module: nn.Module) -> None:
    """Linear layers: truncated normal with standard deviation 0.7 / √inputs, zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            normal_(layer.weight, 0.7 / math.sqrt(layer.in_features))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
