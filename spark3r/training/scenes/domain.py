"""Which clips training shows: the original rooms of the example clips, and a much wider world.

`wild` is the share of clips from the wide world: rooms, laid tables, kitchens, rooms of nothing but solids, corridors,
staircases, shelves and yards, with clutter and any finish, seen by a phone in anybody's hand (`handheld`) with all its
faults (`faults`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from . import faults, sequences
from .handheld import handheld_path
from .jumble import clutter, jumble, weathered
from .kitchens import kitchen
from .palette import Rng
from .places import corridor, shelves, staircase, yard
from .rooms import furnished_room, laid_table
from .scene import SceneBuilder
from .sequences import SHARES, ClipPlan, Clips

FIELD_OF_VIEW = np.radians((45.0, 80.0))  # horizontal; most cameras have
USUAL_FIELD_OF_VIEW, SPREAD = np.radians((60.0, 6.0))
PLACES: dict[Callable[[Rng], SceneBuilder], float] = {
    furnished_room: 0.26, laid_table: 0.18, kitchen: 0.29, jumble: 0.21,
    corridor: 0.015, staircase: 0.015, shelves: 0.015, yard: 0.015,
}  # fmt: skip
CLUTTERED = (furnished_room, laid_table, kitchen, corridor, staircase)


def wild_plan(clip: int, frames: int, breadth: float = 1.0) -> ClipPlan:
    """Clip number `clip` of the wide world."""
    rng = np.random.default_rng((clip, 15485867))
    place = list(PLACES)[int(rng.choice(len(PLACES), p=list(PLACES.values())))]
    scene = place(rng)
    if place in CLUTTERED and rng.random() < 0.75:
        clutter(scene, rng, int(rng.integers(6, 24)))
    weathered(scene, rng)
    path = handheld_path(rng, scene, frames, breadth)
    field_of_view = float(np.clip(rng.normal(USUAL_FIELD_OF_VIEW, SPREAD), *FIELD_OF_VIEW))
    seen = faults.draw(rng, path, field_of_view)
    return ClipPlan(scene, path, field_of_view, seen.exposure, seen.balance, seen)


def plan(clip: int, frames: int, breadth: float = 1.0, shares: Sequence[float] = SHARES, *, wild: float) -> ClipPlan:
    """Clip number `clip` of one world or the other."""
    if np.random.default_rng((clip, 32452843)).random() < wild:
        return wild_plan(clip, frames, breadth)
    return sequences.plan(clip, frames, breadth, shares)


def sample(
    seed: int,
    count: int,
    frames: int,
    height: int,
    width: int,
    *,
    wild: float,
    breadth: float = 1.0,
    shares: Sequence[float] = SHARES,
    portrait: bool = False,
    samples: int = 2,
    device: str | torch.device = "cpu",
) -> Clips:
    """Clips number seed, seed + 1, … seed + count - 1. The same arguments give the same clips.

    Portrait clips are W pixels high and H wide: rendered by a camera that lies on its side, and turned upright.
    """
    plans = [plan(clip, frames, breadth, shares, wild=wild) for clip in range(seed, seed + count)]
    if not portrait:
        return sequences.render_clips(plans, seed, height, width, samples=samples, device=device)
    sideways = [replace(plan, path=replace(plan.path, roll=plan.path.roll - np.pi / 2)) for plan in plans]
    return upright(sequences.render_clips(sideways, seed, height, width, samples=samples, device=device))


def upright(clips: Clips) -> Clips:
    """The same views with pictures and cameras turned by a quarter, so that the left edge is the lower one."""
    old_from_new = torch.tensor([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    k = clips.intrinsics.clone()
    k[..., 0, 0], k[..., 1, 1] = clips.intrinsics[..., 1, 1], clips.intrinsics[..., 0, 0]
    k[..., 0, 2], k[..., 1, 2] = clips.intrinsics[..., 1, 2], clips.depth.shape[-1] - 1 - clips.intrinsics[..., 0, 2]
    images, depth = (x.rot90(1, (-2, -1)).contiguous() for x in (clips.images, clips.depth))
    return Clips(images, depth, clips.world_from_camera @ old_from_new.to(k), k)


def cropped(clips: Clips, rows: int, columns: int) -> Clips:
    """The middle of every picture, rows × columns pixels."""
    height, width = clips.depth.shape[-2:]
    top, left = (height - rows) // 2, (width - columns) // 2
    k = clips.intrinsics.clone()
    k[..., 0, 2] -= left
    k[..., 1, 2] -= top
    part = (..., slice(top, top + rows), slice(left, left + columns))
    return Clips(clips.images[part].contiguous(), clips.depth[part].contiguous(), clips.world_from_camera, k)
