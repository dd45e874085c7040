"""Furnished rooms and laid tables, from a seed."""

from __future__ import annotations

import numpy as np

from . import finishes, furniture, palette
from .material import Material
from .palette import Rng
from .scene import Placement, SceneBuilder

TABLE_HEIGHT = 0.74


def wall_place(size: tuple[float, float, float], wall: int, along: float) -> Placement:
    """A placement with its back on wall 0 (y-), 1 (x+), 2 (y+) or 3 (x-), `along` metres from the wall's middle."""
    half_x, half_y = size[0] / 2, size[1] / 2
    x, y = ((along, -half_y), (half_x, along), (-along, half_y), (-half_x, -along))[wall]
    return Placement(x, y, wall * np.pi / 2)


def empty_room(rng: Rng, size: tuple[float, float, float]) -> SceneBuilder:
    """Walls, floor, ceiling and light; nothing in it."""
    paint, accent = finishes.plaster(rng), finishes.plaster(rng)
    walls = [paint] * 4
    walls[int(rng.integers(4))] = accent
    if rng.random() < 0.5:
        walls[int(rng.integers(4))] = finishes.plaster(rng)
    ceiling = Material(
        (0.78, 0.77, 0.75), (0.66, 0.66, 0.65), mix=0.7, mix_scale=0.7, grain=0.06, salt=palette.salt(rng)
    )
    order = [walls[0], walls[1], walls[2], walls[3], finishes.floor(rng), ceiling]
    salted = [Material(**{**m.__dict__, "salt": m.salt + 101 * i}) for i, m in enumerate(order)]
    builder = SceneBuilder(size, salted)
    warm = rng.uniform(0.0, 1.0)
    lamp = (rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.8), size[2] - 0.25)
    bright = rng.uniform(0.4, 0.75)
    builder.lights = [(*lamp, bright, bright * (0.98 - 0.12 * warm), bright * (0.95 - 0.3 * warm))]
    cool = rng.uniform(0.34, 0.5)
    builder.ambient = (cool * (0.96 + 0.08 * warm), cool, cool * (1.04 - 0.1 * warm))
    return builder


def openings(b: SceneBuilder, rng: Rng) -> tuple[int, float]:
    """A door, windows and pictures; returns the wall of the door and its place along it."""
    size = b.size
    door_wall = int(rng.integers(4))
    length = size[0] if door_wall % 2 == 0 else size[1]
    door_along = rng.choice((-1, 1)) * (length / 2 - 0.75)
    at = wall_place(size, door_wall, door_along)
    b.box(at, (0, 0.02, 1.03), (0.95, 0.05, 2.08), finishes.wood(rng, along_u=False))
    b.box(at, (0, 0.03, 1.0), (0.82, 0.06, 2.0), finishes.door(rng, 0.82, 2.0))
    window_wall = (door_wall + int(rng.integers(1, 4))) % 4
    for wall in range(4):
        length = size[0] if wall % 2 == 0 else size[1]
        if wall == window_wall:
            wide, high = rng.uniform(1.1, min(2.4, length - 1.2)), rng.uniform(1.1, 1.5)
            at = wall_place(size, wall, rng.uniform(-0.4, 0.4))
            b.box(at, (0, 0.0, 1.55), (wide + 0.14, 0.1, high + 0.14), finishes.plain(rng, (0.75, 0.74, 0.72)))
            b.box(at, (0, 0.01, 1.55), (wide, 0.1, high), finishes.window(rng, wide, high))
            x, y, z = at.at(0, 0.5, 1.7)
            day = rng.uniform(0.45, 0.9)
            b.lights.insert(int(rng.random() < 0.7) ^ 1, (x, y, z, 0.9 * day, day, 1.08 * day))
            continue
        pictures(b, rng, wall, length, door_along if wall == door_wall else None)
    return door_wall, float(door_along)


def pictures(b: SceneBuilder, rng: Rng, wall: int, length: float, avoid: float | None) -> None:
    """One to three framed pictures on a wall, clear of the door."""
    for slot in np.linspace(-length / 3, length / 3, 3):
        if rng.random() < 0.15 or (avoid is not None and abs(slot - avoid) < 1.0):
            continue
        wide, high = rng.uniform(0.4, 1.0), rng.uniform(0.35, 0.8)
        at = wall_place(b.size, wall, slot + rng.uniform(-0.15, 0.15))
        b.box(at, (0, 0.015, rng.uniform(1.45, 1.75)), (wide, 0.03, high), finishes.painting(rng, wide, high))


