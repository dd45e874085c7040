"""What is wrong with a prediction, as numbers to be lowered."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .targets import Targets, world_points

WEIGHTS = {
    "depth": 1.0, "gradient": 0.5, "point": 1.0, "translation": 1.0, "rotation": 1.0, "pair": 1.0, "fov": 0.5,
    "confidence": 0.1, "matching": 0.1, "reference": 0.1, "auxiliary": 0.5,
}  # fmt: skip


class Predicted(NamedTuple):
    """The parts of a prediction that losses read, of all frames or of some (models.network.Prediction has them)."""

    depth: Tensor  # [B, S, H, W]
    confidence_logit: Tensor  # [B, S, H, W]
    pose: Tensor  # [B, S, 9]
    world_from_camera: Tensor  # [B, S, 4, 4]


def depth_losses(predicted: Predicted, truth: Targets) -> dict[str, Tensor]:
    """Log depth, its gradients at three scales, and the Laplace term that teaches confidence alone."""
    error = predicted.depth.float().log() - truth.depth.log()
    gradient = error.new_zeros(())
    for step in (1, 2, 4):
        coarse = error[..., ::step, ::step]
        gradient = (
            gradient + coarse.diff(dim=-1).abs().clamp_max(1.0).mean() + coarse.diff(dim=-2).abs().clamp_max(1.0).mean()
        )
    logit = predicted.confidence_logit.float().clamp(-4.0, 6.0)
    laplace = (error.detach().abs() * logit.exp() - logit).mean()
    return {"depth": error.abs().mean(), "gradient": gradient, "confidence": laplace}


def point_loss(predicted: Predicted, truth: Targets, stride: int = 4) -> Tensor:
    """Distance of world points from predicted depth and pose to the true ones, relative to their distance."""
    some = (slice(None), slice(None), slice(stride // 2, None, stride), slice(stride // 2, None, stride))
    points = world_points(predicted.depth.float()[some], truth.rays[some], predicted.world_from_camera.float())
    wanted = truth.points[some]
    return ((points - wanted).norm(dim=-1) / (0.5 + wanted.norm(dim=-1))).mean()


def rotation_gap(a: Tensor, b: Tensor) -> Tensor:
    """Distance of rotation matrices [..., 3, 3]: about the angle in radians, smooth up to half a turn."""
    return ((a - b).square().sum((-1, -2)) * 0.5 + 1e-6).sqrt()


def pose_losses(predicted: Predicted, truth: Targets) -> dict[str, Tensor]:
    """Absolute pose, pose of each frame relative to each other, and field of view."""
    found, wanted = predicted.world_from_camera.float(), truth.world_from_camera
    translation = (found[..., :3, 3] - wanted[..., :3, 3]).norm(dim=-1).mean()
    rotation = rotation_gap(found[..., :3, :3], wanted[..., :3, :3]).mean()
    between_found, between_wanted = relative(found), relative(wanted)
    turn = rotation_gap(between_found[0], between_wanted[0]).mean()
    shift = (between_found[1] - between_wanted[1]).square().sum(-1).add(1e-6).sqrt().mean()
    fov = (predicted.pose[..., 7:] - truth.field_of_view()).abs().mean()
    length = (predicted.pose[..., 3:7].norm(dim=-1) - 1.0).square().mean()
    return {"translation": translation, "rotation": rotation + 0.1 * length, "pair": turn + shift, "fov": fov}


def relative(poses: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation [B, S, S, 3, 3] and translation [B, S, S, 3] of every frame j seen from every frame i."""
    back = poses[:, :, None, :3, :3].transpose(-1, -2)
    apart = poses[:, None, :, :3, 3] - poses[:, :, None, :3, 3]
    return back @ poses[:, None, :, :3, :3], (back @ apart[..., None])[..., 0]


def total(parts: dict[str, Tensor]) -> Tensor:
    """The weighted sum."""
    return torch.stack([WEIGHTS[name] * value for name, value in parts.items()]).sum()
