"""Which clips training shows: the original rooms of the example clips, and a much wider world.

`wild` is the share of clips from the wide world: rooms, laid tables, kitchens and rooms of nothing but solids, with
clutter and any finish, seen by anybody's phone (`handheld`) with all its faults (`faults`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from . import faults, sequences
from .handheld import handheld_walk
from .jumble import clutter, jumble, weathered
from .kitchens import kitchen
from .palette import Rng
from .rooms import furnished_room, laid_table
from .scene import SceneBuilder
from .sequences import SHARES, Clips, Take

FIELD_OF_VIEW = np.radians((45.0, 80.0))  # horizontal
PLACES: dict[Callable[[Rng], SceneBuilder], float] = {
    furnished_room: 0.28,
    laid_table: 0.22,
    kitchen: 0.28,
    jumble: 0.22,
}


def wild_plan(clip: int, frames: int, breadth: float = 1.0) -> Take:
    """Clip number `clip` of the wide world."""
    rng = np.random.default_rng((clip, 15485867))
    place = list(PLACES)[int(rng.choice(len(PLACES), p=list(PLACES.values())))]
    scene = place(rng)
    if place is not jumble and rng.random() < 0.6:
        clutter(scene, rng, int(rng.integers(4, 16)))
    weathered(scene, rng)
    walk = handheld_walk(rng, scene, frames, breadth)
    field_of_view = rng.uniform(*FIELD_OF_VIEW)
    seen = faults.draw(rng, walk, field_of_view)
    return Take(scene, walk, field_of_view, seen.exposure, seen.balance, seen)


def plan(clip: int, frames: int, breadth: float, shares: Sequence[float], wild: float) -> Take:
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
    samples: int = 2,
    device: str | torch.device = "cpu",
) -> Clips:
    """Clips number seed, seed + 1, … seed + count - 1. The same arguments give the same clips."""
    takes = [plan(clip, frames, breadth, shares, wild) for clip in range(seed, seed + count)]
    return sequences.film(takes, seed, height, width, samples=samples, device=device)
