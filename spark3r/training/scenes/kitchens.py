"""Kitchens: counters along the walls, cabinets above them, appliances, and many small things."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from . import finishes, furniture, palette
from .jumble import any_finish
from .material import Material
from .palette import Rng
from .rooms import dining, empty_room, openings, wall_place
from .scene import Placement, SceneBuilder

COUNTER_HEIGHT, COUNTER_DEPTH = 0.9, 0.6


def kitchen(rng: Rng) -> SceneBuilder:
    """Counters along one to three walls; often a table in the middle."""
    b = empty_room(rng, (rng.uniform(2.4, 5.5), rng.uniform(2.4, 5.0), rng.uniform(2.3, 2.9)))
    paint = palette.pick(rng, palette.WALL_PAINT + palette.FABRIC + palette.VIVID)
    fronts = finishes.wood(rng) if rng.random() < 0.4 else finishes.plain(rng, paint)
    top = palette.pick(rng, (finishes.tiles, finishes.wood, any_finish))(rng)
    first = int(rng.integers(4))
    for k in range(int(rng.integers(1, 4))):
        counter_wall(b, rng, (first + k) % 4, fronts, top)
    if min(b.size[:2]) > 3.0 and rng.random() < 0.8:
        x, y = rng.uniform(-0.4, 0.4, 2)
        dining(b, Placement(x, y, rng.uniform(-3, 3)), rng)
    if rng.random() < 0.4:
        island(b, rng, fronts, top)
    openings(b, rng)
    return b


def island(b: SceneBuilder, rng: Rng, fronts: Material, top: Material) -> None:
    """A counter that stands free or juts out from a wall, so that one walks around its corners."""
    long, deep = rng.uniform(0.9, 2.2), rng.uniform(0.5, 1.0)
    away, wall = rng.uniform(0.0, 0.8) * (rng.random() < 0.5), int(rng.integers(4))
    at = wall_place(b.size, wall, rng.uniform(-0.35, 0.35) * b.size[wall % 2]).moved(0, away + long / 2)
    body = (deep, long, COUNTER_HEIGHT - 0.04)
    b.box(at, (0, 0, body[2] / 2), body, paneled(rng, fronts, long, body[2]), casts=True)
    b.box(at, (0, 0, COUNTER_HEIGHT - 0.02), (deep + 0.04, long + 0.04, 0.04), top)
    furniture.things(b, at.moved(0, 0, COUNTER_HEIGHT, np.pi / 2), rng, 0.8 * long, 0.5 * deep, int(rng.integers(0, 4)))


def counter_wall(b: SceneBuilder, rng: Rng, wall: int, fronts: Material, top: Material) -> None:
    """A counter along a whole wall or a part of it, cabinets above, appliances and things."""
    length = b.size[0] if wall % 2 == 0 else b.size[1]
    wide = length * rng.uniform(0.45, 1.0)
    at = wall_place(b.size, wall, rng.uniform(-0.5, 0.5) * (length - wide))
    body = (wide, COUNTER_DEPTH, COUNTER_HEIGHT - 0.04)
    b.box(at, (0, COUNTER_DEPTH / 2, body[2] / 2), body, paneled(rng, fronts, wide, body[2]), casts=True)
    b.box(at, (0, COUNTER_DEPTH / 2 + 0.01, COUNTER_HEIGHT - 0.02), (wide, COUNTER_DEPTH + 0.03, 0.04), top)
    appliances(b, rng, at, wide)
    hung_cabinets(b, rng, at, wide, fronts)
    deep = rng.uniform(0.2, 0.42)
    furniture.things(b, at.moved(0, 0.28, COUNTER_HEIGHT), rng, wide * 0.9, deep, int(rng.integers(2, 6)))


def paneled(rng: Rng, base: Material, wide: float, high: float) -> Material:
    """Fronts of doors and drawers, divided by dark joints."""
    columns, rows = max(1, round(wide / rng.uniform(0.4, 0.65))), int(rng.integers(1, 4))
    cells = replace(base, cell_u=wide / columns, cell_v=high / rows, origin_u=-wide / 2, origin_v=-high / 2)
    return replace(cells, line=rng.uniform(0.003, 0.01), line_shade=0.35, tint=0.06, stagger=0.0)


def hung_cabinets(b: SceneBuilder, rng: Rng, at: Placement, wide: float, fronts: Material) -> None:
    """One or two cabinets on the wall above a counter, with a gap between them."""
    low, high = rng.uniform(1.35, 1.55), rng.uniform(0.5, 0.8)
    for side in (-1, 1):
        if rng.random() < 0.35:
            continue
        share = rng.uniform(0.3, 0.5) * wide
        panel = paneled(rng, fronts, share, high)
        b.box(at, (side * (wide - share) / 2, 0.17, low + high / 2), (share, 0.34, high), panel, casts=True)


def appliances(b: SceneBuilder, rng: Rng, at: Placement, wide: float) -> None:
    """A stove, a sink, an oven or a fridge where the counter is long enough."""
    dark = Material((0.05, 0.05, 0.06), (0.12, 0.12, 0.13), mix=0.6, grain=0.05, salt=palette.salt(rng))
    steel = finishes.plain(rng, (0.45, 0.46, 0.48))
    spots = rng.permutation(np.linspace(-wide / 2 + 0.4, wide / 2 - 0.4, max(1, int(wide / 0.7))))
    for kind, x in zip(rng.permutation(["stove", "sink", "oven", "fridge", "hood"]), spots, strict=False):
        if kind == "stove":
            b.box(at, (x, 0.3, COUNTER_HEIGHT + 0.006), (0.56, 0.5, 0.012), dark)
        elif kind == "sink":
            b.box(at, (x, 0.32, COUNTER_HEIGHT + 0.002), (0.5, 0.38, 0.004), steel)
            b.cylinder(at, (x, 0.12, COUNTER_HEIGHT + 0.13), 0.015, 0.26, steel)
        elif kind == "oven":
            b.box(at, (x, COUNTER_DEPTH, 0.5), (0.56, 0.04, 0.52), dark)
        elif kind == "fridge":
            size = (0.62, 0.66, rng.uniform(1.5, 2.0))
            b.box(at, (x, 0.33, size[2] / 2), size, paneled(rng, steel, 0.62, size[2]), casts=True)
        else:
            b.box(at, (x, 0.22, 1.7), (0.6, 0.44, 0.12), steel)
