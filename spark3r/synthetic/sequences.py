"""Training clips with exact truth: a scene, a path and a camera from each seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import paths, rooms
from .render import Cameras, develop, render
from .scene import Scenes

FIELD_OF_VIEW = np.radians((55.0, 65.0))  # horizontal
KINDS = ("room", "table", "flat")
SHARES = (0.55, 0.33, 0.12)


@dataclass(frozen=True)
class Clips:
    """B clips of S frames with their truth, scene units (metres), any world frame."""

    images: Tensor  # [B, S, 3, H, W] float32 in 0..1
    depth: Tensor  # [B, S, H, W] z-depth
    world_from_camera: Tensor  # [B, S, 4, 4]
    intrinsics: Tensor  # [B, S, 3, 3] pixels


def pinhole(field_of_view: float, height: int, width: int) -> np.ndarray:
    """Intrinsics [3, 3] with square pixels from a horizontal field of view in radians."""
    focal = 0.5 * width / np.tan(0.5 * field_of_view)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def exposures(rng: np.random.Generator, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Exposure [S] with a slow drift and white balance [S, 3] of one clip."""
    drift = 0.06 * paths.tremor(rng, np.linspace(0, 0.35 * frames, frames), 1)[:, 0]
    exposure = rng.uniform(0.85, 1.3) * (1 + drift)
    balance = np.repeat(1 + rng.uniform(-0.04, 0.04, (1, 3)), frames, 0)
    return exposure, balance


def sample(
    seed: int,
    count: int,
    frames: int,
    height: int = 96,
    width: int = 128,
    *,
    breadth: float = 1.0,
    samples: int = 2,
    device: str | torch.device = "cpu",
) -> Clips:
    """Clips number seed, seed + 1, … seed + count - 1. The same arguments give the same clips."""
    builders, poses, intrinsics, light = [], [], [], []
    for clip in range(seed, seed + count):
        rng = np.random.default_rng((clip, 104729))
        kind = str(rng.choice(KINDS, p=SHARES))
        builder = rooms.scene(clip, kind)
        walk = paths.training_walk(rng, builder, kind, frames, breadth)
        builders.append(builder)
        poses.append(walk.world_from_camera())
        intrinsics.append(np.repeat(pinhole(rng.uniform(*FIELD_OF_VIEW), height, width)[None], frames, 0))
        light.append(np.concatenate([e if e.ndim > 1 else e[:, None] for e in exposures(rng, frames)], 1))
    scenes = Scenes.stack(builders).to(device)

    def gathered(rows: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(rows).astype(np.float32)).to(device)

    which = torch.arange(count, device=device).repeat_interleave(frames)
    cameras = Cameras(which, gathered(poses), gathered(intrinsics))
    linear, depth = render(scenes, cameras, height, width, samples)
    exposure = gathered(light)
    images = with_noise(develop(linear, exposure[:, 0], exposure[:, 1:]), seed)
    shape = (count, frames)
    return Clips(*(x.unflatten(0, shape) for x in (images, depth, cameras.world_from_camera, cameras.intrinsics)))


def with_noise(images: Tensor, seed: int, strength: float = 0.012) -> Tensor:
    """Sensor noise; drawn on the CPU, so that every device sees the same."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return (images + strength * noise).clamp_(0.0, 1.0)
