"""Pieces of furniture out of boxes and turned solids, each built in its own frame (x along its front, y forward)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from . import finishes, palette
from .material import Material
from .palette import Rng
from .scene import Placement, SceneBuilder


def sofa(b: SceneBuilder, at: Placement, rng: Rng, width: float) -> None:
    """A sofa with its back to y = 0, with cushions."""
    cloth, depth = finishes.fabric(rng), 0.85
    b.box(at, (0, depth / 2, 0.22), (width, depth, 0.4), cloth, casts=True)
    b.box(at, (0, 0.12, 0.6), (width, 0.24, 0.42), cloth, casts=True)
    for side in (-1, 1):
        b.box(at, (side * (width / 2 - 0.1), depth / 2, 0.5), (0.2, depth, 0.28), cloth)
    for x in rng.uniform(-width / 2 + 0.4, width / 2 - 0.4, int(rng.integers(1, 4))):
        b.box(at.moved(x, 0.36, 0.0, rng.uniform(-0.4, 0.4)), (0, 0, 0.58), (0.42, 0.14, 0.36), finishes.printed(rng))


def bed(b: SceneBuilder, at: Placement, rng: Rng, width: float) -> None:
    """A bed with its head at y = 0."""
    timber = finishes.wood(rng)
    b.box(at, (0, 0.04, 0.55), (width, 0.08, 1.1), timber)
    b.box(at, (0, 1.05, 0.2), (width, 2.0, 0.25), timber, casts=True)
    b.box(at, (0, 1.05, 0.4), (width - 0.06, 1.96, 0.2), finishes.plain(rng, (0.75, 0.73, 0.70)))
    b.box(at, (0, 1.4, 0.46), (width + 0.04, 1.3, 0.16), finishes.fabric(rng))
    for side in (-1, 1):
        b.box(at, (side * width / 4, 0.3, 0.56), (width * 0.4, 0.4, 0.14), finishes.fabric(rng))


def table(b: SceneBuilder, at: Placement, rng: Rng, size: tuple[float, float, float], plain_legs: bool = False) -> None:
    """A table of the given width, depth and height, centred at the placement."""
    timber = finishes.wood(rng)
    wide, deep, high = size
    b.box(at, (0, 0, high - 0.02), (wide, deep, 0.045), timber, casts=True)
    leg = replace(timber, grain_u=20.0, grain_v=3.0)
    if plain_legs:
        for side in (-1, 1):
            b.box(at, (side * (wide / 2 - 0.05), 0, high / 2 - 0.02), (0.05, deep * 0.9, high - 0.05), leg)
        return
    for x in (-1, 1):
        for y in (-1, 1):
            b.box(at, (x * (wide / 2 - 0.06), y * (deep / 2 - 0.06), high / 2 - 0.02), (0.06, 0.06, high - 0.05), leg)


def round_table(b: SceneBuilder, at: Placement, rng: Rng, radius: float, high: float) -> None:
    """A round table on one foot."""
    timber = finishes.wood(rng)
    b.cylinder(at, (0, 0, high - 0.02), radius, 0.045, timber)
    b.cylinder(at, (0, 0, high / 2), 0.06, high - 0.06, timber)
    b.cast(at, (0, 0, high - 0.02), (1.6 * radius, 1.6 * radius, 0.04))


def chair(b: SceneBuilder, at: Placement, rng: Rng, timber: Material, seat: Material) -> None:
    """A chair that looks along y."""
    b.box(at, (0, 0, 0.45), (0.44, 0.44, 0.05), seat, casts=True)
    b.box(at, (0, -0.2, 0.75), (0.42, 0.04, 0.42), timber)
    for side in (-1, 1):
        b.box(at, (side * 0.19, 0, 0.215), (0.045, 0.4, 0.43), timber)


def shelf(b: SceneBuilder, at: Placement, rng: Rng, width: float, high: float) -> None:
    """A bookcase against y = 0, with rows of books and things."""
    timber, depth = finishes.wood(rng, along_u=False), 0.32
    b.box(at, (0, 0.05, high / 2), (width, 0.1, high), timber, casts=True)
    for side in (-1, 1):
        b.box(at, (side * (width / 2 - 0.015), depth / 2, high / 2), (0.03, depth, high), timber)
    levels = max(2, int(high / 0.42))
    for level in range(levels):
        z = 0.06 + level * (high - 0.08) / levels
        b.box(at, (0, depth / 2, z), (width, depth, 0.03), timber)
        share = rng.uniform(0.45, 0.95)
        tall = rng.uniform(0.2, 0.3)
        left = (share - 1) * (width - 0.08) / 2 * rng.choice((-1, 1))
        b.box(at, (left, 0.19, z + 0.015 + tall / 2), (share * (width - 0.08), 0.2, tall), finishes.books(rng))
    b.box(at, (0, depth / 2, high), (width, depth, 0.03), timber)


def cabinet(b: SceneBuilder, at: Placement, rng: Rng, size: tuple[float, float, float]) -> None:
    """A wardrobe, dresser or kitchen block against y = 0, with door lines."""
    wide, deep, high = size
    base = finishes.wood(rng, along_u=bool(rng.random() < 0.5))
    if rng.random() < 0.4:
        base = finishes.plain(rng, palette.pick(rng, palette.WALL_PAINT))
    rows = int(rng.integers(1, 4)) if high < 1.3 else 1
    columns = max(1, round(wide / 0.55))
    front = replace(
        base,
        cell_u=wide / columns,
        cell_v=high / rows,
        origin_u=-wide / 2,
        origin_v=-high / 2,
        line=0.008,
        line_shade=0.3,
        tint=0.08,
        stagger=0.0,
    )
    b.box(at, (0, deep / 2, high / 2), size, front, casts=True)
    if high < 1.3:
        things(b, at.moved(0, deep / 2, high), rng, wide * 0.8, deep * 0.6, int(rng.integers(1, 4)))


def television(b: SceneBuilder, at: Placement, rng: Rng) -> None:
    """A low board with a screen."""
    cabinet(b, at, rng, (1.5, 0.42, 0.45))
    b.box(at, (0, 0.2, 0.86), (1.15, 0.05, 0.66), Material((0.02, 0.02, 0.025), (0.07, 0.08, 0.1), mix=0.8, grain=0.03))


def plant(b: SceneBuilder, at: Placement, rng: Rng) -> None:
    """A pot with a bush."""
    size = rng.uniform(0.7, 1.2)
    pot = finishes.plain(rng, (0.5, 0.25, 0.16) if rng.random() < 0.5 else (0.7, 0.7, 0.7))
    b.cylinder(at, (0, 0, 0.17 * size), 0.13 * size, 0.34 * size, pot, top_radius=0.18 * size)
    b.ellipsoid(at, (0, 0, 0.78 * size), 0.3 * size, 0.45 * size, finishes.foliage(rng))


def floor_lamp(b: SceneBuilder, at: Placement, rng: Rng) -> None:
    """A standing lamp with a conical shade."""
    metal = finishes.plain(rng, (0.2, 0.2, 0.2))
    b.cylinder(at, (0, 0, 0.75), 0.02, 1.5, metal)
    cloth = replace(finishes.plain(rng, (0.85, 0.78, 0.62)), glow=0.6)
    b.cylinder(at, (0, 0, 1.5), 0.22, 0.3, cloth, top_radius=0.15)


def things(b: SceneBuilder, at: Placement, rng: Rng, wide: float, deep: float, count: int, scale: float = 1.0) -> None:
    """Small objects standing on a surface at the height of the placement, side by side."""
    places = (np.arange(count) + rng.uniform(0.2, 0.8, count)) / count - 0.5
    for x in places:
        spot = at.moved(x * wide, rng.uniform(-0.5, 0.5) * deep, 0.0, rng.uniform(-3, 3))
        thing(b, spot, rng, scale)


def thing(b: SceneBuilder, at: Placement, rng: Rng, scale: float = 1.0) -> None:
    """One small object: books, a box, a ball, a can, a vase or a bowl."""
    kind = rng.random()
    s = scale * rng.uniform(0.8, 1.25)
    if kind < 0.22:
        z = 0.0
        for _ in range(int(rng.integers(1, 4))):
            high = rng.uniform(0.025, 0.05)
            turned = at.moved(0, 0, 0, rng.uniform(-0.5, 0.5))
            b.box(turned, (0, 0, z + high / 2), (0.24 * s, 0.17 * s, high), finishes.printed(rng), casts=z == 0.0)
            z += high
    elif kind < 0.46:
        high = rng.uniform(0.1, 0.3) * s
        size = (rng.uniform(0.1, 0.22) * s, rng.uniform(0.07, 0.18) * s, high)
        b.box(at, (0, 0, high / 2), size, finishes.printed(rng), casts=True)
    elif kind < 0.62:
        r = rng.uniform(0.06, 0.12) * s
        b.ellipsoid(at, (0, 0, r), r, r, finishes.banded(rng))
        b.cast(at, (0, 0, r), (1.3 * r, 1.3 * r, 1.6 * r))
    elif kind < 0.8:
        r, high = rng.uniform(0.035, 0.07) * s, rng.uniform(0.1, 0.24) * s
        b.cylinder(at, (0, 0, high / 2), r, high, finishes.printed(rng))
        b.cast(at, (0, 0, high / 2), (1.6 * r, 1.6 * r, high))
    else:
        r, high = rng.uniform(0.05, 0.08) * s, rng.uniform(0.18, 0.32) * s
        swell = rng.uniform(-0.6, 0.5)
        b.round(at, (0, 0, high / 2), (r * r, 0.0, -swell * (2 * r / high) ** 2), high, finishes.banded(rng))
        b.cast(at, (0, 0, high / 2), (1.5 * r, 1.5 * r, high))
