"""Places beyond living rooms: corridors, staircases, rows of shelves, and yards under the sky."""

from __future__ import annotations

import numpy as np

from . import finishes, furniture, palette
from .jumble import any_finish
from .material import Material
from .palette import Rng
from .rooms import empty_room, openings, pictures, wall_place
from .scene import Placement, SceneBuilder


def second_light(b: SceneBuilder, rng: Rng) -> None:
    """A fill light somewhere under the ceiling, for places without a window."""
    spot = rng.uniform(-0.4, 0.4, 2) * b.size[:2]
    b.lights.append((*spot, b.size[2] - 0.4, *(rng.uniform(0.3, 0.7) * rng.uniform(0.85, 1.0, 3))))


def corridor(rng: Rng) -> SceneBuilder:
    """A long narrow room with doors on both sides, lamps on the ceiling, things along the walls."""
    long, narrow = rng.uniform(6.0, 14.0), rng.uniform(1.3, 2.6)
    along_x = rng.random() < 0.5
    b = empty_room(rng, ((long, narrow) if along_x else (narrow, long)) + (rng.uniform(2.3, 3.0),))
    second_light(b, rng)
    leaf, frame = finishes.door(rng, 0.85, 2.0), finishes.plain(rng, palette.pick(rng, palette.WALL_PAINT))
    for wall in (0, 2) if along_x else (1, 3):
        for slot in np.arange(-long / 2 + 1.0, long / 2 - 0.8, rng.uniform(1.6, 3.2)):
            at = wall_place(b.size, wall, slot + rng.uniform(-0.2, 0.2))
            if rng.random() < 0.7:
                b.box(at, (0, 0.015, 1.03), (0.97, 0.06, 2.08), frame)
                b.box(at, (0, 0.03, 1.0), (0.85, 0.06, 2.0), leaf)
        pictures(b, rng, wall, long, None)
        for _ in range(int(rng.integers(0, 3))):
            size = (rng.uniform(0.3, 1.2), rng.uniform(0.15, 0.35), rng.uniform(0.4, 1.3))
            at = wall_place(b.size, wall, rng.uniform(-0.45, 0.45) * long)
            b.box(at, (0, size[1] / 2, size[2] / 2), size, any_finish(rng), casts=True)
    lamp = Material((0.9, 0.9, 0.85), (0.9, 0.9, 0.85), glow=0.9, grain=0.0)
    for slot in np.linspace(-0.4, 0.4, int(rng.integers(2, 5))) * long:
        x, y = (slot, 0.0) if along_x else (0.0, slot)
        b.box(Placement(x, y), (0, 0, b.size[2] - 0.03), (0.4, 0.4, 0.06), lamp)
    return b


def staircase(rng: Rng) -> SceneBuilder:
    """A hall with a flight of stairs along a wall, a landing on top, banisters."""
    b = empty_room(rng, (rng.uniform(4.5, 7.5), rng.uniform(2.6, 5.0), rng.uniform(3.4, 5.2)))
    tread, wide = any_finish(rng), rng.uniform(0.9, 1.5)
    count, rise, run = int(rng.integers(7, 14)), rng.uniform(0.15, 0.19), rng.uniform(0.24, 0.3)
    start, y = b.size[0] / 2 - (count + 1) * run - rng.uniform(0.0, 1.0), -b.size[1] / 2 + wide / 2
    side = rng.choice((-1, 1))
    post, rail = finishes.wood(rng), any_finish(rng)
    for k in range(count):
        high = (k + 1) * rise
        x = start + (k + 0.5) * run
        b.box(Placement(side * x, y), (0, 0, high / 2), (run + 0.02, wide, high), tread, casts=k % 4 == 3)
        if k % 2 == 0:
            b.cylinder(Placement(side * x, y + wide / 2 - 0.05), (0, 0, high + 0.45), 0.02, 0.9, post)
    end = start + count * run
    landing = max(b.size[0] / 2 - end, 0.3)
    b.box(
        Placement(side * (end + landing / 2), y),
        (0, 0, count * rise / 2),
        (landing, wide, count * rise),
        rail,
        casts=True,
    )
    openings(b, rng)
    return b


def shelves(rng: Rng) -> SceneBuilder:
    """Rows of shelves full of goods or books, with aisles between them."""
    b = empty_room(rng, (rng.uniform(4.5, 9.0), rng.uniform(4.0, 8.0), rng.uniform(2.5, 4.0)))
    second_light(b, rng)
    board, rows = finishes.plain(rng, palette.pick(rng, palette.WALL_PAINT)), int(rng.integers(2, 5))
    for y in (np.arange(rows) + 0.5) / rows - 0.5:
        at = Placement(rng.uniform(-0.4, 0.4), y * b.size[1], rng.uniform(-0.05, 0.05))
        _row_of_shelves(b, rng, at, rng.uniform(0.35, 0.75) * b.size[0], board)
    return b


