"""Camera head of the small model: each frame's camera token → where the camera stood and how wide it saw."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spark3r.attention import Linear
from spark3r.geometry import matrix_from_quaternion


class CameraHead(nn.Module):
    """Camera token [B, S, 2C] → raw pose [B, S, 9]: camera centre in the world (3), orientation of the camera in the
    world as a quaternion xyzw (4), vertical and horizontal field of view in radians (2)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(2 * width)
        self.hidden = Linear(2 * width, width)
        self.refine = Linear(width, width)
        self.pose = Linear(width, 9)

    def forward(self, token: Tensor) -> Tensor:
        x = F.gelu(self.hidden(self.norm(token)))
        x = x + F.gelu(self.refine(x))
        centre, quaternion, fov = self.pose(x).float().split((3, 4, 2), dim=-1)
        forward = quaternion.new_tensor([0.0, 0.0, 0.0, 1.0])
        return torch.cat((centre, quaternion + forward, math.pi * torch.sigmoid(fov - 0.8)), dim=-1)


def world_from_camera(pose: Tensor) -> Tensor:
    """Raw pose [..., 9] → rigid transform [..., 4, 4] (OpenCV axes)."""
    transform = pose.new_zeros(*pose.shape[:-1], 4, 4)
    transform[..., :3, :3] = matrix_from_quaternion(pose[..., 3:7])
    transform[..., :3, 3] = pose[..., :3]
    transform[..., 3, 3] = 1.0
    return transform


def intrinsics_from_fov(fov: Tensor, height: int, width: int) -> Tensor:
    """(vertical, horizontal) fields of view [..., 2] in radians → [..., 3, 3] in pixels, principal point centred.

    Pixel centres are at whole numbers, so the centre of an image of W columns lies at (W − 1) / 2.
    """
    focal = torch.stack((fov.new_full((), width), fov.new_full((), height))) / 2 / (fov.flip(-1) / 2).tan()
    matrix = fov.new_zeros(*fov.shape[:-1], 3, 3)
    matrix[..., 0, 0], matrix[..., 1, 1] = focal[..., 0], focal[..., 1]
    matrix[..., 0, 2], matrix[..., 1, 2] = (width - 1) / 2, (height - 1) / 2
    matrix[..., 2, 2] = 1.0
    return matrix
