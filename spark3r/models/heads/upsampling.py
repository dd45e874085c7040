"""From patch features to pixels by convolutions that double the map again and again (Wang et al. 2025, MoGe)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CHANNELS_PER_GROUP = 32  # that are normalised together
_LAST_WIDTH = 32  # channels before the last layer at full resolution
_PLACE = 2  # channels that say where in the image a cell stands


class Upsampled(nn.Module):
    """Patch features [F, h·w, D] → all `outputs` numbers of every pixel, [F, sum of them, H, W]; float32."""

    stays_float32 = True

    def __init__(self, width: int, features: tuple[int, ...], outputs: tuple[int, ...], patch: int):
        super().__init__()
        self.patch = patch
        self.levels = nn.ModuleList(_Level(coarse, fine) for coarse, fine in pairwise((width, *features)))
        self.endings = nn.ModuleList(
            nn.Sequential(_convolution(features[-1] + _PLACE, _LAST_WIDTH), nn.ReLU(), nn.Conv2d(_LAST_WIDTH, count, 1))
            for count in outputs
        )

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        size = (self.patch * grid[0], self.patch * grid[1])
        x = x.transpose(1, 2).unflatten(2, grid)
        for level in self.levels:
            x = level(with_place(x, size))
        x = with_place(F.interpolate(x, size, mode="bilinear", align_corners=False), size)
        return torch.cat([ending(x) for ending in self.endings], dim=1)


class _Level(nn.Module):
    """A map with its place → one of twice the sides."""

    def __init__(self, coarse: int, fine: int):
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(coarse + _PLACE, fine, 2, stride=2)
        self.smooth = _convolution(fine, fine)
        self.residuals = nn.Sequential(_Residual(fine), _Residual(fine))

    def forward(self, x: Tensor) -> Tensor:
        return self.residuals(self.smooth(self.enlarge(x)))


class _Residual(nn.Sequential):
    """x + conv(relu(norm(conv(relu(norm(x)))))), twice as wide within."""

    def __init__(self, width: int):
        super().__init__(
            nn.GroupNorm(1, width),
            nn.ReLU(inplace=True),
            _convolution(width, 2 * width),
            nn.GroupNorm(2 * width // _CHANNELS_PER_GROUP, 2 * width),
            nn.ReLU(inplace=True),
            _convolution(2 * width, width),
        )

    def forward(self, input: Tensor) -> Tensor:
        return input + super().forward(input)


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate")


def with_place(x: Tensor, size: tuple[int, int]) -> Tensor:
    """x [F, C, m, n] and two channels more: across and down the image of this size (height, width), of which half the
    diagonal is 1, from the middle to the middles of the map's cells."""
    diagonal = math.hypot(*size)
    rows, columns = (
        torch.linspace(-1, 1, cells, device=x.device, dtype=x.dtype) * (side / diagonal * (cells - 1) / cells)
        for cells, side in zip(x.shape[-2:], size, strict=True)
    )
    place = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))
    return torch.cat((x, place.expand(len(x), -1, -1, -1)), dim=1)