def along_walls(b: SceneBuilder, rng: Rng, door_wall: int, door_along: float, pieces: int) -> None:
    """Stand furniture along the walls without overlaps."""
    kinds = list(
        rng.permutation(["sofa", "bed", "shelf", "cabinet", "television", "wardrobe", "plant", "desk", "shelf"])
    )
    walls = list(rng.permutation(4))
    for wall in walls:
        length = (b.size[0] if wall % 2 == 0 else b.size[1]) - 1.0
        cursor = -length / 2
        while pieces > 0 and kinds:
            kind = str(kinds.pop())
            wide = {
                "sofa": 2.0,
                "bed": 1.5,
                "shelf": 1.1,
                "cabinet": 1.2,
                "television": 1.5,
                "wardrobe": 1.4,
                "plant": 0.7,
                "desk": 1.4,
            }[kind] * rng.uniform(0.85, 1.1)
            gap = rng.uniform(0.0, 0.6)
            if cursor + gap + wide > length / 2:
                break
            middle = cursor + gap + wide / 2
            cursor = middle + wide / 2 + 0.1
            if wall == door_wall and abs(middle - door_along) < wide / 2 + 0.6:
                continue
            piece(b, rng, kind, wall_place(b.size, int(wall), middle).moved(0, 0.04), wide)
            pieces -= 1


def piece(b: SceneBuilder, rng: Rng, kind: str, at: Placement, wide: float) -> None:
    """One named piece of furniture."""
    if kind == "sofa":
        furniture.sofa(b, at, rng, wide)
    elif kind == "bed":
        furniture.bed(b, at, rng, wide)
    elif kind == "shelf":
        furniture.shelf(b, at, rng, wide, rng.uniform(1.2, 2.0))
    elif kind == "cabinet":
        furniture.cabinet(b, at, rng, (wide, 0.45, rng.uniform(0.7, 1.1)))
    elif kind == "television":
        furniture.television(b, at, rng)
    elif kind == "wardrobe":
        furniture.cabinet(b, at, rng, (wide, 0.6, rng.uniform(1.8, 2.1)))
    elif kind == "plant":
        furniture.plant(b, at.moved(0, 0.35), rng)
    else:
        furniture.table(b, at.moved(0, 0.36), rng, (wide, 0.65, 0.74), plain_legs=True)
        furniture.things(b, at.moved(0, 0.36, 0.745), rng, wide * 0.8, 0.3, 3)
        furniture.chair(b, at.moved(0, 0.95, 0.0, np.pi), rng, finishes.wood(rng), finishes.fabric(rng))


def furnished_room(rng: Rng) -> SceneBuilder:
    """A living room, bedroom or study."""
    size = (rng.uniform(4.0, 6.5), rng.uniform(4.0, 6.0), rng.uniform(2.4, 2.9))
    b = empty_room(rng, size)
    door_wall, door_along = openings(b, rng)
    along_walls(b, rng, door_wall, door_along, int(rng.integers(4, 8)))
    middle = Placement(rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), rng.uniform(-0.3, 0.3))
    if rng.random() < 0.7:
        b.box(middle, (0, 0, 0.006), (rng.uniform(1.6, 2.6), rng.uniform(1.2, 2.0), 0.012), finishes.rug(rng))
    kind = rng.random()
    if kind < 0.4:
        furniture.table(
            b, middle, rng, (rng.uniform(0.8, 1.2), rng.uniform(0.5, 0.7), 0.42), plain_legs=bool(rng.random() < 0.5)
        )
        furniture.things(b, middle.moved(0, 0, 0.425), rng, 0.7, 0.3, int(rng.integers(1, 4)))
    elif kind < 0.75:
        dining(b, middle, rng)
    if rng.random() < 0.5:
        furniture.floor_lamp(b, Placement(*(np.array(size[:2]) / 2 - 0.4) * rng.choice((-1, 1), 2)), rng)
    for _ in range(int(rng.integers(0, 4))):
        spot = Placement(
            rng.uniform(-1, 1) * (size[0] / 2 - 0.8), rng.uniform(-1, 1) * (size[1] / 2 - 0.8), rng.uniform(-3, 3)
        )
        furniture.thing(b, spot, rng, scale=1.6)
    return b


