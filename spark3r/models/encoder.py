"""From images to patch tokens: the convolutional stem of the small model."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spark3r.models.blocks import normal_
from spark3r.models.config import ModelConfig


class Encoded(NamedTuple):
    """What the trunk and the dense head need of the images."""

    patches: Tensor  # [S, h·w, C]
    skip: Tensor  # [S, stem, H/4, W/4], fine detail for the dense head


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

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.position_grid = config.position_grid
        self.embed = nn.Conv2d(3, config.stem_width, 4, stride=4)
        self.residuals = nn.Sequential(Residual(config.stem_width), Residual(config.stem_width))
        self.gather = nn.Conv2d(config.stem_width, config.width, config.patch // 4, stride=config.patch // 4)
        self.position = nn.Parameter(torch.empty(1, config.width, *config.position_grid))
        normal_(self.position, config.position_std)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Encoded:  # [S, 3, H, W] in [0, 1], H and W multiples of the patch
        normalised = (images - self.mean) / self.std
        skip = self.residuals(self.embed(normalised.to(self.embed.weight.dtype)))
        patches = self.gather(skip)
        patches = patches.float() + self._position(patches.shape[-2], patches.shape[-1])
        return Encoded(patches.flatten(2).transpose(1, 2), skip)

    def _position(self, height: int, width: int) -> Tensor:
        if (height, width) == self.position_grid:
            return self.position
        return F.interpolate(self.position, (height, width), mode="bicubic", align_corners=False)
