"""The stream of training batches: which clips come at which step. Depends on seed and step only."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from spark3r.training.scenes import domain, sequences
from spark3r.training.scenes.paths import FRAMES_OF_A_PASSAGE
from spark3r.training.scenes.sequences import Clips

from .config import VALIDATION_SEED, TrainingConfig

SHORT, MIDDLE, LONG = (2, 3, 4), (2, 3, 4, 4, 6, 6, 8), (2, 4, 6, 8, 8, 12, 16, 24)
LONGEST = (2, 4, 8, 8, 12, 16, 24, 24, 32, 48)
FEWEST_CLIPS = 2  # of a step, however long they are


def frames_at(config: TrainingConfig, progress: float, rng: np.random.Generator) -> int:
    """How many frames the clips of a batch have, at this share of the run."""
    stages = ((config.short_until, SHORT), (config.long_from, MIDDLE), (config.longest_from, LONG), (np.inf, LONGEST))
    choices = next(lengths for until, lengths in stages if progress < until)
    fitting = [c for c in choices if c <= config.frames_per_step] or [config.frames_per_step]
    return int(fitting[int(rng.integers(len(fitting)))])


def micro_batches_of(config: TrainingConfig, frames: int) -> list[int]:
    """How many clips each micro-batch of a step holds: up to `micro_batches_per_step` nearly equal micro-batches."""
    clips = max(FEWEST_CLIPS, config.frames_per_step // frames)
    micro_batches = min(config.micro_batches_per_step, clips)
    return [clips // micro_batches + (i < clips % micro_batches) for i in range(micro_batches)]


def step_frames(config: TrainingConfig, step: int, progress: float) -> int:
    """How many frames the clips rendered for this step have."""
    return frames_at(config, progress, np.random.default_rng((config.seed, step, 31)))


class Stream:
    """Renders clips and hands each out `reuse` times, differently augmented, in steps that follow each other."""

    def __init__(self, config: TrainingConfig):
        self.config = config
        self.kept: dict[tuple[int, int], Clips] = {}  # (step that renders, micro-batch) → clips

    def micro_batch(self, step: int, frames: int, micro_batch: int) -> tuple[Clips, float]:
        """Clips of one micro-batch of a step, and its share of the step."""
        sizes = micro_batches_of(self.config, frames)
        clips = self._rendered(step - step % self.config.reuse, frames, micro_batch)
        rng = np.random.default_rng((self.config.seed, step, micro_batch, 77))
        return augmented(clips, rng), sizes[micro_batch] / sum(sizes)

    def render_ahead(self, step: int, frames: int, micro_batch: int) -> None:
        """Render a micro-batch (-1: the last) before it is asked for."""
        count = len(micro_batches_of(self.config, frames))
        self._rendered(step - step % self.config.reuse, frames, micro_batch % count)

    def _rendered(self, origin: int, frames: int, micro_batch: int) -> Clips:
        if (origin, micro_batch) not in self.kept:
            self.kept = {key: clips for key, clips in self.kept.items() if key[0] >= origin}
            config, sizes = self.config, micro_batches_of(self.config, frames)
            rng = np.random.default_rng((config.seed, origin, 53))
            first = int(rng.integers(0, VALIDATION_SEED - sum(sizes))) + sum(sizes[:micro_batch])
            shares = sequences.ROAMING if frames >= FRAMES_OF_A_PASSAGE else sequences.SHARES
            clips = domain.sample(
                first, sizes[micro_batch], frames, config.height, config.width, wild=config.wild,
                breadth=float(rng.uniform(0.5, 1.0)), shares=shares, portrait=bool(rng.random() < config.portrait),
                samples=config.samples_per_pixel, device=config.device,
            )  # fmt: skip
            self.kept[origin, micro_batch] = (
                nearly_16_to_9(clips, config.patch) if rng.random() < config.cropped else clips
            )
        return self.kept[origin, micro_batch]


def nearly_16_to_9(clips: Clips, patch: int) -> Clips:
    """Clips of 4:3 cropped along their shorter side to whole patches."""
    height, width = clips.depth.shape[-2:]
    shorter = patch * -(-9 * max(height, width) // (16 * patch))
    return domain.cropped(clips, *((shorter, width) if width > height else (height, shorter)))


def augmented(clips: Clips, rng: np.random.Generator) -> Clips:
    """The same places mirrored, recoloured or walked backwards: true clips as well."""
    images, depth, poses, intrinsics = clips.images, clips.depth, clips.world_from_camera, clips.intrinsics
    if rng.random() < 0.5:
        images, depth, poses, intrinsics = mirrored(images, depth, poses, intrinsics)
    if rng.random() < 0.5:
        images, depth, poses, intrinsics = (x.flip(1) for x in (images, depth, poses, intrinsics))
    if rng.random() < 0.5:
        images = images[:, :, torch.from_numpy(rng.permutation(3)).to(images.device)]
    gain = torch.from_numpy(rng.uniform(0.8, 1.15, (len(images), 1, 3, 1, 1)).astype(np.float32)).to(images.device)
    return Clips((images * gain).clamp(0, 1), depth, poses, intrinsics)


def mirrored(images: Tensor, depth: Tensor, poses: Tensor, intrinsics: Tensor) -> tuple[Tensor, ...]:
    """A clip seen in a mirror: columns reversed, x of camera and world negated (the principal point is central)."""
    sign = torch.tensor([-1.0, 1.0, 1.0, 1.0], device=poses.device)
    turned = poses * sign[:, None] * sign
    return images.flip(-1), depth.flip(-1), turned, intrinsics