def dining(b: SceneBuilder, middle: Placement, rng: Rng) -> None:
    """A table with chairs and things on it."""
    wide, deep = rng.uniform(1.1, 1.6), rng.uniform(0.75, 0.95)
    if rng.random() < 0.4:
        furniture.round_table(b, middle, rng, wide / 2.4, TABLE_HEIGHT)
    else:
        furniture.table(b, middle, rng, (wide, deep, TABLE_HEIGHT))
    timber, seat = finishes.wood(rng), finishes.fabric(rng)
    for k in range(int(rng.integers(1, 4))):
        side = (0.0, np.pi, np.pi / 2)[k]
        reach = (deep if k < 2 else wide) / 2 + 0.15
        furniture.chair(b, middle.moved(-np.sin(side) * -reach, -np.cos(side) * reach, 0.0, side), rng, timber, seat)
    furniture.things(b, middle.moved(0, 0, TABLE_HEIGHT + 0.003), rng, 0.7, 0.4, int(rng.integers(2, 5)))


def laid_table(rng: Rng) -> SceneBuilder:
    """A room with a table in its middle, crowded with objects, to be looked at from near by."""
    size = (rng.uniform(3.4, 5.0), rng.uniform(3.4, 5.0), rng.uniform(2.4, 2.8))
    b = empty_room(rng, size)
    door_wall, door_along = openings(b, rng)
    middle = Placement(0.0, 0.0, rng.uniform(-0.5, 0.5))
    if rng.random() < 0.35:
        furniture.round_table(b, middle, rng, rng.uniform(0.5, 0.65), TABLE_HEIGHT)
    else:
        furniture.table(b, middle, rng, (rng.uniform(1.0, 1.5), rng.uniform(0.7, 1.0), TABLE_HEIGHT))
    top = middle.moved(0, 0, TABLE_HEIGHT + 0.003)
    if rng.random() < 0.4:
        b.box(top, (0, 0, 0.002), (0.7, 0.45, 0.004), finishes.rug(rng))
        top = top.moved(0, 0, 0.004)
    for row in (-0.24, 0.0, 0.24):
        furniture.things(b, top.moved(0, row), rng, 0.85, 0.1, int(rng.integers(2, 4)), scale=1.0)
    along_walls(b, rng, door_wall, door_along, 3)
    return b


def scene(seed: int, kind: str) -> SceneBuilder:
    """The scene of a seed; `kind` is "room", "table" or "flat" (two rooms joined by a doorway)."""
    rng = np.random.default_rng((seed, 7919))
    makers = {"room": furnished_room, "table": laid_table, "flat": two_rooms}
    if kind not in makers:
        raise ValueError(f"kind={kind!r}: must be one of {', '.join(makers)}")
    return makers[kind](rng)


def two_rooms(rng: Rng) -> SceneBuilder:
    """Two furnished rooms side by side along x, with an open doorway in the wall between them."""
    size = (rng.uniform(8.6, 9.4), rng.uniform(4.0, 4.6), rng.uniform(2.5, 2.7))
    b = empty_room(rng, size)
    paint = finishes.plaster(rng)
    for side in (-1, 1):
        wide = size[1] / 2 - 0.5
        b.box(Placement(0, side * (0.5 + wide / 2)), (0, 0, size[2] / 2), (0.14, wide, size[2]), paint, casts=True)
    b.box(Placement(0, 0), (0, 0, (size[2] + 2.1) / 2), (0.14, 1.0, size[2] - 2.1), paint)
    door_wall, door_along = openings(b, rng)
    along_walls(b, rng, door_wall, door_along, 8)
    for x in (-1, 1):
        spot = Placement(x * size[0] / 4 + rng.uniform(-0.4, 0.4), rng.uniform(-0.3, 0.3), rng.uniform(-0.2, 0.2))
        b.box(spot, (0, 0, 0.006), (rng.uniform(1.4, 2.0), rng.uniform(1.1, 1.6), 0.012), finishes.rug(rng))
        for side in (-1, 1):
            wide, high = rng.uniform(0.4, 0.8), rng.uniform(0.4, 0.7)
            hung = Placement(0.085 * x, side * rng.uniform(1.1, 1.5), -x * np.pi / 2)
            b.box(hung, (0, 0, 1.55), (wide, 0.03, high), finishes.painting(rng, wide, high))
    return b
