"""π³'s heads: a few blocks inside each frame, then points in the camera's own axes, their confidence, and the pose."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spark3r.attention import Linear
from spark3r.models.blocks import Block, grid_rotation
from spark3r.models.config import BlockConfig, DecoderConfig, ModelConfig, PatchCamera, PointDense
from spark3r.models.heads.camera import Cameras, pinhole, rigid
from spark3r.models.heads.dense import Dense
from spark3r.models.heads.upsampling import Upsampled
from spark3r.models.tapped import Tapped

_BLOCK = BlockConfig("frame", qk_norm=False, layer_scale=False, norm_eps=1e-6)
_FRAMES_AT_ONCE = 8
_SMALLEST_SLOPE = 1e-6  # of ray direction per pixel; bounds the focal length found from points


class Decoder(nn.Module):
    """The tap of some frames [F, P, 2C] → patch features [F, h·w, outputs] in float32."""

    def __init__(self, config: ModelConfig, decoder: DecoderConfig, outputs: int):
        super().__init__()
        self.special, self.head_dim = config.tokens.special, decoder.width // decoder.heads
        self.project = Linear(2 * config.width, decoder.width)
        self.blocks = nn.ModuleList(Block(decoder.width, decoder.heads, _BLOCK) for _ in range(decoder.depth))
        self.out = Linear(decoder.width, outputs)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """tokens [F, P, 2C]"""
        rotation = grid_rotation(grid, self.special, self.head_dim, tokens.device)
        x = self.project(tokens).float()
        for block in self.blocks:
            x = block(x, rotation, in_place=True)
        return self.out(x).float()[:, self.special :]


class ExactLinear(Linear):
    """A linear layer that stays in float32."""

    stays_float32 = True


class Spread(nn.Module):
    """Patch features [F, h·w, D] → `outputs` numbers for every pixel, [F, outputs, H, W], each patch by itself."""

    def __init__(self, width: int, outputs: int, patch: int):
        super().__init__()
        self.patch = patch
        self.values = ExactLinear(width, outputs * patch**2)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return F.pixel_shuffle(self.values(x).transpose(1, 2).unflatten(2, grid), self.patch)


class PointHead(nn.Module):
    """Every patch token becomes its pixels' points and confidences."""

    def __init__(self, config: ModelConfig, dense: PointDense):
        super().__init__()
        self.largest_log_depth = dense.largest_log_depth
        self.point_decoder = Decoder(config, dense.decoder, dense.width)
        self.confidence_decoder = Decoder(config, dense.decoder, dense.width)
        if dense.upsampling:
            self.point = Upsampled(dense.width, dense.upsampling, (2, 1), config.patch)
            self.confidence = Upsampled(dense.width, dense.upsampling, (1,), config.patch)
        else:
            self.point = Spread(dense.width, 3, config.patch)
            self.confidence = Spread(dense.width, 1, config.patch)

    def read(self, tap: int, tapped: Tapped) -> tuple[Tensor, ...]:
        """All tokens: three decoders start from here."""
        return tapped.special, tapped.local, tapped.whole

    def forward(self, taps: list[tuple[Tensor, ...]], grid: tuple[int, int], skip: None = None) -> Dense:
        """taps: one, its parts as read."""
        tokens = joined(taps[-1])
        ray, log_depth = self.rays(tokens, grid)
        logit = self.confidence(self.confidence_decoder(tokens, grid), grid)[:, 0]
        return Dense(log_depth.exp(), logit, pinhole(*focal_from_rays(ray, torch.sigmoid(logit))))

    def rays(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(x/z, y/z) [F, 2, H, W] and log z [F, H, W] of every pixel's point, of the tap [F, P, 2C]."""
        values = self.point(self.point_decoder(tokens, grid), grid)
        return values[:, :2], values[:, 2].clamp_max(self.largest_log_depth)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Special tokens [..., special, 2C] and both halves of the patches [..., h·w, C] → [..., P, 2C]."""
    special, local, whole = parts
    return torch.cat((special, torch.cat((local, whole), dim=-1)), dim=-2)


def focal_from_rays(
    ray: Tensor,  # [F, 2, H, W]: x/z, y/z
    weight: Tensor,  # [F, H, W] ≥ 0
) -> tuple[Tensor, tuple[float, float]]:  # focal lengths [F, 2] in pixels and the principal point (x, y)
    """The pinhole camera whose rays are nearest to the given ones by least squares, principal point in the middle.

    ray ≈ (pixel − middle) / focal: a line through the origin is fitted for each axis, errors in the ray.
    """
    height, width = ray.shape[-2:]
    middle = ((width - 1) / 2, (height - 1) / 2)
    across = torch.arange(width, device=ray.device) - middle[0]
    down = (torch.arange(height, device=ray.device) - middle[1])[:, None]
    slopes = []
    for axis, offset in enumerate((across, down)):
        slopes.append((weight * offset * ray[:, axis]).sum((1, 2)) / (weight * offset.square()).sum((1, 2)))
    return 1 / torch.stack(slopes, dim=-1).clamp_min(_SMALLEST_SLOPE), middle


class PatchCameraHead(nn.Module):
    """The mean of a frame's decoded patches → its camera's place and axes in the world."""

    def __init__(self, config: ModelConfig, camera: PatchCamera):
        super().__init__()
        self.patch = config.patch
        self.decoder = Decoder(config, camera.decoder, camera.width)
        self.pose = _PoseLayers(camera.width)

    def forward(self, parts: tuple[Tensor, ...], size: tuple[int, int]) -> Cameras:  # [B, S, …] of the tap, as read
        grid = (size[0] // self.patch, size[1] // self.patch)
        device = self.pose.translation.weight.device
        chunks = zip(*(part.flatten(0, 1).split(_FRAMES_AT_ONCE) for part in parts), strict=True)
        tokens = (joined([part.to(device, non_blocking=True) for part in chunk]) for chunk in chunks)
        raw = torch.cat([self.pose(self.decoder(some, grid)) for some in tokens]).unflatten(0, parts[0].shape[:2])
        rotation = nearest_rotation(F.normalize(raw[..., 3:].unflatten(-1, (3, 3)), dim=-1))
        return Cameras(raw, rigid(rotation, raw[..., :3]), None)


class _PoseLayers(nn.Module):
    """Patch features [F, h·w, D] → [F, 12]: translation, then nine numbers of an unfinished rotation matrix."""

    stays_float32 = True

    def __init__(self, width: int):
        super().__init__()
        self.residuals = nn.ModuleList(
            nn.Sequential(*(layer for _ in range(3) for layer in (Linear(width, width), nn.ReLU()))) for _ in range(2)
        )
        self.hidden = nn.Sequential(Linear(width, width), nn.ReLU(), Linear(width, width), nn.ReLU())
        self.translation = Linear(width, 3)
        self.rotation = Linear(width, 9)

    def forward(self, x: Tensor) -> Tensor:
        for residual in self.residuals:
            x = x + residual(x)
        x = self.hidden(x.mean(dim=1))
        return torch.cat((self.translation(x), self.rotation(x)), dim=-1)


def nearest_rotation(matrix: Tensor) -> Tensor:
    """The rotation nearest to a matrix [..., 3, 3]."""
    left, _, right = torch.linalg.svd(matrix)
    sign = torch.ones_like(matrix[..., 0])
    sign[..., 2] = torch.det(left @ right).sign()
    return (left * sign[..., None, :]) @ right
