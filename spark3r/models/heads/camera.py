"""What a camera head predicts, and how raw poses become cameras; the camera head of the small model."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spark3r.attention import Linear
from spark3r.geometry import matrix_from_quaternion
from spark3r.models.config import MlpCamera, ModelConfig


class Cameras(NamedTuple):
    """Poses and intrinsics of every frame."""

    pose: Tensor  # [B, S, K], as the family's head says it
    world_from_camera: Tensor  # [B, S, 4, 4]
    intrinsics: Tensor | None  # [B, S, 3, 3] pixels; None where the dense head finds them
    scale: Tensor | None = None  # [B] metres per unit of the dense head's depths, where they differ from the poses'


class CameraHead(nn.Module):
    """Camera token → raw pose [B, S, 9]: camera centre in the world (3), orientation of the camera in the world as a
    quaternion xyzw (4), vertical and horizontal field of view in radians (2)."""

    stays_float32 = True

    def __init__(self, config: ModelConfig, camera: MlpCamera):
        super().__init__()
        width = config.width
        self.norm = nn.LayerNorm(2 * width)
        self.hidden = Linear(2 * width, width)
        self.refine = Linear(width, width)
        self.pose = Linear(width, 9)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Cameras:  # tokens: [B, S, special, 2C] of the last tap
        pose = self._raw(tokens[:, :, 0])
        height, width = size
        intrinsics = intrinsics_from_fov(pose[..., 7:], size, ((width - 1) / 2, (height - 1) / 2))
        return Cameras(pose, rigid(matrix_from_quaternion(pose[..., 3:7]), pose[..., :3]), intrinsics)

    def _raw(self, token: Tensor) -> Tensor:  # [B, S, 2C]
        x = F.gelu(self.hidden(self.norm(token)))
        x = x + F.gelu(self.refine(x))
        centre, quaternion, fov = self.pose(x).float().split((3, 4, 2), dim=-1)
        forward = quaternion.new_tensor([0.0, 0.0, 0.0, 1.0])
        return torch.cat((centre, quaternion + forward, math.pi * torch.sigmoid(fov - 0.8)), dim=-1)


def rigid(rotation: Tensor, translation: Tensor) -> Tensor:
    """[..., 3, 3] and [..., 3] → rigid transform [..., 4, 4]."""
    transform = rotation.new_zeros(*rotation.shape[:-2], 4, 4)
    transform[..., :3, :3] = rotation
    transform[..., :3, 3] = translation
    transform[..., 3, 3] = 1.0
    return transform


def inverse_rigid(rotation: Tensor, translation: Tensor) -> Tensor:
    """The inverse [..., 4, 4] of the rigid transform given by [..., 3, 3] and [..., 3]."""
    back = rotation.mT
    return rigid(back, -(back @ translation[..., None])[..., 0])


def intrinsics_from_fov(
    fov: Tensor,  # [..., 2] vertical, horizontal, radians
    size: tuple[int, int],
    principal: tuple[float, float],  # (x, y) pixels; pixel centres are at whole numbers
    least_tan: float | None = None,  # of half the field of view; bounds the focal length
) -> Tensor:  # [..., 3, 3] pixels
    """Pinhole matrices of fields of view."""
    height, width = size
    sides = torch.stack((fov.new_full((), width), fov.new_full((), height)))
    tan = (fov.flip(-1) / 2).tan()
    tan = tan if least_tan is None else tan.clamp_min(least_tan)
    return pinhole(sides / 2 / tan, principal)


def pinhole(focal: Tensor, principal: tuple[float, float]) -> Tensor:
    """Focal lengths [..., 2] (x, y) in pixels → [..., 3, 3]."""
    matrix = focal.new_zeros(*focal.shape[:-1], 3, 3)
    matrix[..., 0, 0], matrix[..., 1, 1] = focal[..., 0], focal[..., 1]
    matrix[..., 0, 2], matrix[..., 1, 2] = principal
    matrix[..., 2, 2] = 1.0
    return matrix
