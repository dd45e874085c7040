"""The dense prediction transformer of VGGT, Depth Anything 3 and VGGT-Ω: four tapped layers → depth and confidence.

Everything here is float32. Where a 1 × 1 convolution follows a resize, it is computed before, on fewer pixels: both
are linear and the resize's weights add up to one, so the result is the same.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spark3r.kernels.elementwise import normed_pair
from spark3r.models.config import Dpt, ModelConfig
from spark3r.models.heads.dense import Dense
from spark3r.models.tapped import Tapped

_POSITION_STRENGTH = 0.1
_LAST_WIDTH = 32  # channels before the last layer at full resolution


def add_position(x: Tensor) -> Tensor:
    """x [F, C, m, n] plus sines and cosines of where each cell stands in an image of the same aspect as the map;
    without gradients x itself is updated."""
    across, down = _position(x)
    x = x.clone() if torch.is_grad_enabled() else x
    x[:, : x.shape[1] // 2].add_(across)
    x[:, x.shape[1] // 2 :].add_(down)
    return x


def _position(x: Tensor) -> tuple[Tensor, Tensor]:
    """What the first half [C/2, 1, n] and the second half [C/2, m, 1] of the channels of a map say of a place."""
    *_, channels, rows, columns = x.shape
    diagonal = math.hypot(rows, columns)
    across = _waves(channels, columns, columns / diagonal).to(x)[:, None, :]
    down = _waves(channels, rows, rows / diagonal).to(x)[:, :, None]
    return across, down


def _position_map(x: Tensor) -> Tensor:
    """What `add_position` adds to every map of x [F, C, m, n], [1, C, m, n]."""
    across, down = _position(x)
    size = (x.shape[1] // 2, *x.shape[2:])
    return torch.cat((across.expand(size), down.expand(size)))[None]


@lru_cache(maxsize=32)
def _waves(channels: int, cells: int, extent: float) -> Tensor:
    """[C/2, cells] float64: sines, then cosines, of cell centres spread over ±extent."""
    with torch.inference_mode(False):  # so that the table serves training too
        frequency = 100.0 ** -(torch.arange(channels // 4, dtype=torch.float64) / (channels // 4))
        last = extent * (cells - 1) / cells
        angle = frequency[:, None] * torch.linspace(-last, last, cells, dtype=torch.float64)
        return _POSITION_STRENGTH * torch.cat((angle.sin(), angle.cos()))


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, with the corners' centres kept in place."""
    if (x.shape[-2], x.shape[-1]) == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


class RefineUnit(nn.Module):
    """x + conv(relu(conv(relu(x)))); with `skip_relu` relu(x) is passed on in place of x."""

    def __init__(self, width: int, skip_relu: bool):
        super().__init__()
        self.skip_relu = skip_relu
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        rectified = F.relu(x)
        return (rectified if self.skip_relu else x) + self.conv2(F.relu(self.conv1(rectified)))


class Fusion(nn.Module):
    """Adds a finer map to the coarse one, refines, and enlarges."""

    def __init__(self, width: int, skip_relu: bool, has_lateral: bool):
        super().__init__()
        if has_lateral:
            self.lateral = RefineUnit(width, skip_relu)
        self.refine = RefineUnit(width, skip_relu)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, size: tuple[int, int], lateral: Tensor | None = None) -> Tensor:
        if lateral is not None:
            x = x + self.lateral(lateral)
        return resize(self.out(self.refine(x)), size)


class Fusions(nn.Module):
    """Four maps, merged from the coarsest to the finest."""

    def __init__(self, dpt: Dpt):
        super().__init__()
        self.levels = nn.ModuleList(Fusion(dpt.features, dpt.skip_relu, level < 3) for level in range(4))

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:  # maps from fine to coarse
        sizes = [size, *((m.shape[-2], m.shape[-1]) for m in maps[:3])]
        x = self.levels[3](maps[3], sizes[3])
        for level in (2, 1, 0):
            x = self.levels[level](x, sizes[level], maps[level])
        return x


