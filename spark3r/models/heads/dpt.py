"""The dense prediction transformer of VGGT, Depth Anything 3 and VGGT-Ω: four tapped layers → depth and confidence.

Everything here is float32. Where a 1 × 1 convolution follows a resize, it is computed before, on fewer pixels: both
are linear and the resize's weights add up to one, so the result is the same.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spark3r.models.config import Dpt, ModelConfig
from spark3r.models.heads.dense import Dense

_POSITION_STRENGTH = 0.1
_LAST_WIDTH = 32  # channels before the last layer at full resolution


def add_position(x: Tensor) -> Tensor:
    """x [F, C, m, n] plus sines and cosines of where each cell stands in an image of the same aspect as the map;
    without gradients x itself is updated."""
    *_, channels, rows, columns = x.shape
    diagonal = math.hypot(rows, columns)
    across = _waves(channels, columns, columns / diagonal).to(x)[:, None, :]  # [C/2, 1, n]
    down = _waves(channels, rows, rows / diagonal).to(x)[:, :, None]  # [C/2, m, 1]
    x = x.clone() if torch.is_grad_enabled() else x
    x[:, : channels // 2] += across
    x[:, channels // 2 :] += down
    return x


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

    `read` goes as far as each token goes alone, and is done when the layer is tapped: it leaves a tenth to a half of
    the 2C numbers.
    """

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

    def read(self, tap: int, both: Tensor) -> Tensor:  # [F, h·w, 2C] → [F, h·w, channels of this tap]
        """Norm and projection."""
        normed = self.norm(self._features(both)).transpose(1, 2)[..., None]
        return self.projects[tap](normed)[..., 0].transpose(1, 2)

    def forward(self, taps: list[Tensor], grid: tuple[int, int]) -> list[Tensor]:  # as read
        maps = [tap.to(torch.float32, copy=True).transpose(1, 2).unflatten(2, grid) for tap in taps]
        layers = zip(maps, self.resizes, self.laterals, strict=True)
        return [lateral(scale(add_position(x))) for x, scale, lateral in layers]

    def _features(self, both: Tensor) -> Tensor:
        """The tapped layer as the family normalises it."""
        if not hasattr(self, "global_norm"):
            return both
        local, whole = both.chunk(2, dim=-1)
        return torch.cat((local, self.global_norm(whole)), dim=-1)


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

    def read(self, tap: int, both: Tensor) -> Tensor:  # [F, P, 2C] → [F, h·w, channels of this tap]
        """What is kept of a tapped layer."""
        return self.pyramid.read(tap, both[:, self.special :].float())

    def forward(self, taps: list[Tensor], grid: tuple[int, int], skip: None = None) -> Dense:
        """taps [F, h·w, channels] each, as read."""
        log_depth, logit = self.raw(taps, grid).unbind(1)
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
        return self.last(add_position(full))


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
