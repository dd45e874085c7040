"""Places that follow no plan: rooms of nothing but solids, clutter for any room, any finish on anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from . import finishes, furniture, palette
from .material import Colour, Material
from .palette import Rng
from .rooms import empty_room, wall_place
from .scene import Placement, SceneBuilder

FINISHES: tuple[Callable[[Rng], Material], ...] = (
    finishes.plaster, finishes.wood, finishes.planks, finishes.tiles, finishes.carpet, finishes.fabric, finishes.rug,
    finishes.books, finishes.printed, finishes.banded, finishes.foliage,
)  # fmt: skip


def any_finish(rng: Rng) -> Material:
    """A surface that need not suit what it is on; often a nearly even one, as most real surfaces are."""
    if rng.random() < 0.35:
        return finishes.plain(rng, palette.pick(rng, palette.WALL_PAINT + palette.FABRIC + palette.VIVID))
    return FINISHES[int(rng.integers(len(FINISHES)))](rng)


def jumble(rng: Rng) -> SceneBuilder:
    """A room of 12 to 45 boxes and turned solids of any size: on the floor, in the air, on the walls."""
    b = empty_room(rng, (rng.uniform(2.4, 6.0), rng.uniform(2.4, 6.0), rng.uniform(2.2, 3.5)))
    b.lights.append((*(rng.uniform(-0.4, 0.4, 2) * b.size[:2]), rng.uniform(1.0, 2.0), *rng.uniform(0.2, 0.6, 3)))
    for _ in range(int(rng.integers(18, 46))):
        size = np.exp(rng.uniform(np.log(0.06), np.log(1.3), 3))
        x, y = rng.uniform(-0.5, 0.5, 2) * b.size[:2]
        place = Placement(x, y, rng.uniform(-3, 3))
        where = rng.random()
        if where < 0.2:
            wall = int(rng.integers(4))
            along = rng.uniform(-0.45, 0.45) * b.size[wall % 2]
            place = wall_place(b.size, wall, along).moved(0, 0, rng.uniform(0.2, b.size[2] - 0.2))
            size[1] *= 0.3
        elif where < 0.4:
            place = place.moved(0, 0, rng.uniform(0.5, b.size[2]))
        else:
            place = place.moved(0, 0, size[2] / 2)
        solid(b, rng, place, size)
    return b


def solid(b: SceneBuilder, rng: Rng, place: Placement, size: np.ndarray) -> None:
    """A box (two times of three), cylinder, cone, ball or vase, centred at the placement."""
    material, radius, high = any_finish(rng), 0.4 * float(min(size[0], size[1] + 0.1)), float(size[2])
    kind = rng.random()
    if kind < 0.68:
        b.box(place, (0, 0, 0), tuple(size), material, casts=True)
    elif kind < 0.84:
        b.cylinder(place, (0, 0, 0), radius, high, material, top_radius=radius * rng.uniform(0.3, 1.0))
    else:
        b.ellipsoid(place, (0, 0, 0), radius, high / 2, material)


def clutter(b: SceneBuilder, rng: Rng, count: int) -> None:
    """Things on the floor, on whatever is there, and flat boxes on the walls."""
    tops = [box for box in b.boxes if min(box[3:5]) > 0.12 and box[2] + box[5] < 1.6]
    for _ in range(count):
        where = rng.random()
        if where < 0.45 and tops:
            x, y, z, half_x, half_y, half_z, c, s = tops[int(rng.integers(len(tops)))]
            at = Placement(x, y, float(np.arctan2(s, c)), z + half_z)
            aside, ahead = rng.uniform(-0.7, 0.7, 2) * (half_x, half_y)
            spot = at.moved(aside, ahead, 0.0, rng.uniform(-3, 3))
            furniture.thing(b, spot, rng, rng.uniform(0.6, 1.5))
        elif where < 0.75:
            x, y = rng.uniform(-0.46, 0.46, 2) * b.size[:2]
            spot = Placement(x, y, rng.uniform(-3, 3))
            furniture.thing(b, spot, rng, rng.uniform(0.8, 2.5))
        else:
            wall = int(rng.integers(4))
            size = (rng.uniform(0.06, 0.8), rng.uniform(0.02, 0.2), rng.uniform(0.06, 0.9))
            at = wall_place(b.size, wall, rng.uniform(-0.45, 0.45) * b.size[wall % 2])
            b.box(at, (0, size[1] / 2, rng.uniform(0.2, b.size[2] - 0.3)), size, any_finish(rng))


def weathered(b: SceneBuilder, rng: Rng) -> None:
    """Some finishes exchanged for any others, some darkened, all smoothed and faded alike, light from soft to hard."""
    share, fade = rng.choice((0.0, 0.2, 0.6)), rng.uniform(0.0, 0.7) * (rng.random() < 0.3)
    depth, even = rng.uniform(0.0, 2.2), rng.uniform(0.0, 1.0) if rng.random() < 0.7 else 1.0
    for materials in (b.walls, b.box_materials, b.round_materials):
        for i, material in enumerate(materials):
            chosen = any_finish(rng) if rng.random() < share else material
            dark = float(np.exp(-depth * rng.random())) if rng.random() < 0.5 else 1.0
            first, second = (faded(dyed(c, dark), fade) for c in (chosen.colour, chosen.second))
            materials[i] = smoothed(replace(chosen, colour=first, second=second), even)
    bright, soft = rng.uniform(0.5, 1.3), rng.uniform(0.3, 1.1)
    red, green, blue = (bright * soft * rng.uniform(0.7, 1.3) * x for x in b.ambient)
    b.ambient = (red, green, blue)
    b.lights = [(*light[:3], *(bright * (2.2 - soft) * x for x in light[3:])) for light in b.lights]


def smoothed(material: Material, amount: float) -> Material:
    """With so much of its grain and clouds; its cells stay: most surfaces are nearly even and have edges only."""
    return replace(material, grain=amount * material.grain, mix=amount * material.mix)


def dyed(colour: Colour, dark: float) -> Colour:
    """Darker by a factor, and deeper: its channels part as those of dark paint do."""
    grey = 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2]
    red, green, blue = (max(dark * (grey + (c - grey) * (2.0 - dark)), 0.01) for c in colour)
    return red, green, blue


def faded(colour: Colour, amount: float) -> Colour:
    """Nearer to the grey of the same brightness."""
    grey = 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2]
    red, green, blue = (c + amount * (grey - c) for c in colour)
    return red, green, blue