class Pyramid(nn.Module):
    """Four tapped layers [F, h·w, 2C] → maps of `features` channels at 4, 2, 1 and ½ times the grid.

    `read` is what is done when the layer is tapped, as far as numbers become fewer: each token's norm and projection,
    and for the coarse maps, which are not enlarged, all the rest. Of 2C numbers it leaves an eighth to a half.
    """

    _COARSE = 2  # this tap and those after it are not enlarged

    def __init__(self, width: int, dpt: Dpt):
        super().__init__()
        c0, c1, _, c3 = dpt.channels
        if dpt.global_norm:
            self.global_norm = nn.LayerNorm(width, eps=1e-5)
        self.norm = nn.LayerNorm(2 * width, eps=1e-5)
        self.projects = nn.ModuleList(nn.Conv2d(2 * width, channels, 1) for channels in dpt.channels)
        self.resizes = nn.ModuleList(
            (
                nn.ConvTranspose2d(c0, c0, 4, stride=4),
                nn.ConvTranspose2d(c1, c1, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(c3, c3, 3, stride=2, padding=1),
            )
        )
        self.laterals = nn.ModuleList(
            nn.Conv2d(channels, dpt.features, 3, padding=1, bias=False) for channels in dpt.channels
        )

    def read(self, tap: int, tapped: Tapped) -> Tensor:  # → [F, cells, channels], as `forward` takes it
        """What is kept of a tapped layer."""
        local, whole = tapped.local.flatten(0, 1), tapped.whole.flatten(0, 1).float()
        local, whole = self.features(local, whole)
        normed = normed_pair(local, whole, self.norm.weight, self.norm.bias, self.norm.eps).transpose(1, 2)[..., None]
        projected = self.projects[tap](normed)[..., 0]
        if tap >= self._COARSE:
            projected = self._widened(tap, projected.unflatten(2, tapped.grid)).flatten(2)
        return projected.transpose(1, 2)

    def forward(self, taps: list[Tensor], grid: tuple[int, int]) -> list[Tensor]:  # as read
        half = ((grid[0] + 1) // 2, (grid[1] + 1) // 2)
        grids = (grid, grid, grid, half)
        maps = [
            tap.to(torch.float32, copy=True).transpose(1, 2).unflatten(2, cells)
            for tap, cells in zip(taps, grids, strict=True)
        ]
        return [x if tap >= self._COARSE else self._widened(tap, x) for tap, x in enumerate(maps)]

    def _widened(self, tap: int, x: Tensor) -> Tensor:  # [F, channels of this tap, h, w], which may be updated
        return self.laterals[tap](self.resizes[tap](add_position(x)))

    def features(self, local: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
        """The halves of a tapped layer as the family normalises them first."""
        return local, self.global_norm(whole) if hasattr(self, "global_norm") else whole


class DptHead(nn.Module):
    """Pyramid → fusions → `outputs` numbers per pixel, the last of them a confidence."""

    stays_float32 = True

    def __init__(self, config: ModelConfig, dpt: Dpt, outputs: int = 2):
        super().__init__()
        self.special, self.dpt = config.tokens.special, dpt
        self.pyramid = Pyramid(config.width, dpt)
        self.fusions = Fusions(dpt)
        self.ending = (_Convolutions if dpt.ending == "convolutions" else _Shuffle)(dpt, outputs, config.patch)
        if dpt.rays:
            self.rays = Rays(dpt)

    def read(self, tap: int, tapped: Tapped) -> tuple[Tensor, ...]:
        """What is kept of a tapped layer, [B, F, cells, channels]."""
        return (self.pyramid.read(tap, tapped).unflatten(0, tapped.whole.shape[:2]),)

    def forward(self, taps: list[tuple[Tensor, ...]], grid: tuple[int, int], skip: None = None) -> Dense:
        """taps [F, cells, channels] each, as read."""
        log_depth, logit = self.raw([tap for (tap,) in taps], grid).unbind(1)
        return Dense(log_depth.exp(), logit)

    def raw(self, taps: list[Tensor], grid: tuple[int, int]) -> Tensor:
        """What the last layer says, [F, outputs, H, W]."""
        maps = self.pyramid(taps, grid)
        return self.ending(self.fusions(maps, self.ending.fused_size(grid)), grid)


class _Convolutions(nn.Module):
    """Fused at eight times the grid, then convolved at full resolution."""

    def __init__(self, dpt: Dpt, outputs: int, patch: int):
        super().__init__()
        self.patch = patch
        self.narrow = nn.Conv2d(dpt.features, dpt.features // 2, 3, padding=1)
        self.last = nn.Sequential(
            nn.Conv2d(dpt.features // 2, _LAST_WIDTH, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(_LAST_WIDTH, outputs, 1),
        )

    def fused_size(self, grid: tuple[int, int]) -> tuple[int, int]:
        return 8 * grid[0], 8 * grid[1]

    def forward(self, fused: Tensor, grid: tuple[int, int]) -> Tensor:
        full = resize(self.narrow(fused), (self.patch * grid[0], self.patch * grid[1]))
        if torch.is_grad_enabled():
            return self.last(add_position(full))
        first = cast(
            nn.Conv2d, self.last[0]
        )  # the convolution of a sum is the sum of two: positions' is small, and one
        return self.last[1:](first(full).add_(F.conv2d(_position_map(full), first.weight, padding=1)))


class _Shuffle(nn.Module):
    """Fused at four times the grid; every cell then writes its own square of pixels from its channels."""

    def __init__(self, dpt: Dpt, outputs: int, patch: int):
        super().__init__()
        self.side = patch // 4
        self.values = nn.ModuleList(nn.Conv2d(dpt.features, self.side**2, 1) for _ in range(outputs))

    def fused_size(self, grid: tuple[int, int]) -> tuple[int, int]:
        return 4 * grid[0], 4 * grid[1]

    def forward(self, fused: Tensor, grid: tuple[int, int]) -> Tensor:
        placed = add_position(fused)
        return torch.cat([F.pixel_shuffle(value(placed), self.side) for value in self.values], dim=1)


class Rays(nn.Module):
    """Depth Anything 3's second answer: a ray (direction, origin) and a confidence for every cell of an 8h × 8w map.
    It shares the pyramid of the depth and is not needed for a reconstruction."""

    def __init__(self, dpt: Dpt):
        super().__init__()
        wide, narrow = dpt.features, dpt.features // 2
        self.fusions = Fusions(dpt)
        widths = (wide, narrow, wide, narrow, wide, narrow)
        self.neck = nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths)))
        self.widen = nn.Conv2d(narrow, _LAST_WIDTH, 3, padding=1)
        self.norm = nn.LayerNorm(_LAST_WIDTH, eps=1e-5)
        self.last = nn.Conv2d(_LAST_WIDTH, 7, 1)

    def forward(self, maps: list[Tensor], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Rays [F, 8h, 8w, 6] and the logits of their confidence [F, 8h, 8w]."""
        x = self.widen(add_position(self.neck(self.fusions(maps, (8 * grid[0], 8 * grid[1])))))
        x = self.norm(x.movedim(1, -1)).movedim(-1, 1)
        rays = self.last(F.relu(x)).movedim(1, -1)
        return rays[..., :6], rays[..., 6]
