"""From images to patch tokens: the convolutional stem of the small model, the vision transformer of the others."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spark3r.attention import Rotation
from spark3r.models.blocks import Block, normal_, whole_rotation
from spark3r.models.config import ModelConfig, StemConfig, VitConfig

DARKEST = 0.4  # least power of the curve: a black frame has nothing to show but its noise
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours


class Encoded(NamedTuple):
    """What the trunk and the dense head need of the images."""

    patches: Tensor  # [S, h·w, C], with the class token in front where the trunk goes on with it
    skip: Tensor | None  # [S, stem, H/4, W/4], fine detail for mini's dense head


class Normalise(nn.Module):
    """Images in [0, 1] → zero mean and unit deviation per colour."""

    mean: Tensor  # [3, 1, 1], where stored
    std: Tensor

    def __init__(self, stored: bool = False):
        super().__init__()
        self.stored = stored
        if stored:
            self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1))
            self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:  # [S, 3, H, W]
        if self.stored:
            return (images - self.mean) / self.std
        mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (_MEAN, _STD))
        return (images - mean) / std


def brightened(images: Tensor, mean: float) -> Tensor:
    """Images [S, 3, H, W] in [0, 1], each frame that is darker than `mean` on average raised to about that.

    By a tone curve (a power), so that black and white stay and dark parts gain most. Photographs are darker and harder
    than rendered rooms, and a network that learned from those takes dark for shape; bright frames stay as they are.
    """
    bright = images.mean((1, 2, 3), keepdim=True).clamp(1e-3, 0.999)
    return images.clamp(1e-4, 1.0) ** (math.log(mean) / bright.log()).clamp(DARKEST, 1.0)


class Residual(nn.Module):
    """x + conv(gelu(conv(x))), both 3 × 3."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.gelu(self.conv1(x)))


class StemEncoder(nn.Module):
    """4 × 4 patches, residual convolutions at a quarter of the resolution, then gathered to patch tokens.

    Much sharper depth at small sizes than a plain patch embedding, since the dense head reads the same fine features.
    """

    def __init__(self, config: ModelConfig, stem: StemConfig):
        super().__init__()
        self.position_grid, self.brightness = stem.position_grid, stem.brightness
        self.normalise = Normalise()
        self.embed = nn.Conv2d(3, stem.width, 4, stride=4)
        self.residuals = nn.Sequential(Residual(stem.width), Residual(stem.width))
        self.gather = nn.Conv2d(stem.width, config.width, config.patch // 4, stride=config.patch // 4)
        self.position = nn.Parameter(torch.empty(1, config.width, *stem.position_grid))
        normal_(self.position, stem.position_std)

    def forward(self, images: Tensor) -> Encoded:  # [S, 3, H, W] in [0, 1], H and W multiples of the patch
        if self.brightness is not None:
            images = brightened(images, self.brightness)
        skip = self.residuals(self.embed(self.normalise(images).to(self.embed.weight.dtype)))
        patches = self.gather(skip)
        patches = patches.float() + self._position(patches.shape[-2], patches.shape[-1])
        return Encoded(patches.flatten(2).transpose(1, 2), skip)

    def _position(self, height: int, width: int) -> Tensor:
        if (height, width) == self.position_grid:
            return self.position
        return F.interpolate(self.position, (height, width), mode="bicubic", align_corners=False)


class VitEncoder(nn.Module):
    """Patches with positions, a class token and registers, then blocks inside each frame."""

    periods: Tensor  # [D/4] of the rotary positions, where there is no table

    def __init__(self, config: ModelConfig, vit: VitConfig):
        super().__init__()
        self.vit, self.patch = vit, config.patch
        width, side = config.width, vit.position_side
        self.normalise = Normalise(vit.stores_normalisation)
        self.embed = nn.Conv2d(3, width, config.patch, stride=config.patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        if vit.registers:
            self.registers = nn.Parameter(torch.zeros(1, vit.registers, width))
        if vit.position is not None:
            self.position = nn.Parameter(torch.zeros(1, 1 + side * side, width))  # class token first, then the table
        else:
            self.register_buffer("periods", torch.ones(width // vit.heads // 4))
        self.blocks = nn.ModuleList(Block(width, vit.heads, block) for block in vit.blocks)
        self.norm = nn.Identity() if vit.final_norm_eps is None else nn.LayerNorm(width, eps=vit.final_norm_eps)

    def forward(self, images: Tensor) -> Encoded:  # [S, 3, H, W] in [0, 1], H and W multiples of the patch
        embedded = self.embed(self.normalise(images).to(self.embed.weight.dtype)).float()
        grid = (embedded.shape[-2], embedded.shape[-1])
        patches = embedded.flatten(2).transpose(1, 2)  # [S, h·w, C]
        class_token = self.class_token
        if self.vit.position is not None:
            patches = patches + self._table(grid)
            class_token = class_token + self.position[:, :1]
        front = torch.cat((class_token, self.registers), dim=1) if self.vit.registers else class_token
        x = torch.cat((front.expand(len(patches), -1, -1), patches), dim=1)
        rotation = self._rotation(grid, front.shape[1])
        for block in self.blocks:
            x = block(x, rotation, in_place=True)
        first = 0 if self.vit.keeps_class_token else front.shape[1]
        return Encoded(self.norm(x)[:, first:], None)

    def _rotation(self, grid: tuple[int, int], special: int) -> Rotation | None:
        return None if self.vit.position is not None else whole_rotation(grid, special, self.periods)

    def _table(self, grid: tuple[int, int]) -> Tensor:
        """The position table resampled to the grid, [1, h·w, C]."""
        side = self.vit.position_side
        if grid == (side, side):
            return self.position[:, 1:]
        table = self.position[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
        if self.vit.position == "antialias":
            table = F.interpolate(table, grid, mode="bicubic", antialias=True)
        else:  # the coordinates follow the factors, not the sizes
            factors = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
            table = F.interpolate(table, scale_factor=factors, mode="bicubic")
        return table.flatten(2).transpose(1, 2)