def _row_of_shelves(b: SceneBuilder, rng: Rng, at: Placement, wide: float, board: Material) -> None:
    """Four levels of goods on both sides of a partition."""
    high, deep = rng.uniform(1.3, 2.1), rng.uniform(0.35, 0.7)
    b.box(at, (0, 0, high / 2), (wide, 0.04, high), board, casts=True)
    for level in range(4):
        z = 0.08 + level * high / 4
        b.box(at, (0, 0, z), (wide, deep, 0.03), board)
        goods = finishes.books(rng) if rng.random() < 0.5 else any_finish(rng)
        share, tall = rng.uniform(0.4, 0.98), high / 4 * rng.uniform(0.4, 0.85)
        shift = rng.uniform(-0.5, 0.5) * (1 - share) * wide
        b.box(at, (shift, 0, z + tall / 2), (share * wide, deep * rng.uniform(0.5, 0.95), tall), goods)


def yard(rng: Rng) -> SceneBuilder:
    """A place outdoors: ground, houses around it, trees, cars and walls, and the sky far behind."""
    side = rng.uniform(40.0, 90.0)
    b = empty_room(rng, (side, side * rng.uniform(0.7, 1.3), rng.uniform(18.0, 45.0)))
    blue = palette.pick(rng, ((0.55, 0.70, 0.90), (0.75, 0.78, 0.82), (0.80, 0.75, 0.70)))
    sky = Material(blue, (0.85, 0.87, 0.9), mix=0.8, mix_scale=rng.uniform(0.02, 0.1), grain=0.0, glow=0.5)
    grass = Material((0.16, 0.26, 0.07), (0.28, 0.30, 0.12), mix=0.9, mix_scale=0.6, grain=0.35, grain_u=9, grain_v=9)
    ground = grass if rng.random() < 0.4 else palette.pick(rng, (finishes.tiles, finishes.carpet, finishes.planks))(rng)
    b.walls = [sky, sky, sky, sky, ground, sky]
    turn = rng.uniform(0, 2 * np.pi)
    sun = (1.4 * side * np.cos(turn), 1.4 * side * np.sin(turn), rng.uniform(0.6, 1.6) * side)
    strength = 0.09 * float(np.dot(sun, sun)) * rng.uniform(0.5, 1.0)  # falls with the square of the distance
    b.lights = [(*sun, strength, 0.95 * strength, 0.85 * strength), (0.0, 0.0, 15.0, 1.0, 1.1, 1.3)]
    for _ in range(int(rng.integers(3, 9))):
        _house(b, rng)
    for _ in range(int(rng.integers(6, 16))):
        x, y = rng.uniform(2.0, 14.0) * _around(rng)
        _street_thing(b, rng, Placement(x, y, rng.uniform(-3, 3)))
    return b


def _around(rng: Rng) -> np.ndarray:
    turn = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(turn), np.sin(turn)])


def _house(b: SceneBuilder, rng: Rng) -> None:
    """A block with rows of windows, nine metres from the middle and more."""
    size = np.array([rng.uniform(5, 16), rng.uniform(5, 12), rng.uniform(3, 14)])
    x, y = (rng.uniform(9.0, 26.0) + size[:2].max() / 2) * _around(rng)
    at = Placement(x, y, rng.uniform(-3, 3))
    base = finishes.plaster(rng)
    windows = {"cell_u": rng.uniform(1.5, 3.5), "cell_v": rng.uniform(1.5, 3.2), "line": rng.uniform(0.15, 0.5)}
    front = Material(**{**vars(base), **windows, "tint": 0.15, "line_shade": float(rng.choice((0.3, 0.5, 1.4)))})
    b.box(at, (0, 0, size[2] / 2), tuple(size), front, casts=True)


def _street_thing(b: SceneBuilder, rng: Rng, at: Placement) -> None:
    """A car, a tree, a wall or hedge, a bench, a post, or a crate."""
    kind = rng.random()
    if kind < 0.25:
        paint, glass = finishes.plain(rng, palette.pick(rng, palette.VIVID)), finishes.plain(rng, (0.06, 0.07, 0.08))
        b.box(at, (0, 0, 0.6), (4.2, 1.75, 0.7), paint, casts=True)
        b.box(at, (-0.2, 0, 1.2), (2.2, 1.5, 0.55), glass)
    elif kind < 0.5:
        high = rng.uniform(2.0, 6.0)
        b.cylinder(at, (0, 0, high / 4), 0.05 * high, high / 2, finishes.wood(rng, along_u=False))
        b.ellipsoid(at, (0, 0, 0.7 * high), 0.3 * high, 0.35 * high, finishes.foliage(rng))
    elif kind < 0.65:
        size = (rng.uniform(1.5, 6.0), rng.uniform(0.2, 0.8), rng.uniform(0.5, 2.2))
        b.box(at, (0, 0, size[2] / 2), size, finishes.foliage(rng) if rng.random() < 0.5 else finishes.plaster(rng))
    elif kind < 0.75:
        furniture.table(b, at, rng, (1.6, 0.45, 0.45), plain_legs=True)
    elif kind < 0.85:
        b.cylinder(at, (0, 0, 1.0), 0.05, rng.uniform(0.8, 4.0), finishes.plain(rng, (0.3, 0.3, 0.32)))
    else:
        size = rng.uniform(0.3, 1.2, 3)
        b.box(at, (0, 0, size[2] / 2), tuple(size), any_finish(rng), casts=True)
