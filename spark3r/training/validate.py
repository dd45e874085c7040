"""How good a model is on scenes it never saw: depth, rotation, path."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from spark3r.models.network import Network
from spark3r.training.scenes import domain
from spark3r.training.scenes.sequences import Clips

from .config import VALIDATION_SEED, TrainingConfig
from .losses import relative
from .targets import targets_of


@dataclass(frozen=True)
class Validation:
    """Means over clips of unseen scenes."""

    abs_rel: float  # |depth − truth| / truth after one median scale per clip
    rotation_degrees: float  # mean angle between predicted and true relative rotation, over all pairs of frames
    ate_over_extent: float  # centre error after Sim(3) alignment ÷ extent of the true path
    auc_30: float  # area under the curve of pairs whose rotation and direction errors are below 0..30°
    focal_error: float  # relative

    def to_json(self) -> dict[str, float]:
        """The scores by name, rounded."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


WORLDS = {"": 0.0, "wild_": 1.0, "long_": 1.0}  # prefix of the scores → share of the wide world
LONG_FRAMES, LONG_CLIPS = 32, 6


def validation_clips(config: TrainingConfig) -> dict[str, list[Clips]]:
    """The fixed clips of unseen scenes, a few at a time: original rooms, the wide world, and long clips of it."""
    return {prefix: _clips(config, wild, long=prefix == "long_") for prefix, wild in WORLDS.items()}


def _clips(config: TrainingConfig, wild: float, long: bool) -> list[Clips]:
    frames = min(LONG_FRAMES, config.frames_per_step) if long else config.validation_frames
    count = min(LONG_CLIPS, config.validation_clips) if long else config.validation_clips
    together = max(1, config.frames_per_step // frames)
    return [
        domain.sample(
            VALIDATION_SEED + start,
            min(together, count - start),
            frames,
            config.height,
            config.width,
            wild=wild,
            samples=config.samples_per_pixel,
            device=config.device,
            breadth=0.8,
        )
        for start in range(0, count, together)
    ]


def angle_degrees(a: Tensor, b: Tensor) -> Tensor:
    """Angle between rotations [..., 3, 3]."""
    cosine = ((a * b).sum((-1, -2)) - 1) / 2
    return torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))


def aligned_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Root mean square distance of centres [S, 3] after the best similarity, ÷ extent of the true centres."""
    a, b = found - found.mean(0), wanted - wanted.mean(0)
    u, s, vh = torch.linalg.svd(b.T @ a)
    flip = torch.ones(3, device=a.device)
    flip[2] = torch.sign(torch.linalg.det(u @ vh))
    turn = u @ torch.diag(flip) @ vh
    scale = (s * flip).sum() / a.square().sum().clamp_min(1e-12)
    extent = (wanted.amax(0) - wanted.amin(0)).norm().clamp_min(1e-6)
    return (scale * a @ turn.T - b).norm(dim=-1).square().mean().sqrt() / extent


def pair_errors(found: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation and translation-direction error in degrees of all pairs of frames, from poses [B, S, 4, 4]."""
    turn_a, shift_a = relative(found)
    turn_b, shift_b = relative(wanted)
    frames = found.shape[1]
    pairs = ~torch.eye(frames, dtype=torch.bool, device=found.device)
    cosine = torch.nn.functional.cosine_similarity(shift_a, shift_b, dim=-1).clamp(-1, 1)
    return angle_degrees(turn_a, turn_b)[:, pairs], torch.rad2deg(torch.acos(cosine))[:, pairs]


@torch.no_grad()
def validate(network: Network, clips: list[Clips], autocast: bool) -> Validation:
    """Scores of a network; rotation is measured against the truth without alignment."""
    rows: list[list[float]] = []
    for batch in clips:
        truth = targets_of(batch)
        with torch.autocast(truth.depth.device.type, torch.bfloat16, enabled=autocast):
            predicted = network(truth.images)
        depth, centres = predicted.depth.float(), predicted.world_from_camera[..., :3, 3].float()
        rotation, direction = pair_errors(predicted.world_from_camera.float(), truth.world_from_camera)
        worst = torch.maximum(rotation, direction)
        focal = predicted.intrinsics[..., 0, 0] / truth.intrinsics[..., 0, 0]
        for i in range(len(depth)):
            scale = (truth.depth[i] / depth[i]).median()
            rows.append([
                float(((depth[i] * scale - truth.depth[i]).abs() / truth.depth[i]).mean()),
                float(rotation[i].mean()),
                float(aligned_error(centres[i], truth.world_from_camera[i, :, :3, 3])),
                float((1 - worst[i] / 30).clamp_min(0).mean()),
                float((focal[i] - 1).abs().mean()),
            ])  # fmt: skip
    return Validation(*torch.tensor(rows).mean(0).tolist())
