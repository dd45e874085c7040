"""Training clips with exact truth: a scene, a path and a camera from each seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from . import faults, paths, rooms
from .render import Cameras, develop, render
from .scene import SceneBuilder, Scenes

FIELD_OF_VIEW = np.radians((55.0, 65.0))  # horizontal
KINDS = ("room", "table", "flat")
SHARES = (0.55, 0.33, 0.12)
ROAMING = (0.42, 0.28, 0.30)  # shares for clips that are long enough to lead through a door


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


@dataclass(frozen=True)
class ClipPlan:
    """A clip as planned: nothing of it is rendered yet."""

    scene: SceneBuilder
    path: paths.CameraPath  # S frames
    field_of_view: float  # horizontal, radians
    exposure: np.ndarray  # [S]
    balance: np.ndarray  # [S, 3]
    faults: faults.Faults | None = None  # beyond those; None: a good camera

    def resampled(self, frames: int) -> ClipPlan:
        """The same path through the same scene in the same light, only in so many frames."""
        exposure, balance = paths.resampled(self.exposure, frames), paths.resampled(self.balance, frames)
        seen = None if self.faults is None else self.faults.resampled(frames)
        return replace(self, path=self.path.resampled(frames), exposure=exposure, balance=balance, faults=seen)


def plan(clip: int, frames: int, breadth: float = 1.0, shares: Sequence[float] = SHARES) -> ClipPlan:
    """Clip number `clip`; where it leads depends on the number of frames too (unlike in `resampled`)."""
    rng = np.random.default_rng((clip, 104729))
    kind = str(rng.choice(KINDS, p=shares))
    scene = rooms.scene(clip, kind)
    path = paths.training_path(rng, scene, kind, frames, breadth)
    return ClipPlan(scene, path, rng.uniform(*FIELD_OF_VIEW), *exposures(rng, frames))


def sample(
    seed: int,
    count: int,
    frames: int,
    height: int = 96,
    width: int = 128,
    *,
    breadth: float = 1.0,
    shares: Sequence[float] = SHARES,  # of KINDS
    samples: int = 2,
    device: str | torch.device = "cpu",
) -> Clips:
    """Clips number seed, seed + 1, … seed + count - 1. The same arguments give the same clips."""
    plans = [plan(clip, frames, breadth, shares) for clip in range(seed, seed + count)]
    return render_clips(plans, seed, height, width, samples=samples, device=device)


def render_clips(
    plans: Sequence[ClipPlan],  # of S frames each
    seed: int,  # of the sensor noise
    height: int,
    width: int,
    *,
    samples: int = 2,
    device: str | torch.device = "cpu",
) -> Clips:
    """Renders planned clips."""
    count, frames = len(plans), len(plans[0].path.yaw)
    scenes = Scenes.stack([plan.scene for plan in plans]).to(device)

    def gathered(rows: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(rows).astype(np.float32)).to(device)

    which = torch.arange(count, device=device).repeat_interleave(frames)
    lenses = [np.repeat(pinhole(plan.field_of_view, height, width)[None], frames, 0) for plan in plans]
    cameras = Cameras(which, gathered([plan.path.world_from_camera() for plan in plans]), gathered(lenses))
    linear, depth = render(scenes, cameras, height, width, samples)
    exposure, balance = gathered([plan.exposure for plan in plans]), gathered([plan.balance for plan in plans])
    images = developed(plans, linear, exposure, balance, seed)
    shape = (count, frames)
    return Clips(*(x.unflatten(0, shape) for x in (images, depth, cameras.world_from_camera, cameras.intrinsics)))


def developed(plans: Sequence[ClipPlan], linear: Tensor, exposure: Tensor, balance: Tensor, seed: int) -> Tensor:
    """Display images of linear ones [F, 3, H, W]: by a good camera, or by one with faults."""
    images, frames = torch.empty_like(linear), len(linear) // len(plans)
    good = torch.tensor([plan.faults is None for plan in plans], device=linear.device).repeat_interleave(frames)
    if bool(good.any()):
        images[good] = with_noise(develop(linear[good], exposure[good], balance[good]), seed)
    for i, plan in enumerate(plans):
        if plan.faults is not None:
            own = slice(i * frames, (i + 1) * frames)
            light = faults.on_light(linear[own], plan.faults)
            images[own] = faults.on_picture(
                develop(light, faults.metered(light, plan.faults), balance[own]), plan.faults
            )
    return images


def with_noise(images: Tensor, seed: int, strength: float = 0.012) -> Tensor:
    """Sensor noise; drawn on the CPU, so that every device sees the same."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return (images + strength * noise).clamp_(0.0, 1.0)
