"""What the model shall say of a clip: the world is the middle frame's camera, the scene has unit size."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from spark3r.training.scenes.sequences import Clips


@dataclass(frozen=True)
class Targets:
    """Truth in the frame and scale of the model's prediction."""

    images: Tensor  # [B, S, 3, H, W]
    depth: Tensor  # [B, S, H, W]
    world_from_camera: Tensor  # [B, S, 4, 4]
    rays: Tensor  # [B, S, H, W, 3] with z = 1, camera axes
    points: Tensor  # [B, S, H, W, 3] world
    intrinsics: Tensor  # [B, S, 3, 3] pixels

    @property
    def reference(self) -> int:
        """Number of the reference frame."""
        return self.depth.shape[1] // 2

    def some(self, frames: slice) -> Targets:
        """The same world, seen by some of the frames only (whose middle one need not be the reference)."""
        return Targets(*(getattr(self, field.name)[:, frames] for field in fields(self)))

    def field_of_view(self) -> Tensor:
        """Vertical and horizontal field of view [B, S, 2] in radians."""
        height, width = self.depth.shape[-2:]
        k = self.intrinsics
        return torch.stack(
            [2 * torch.atan(0.5 * height / k[..., 1, 1]), 2 * torch.atan(0.5 * width / k[..., 0, 0])], -1
        )


def pixel_rays(intrinsics: Tensor, height: int, width: int) -> Tensor:
    """Rays [..., H, W, 3] with z = 1 through the pixel centres of intrinsics [..., 3, 3]."""
    v, u = torch.meshgrid(
        torch.arange(height, device=intrinsics.device, dtype=torch.float32),
        torch.arange(width, device=intrinsics.device, dtype=torch.float32),
        indexing="ij",
    )
    x = (u - intrinsics[..., 0, 2, None, None]) / intrinsics[..., 0, 0, None, None]
    y = (v - intrinsics[..., 1, 2, None, None]) / intrinsics[..., 1, 1, None, None]
    return torch.stack([x, y, torch.ones_like(x)], -1)


def world_points(depth: Tensor, rays: Tensor, world_from_camera: Tensor) -> Tensor:
    """Points [B, S, H, W, 3] of depth [B, S, H, W]."""
    turned = torch.einsum("bsij,bshwj->bshwi", world_from_camera[..., :3, :3], rays * depth[..., None])
    return turned + world_from_camera[..., None, None, :3, 3]


def inverse(transform: Tensor) -> Tensor:
    """Inverse of rigid transforms [..., 4, 4]."""
    out = torch.zeros_like(transform)
    rotation = transform[..., :3, :3].transpose(-1, -2)
    out[..., :3, :3] = rotation
    out[..., :3, 3] = -(rotation @ transform[..., :3, 3, None])[..., 0]
    out[..., 3, 3] = 1.0
    return out


def targets_of(clips: Clips) -> Targets:
    """Move a clip's truth to the middle frame and divide by the mean distance of its points from there."""
    height, width = clips.depth.shape[-2:]
    reference = clips.depth.shape[1] // 2
    poses = inverse(clips.world_from_camera[:, reference])[:, None] @ clips.world_from_camera
    rays = pixel_rays(clips.intrinsics, height, width)
    points = world_points(clips.depth, rays, poses)
    size = points.norm(dim=-1).mean((1, 2, 3))
    poses = poses.clone()
    poses[..., :3, 3] /= size[:, None, None]
    return Targets(
        clips.images,
        clips.depth / size[:, None, None, None],
        poses,
        rays,
        points / size[:, None, None, None, None],
        clips.intrinsics,
    )
