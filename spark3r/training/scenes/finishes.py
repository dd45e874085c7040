"""Believable surfaces: paint, wood, cloth, print, leaves, each drawn at random."""

from __future__ import annotations

from dataclasses import replace

from .material import Colour, Material
from .palette import FABRIC, VIVID, WALL_PAINT, WOOD, Rng, pick, salt, varied


def plaster(rng: Rng) -> Material:
    """A painted wall: faint clouds and roller marks; sometimes wallpaper, brick or panels."""
    colour = varied(rng, pick(rng, WALL_PAINT))
    second = varied(rng, (0.78 * colour[0], 0.78 * colour[1], 0.78 * colour[2]), 0.2)
    base = Material(
        colour,
        second,
        mix=rng.uniform(0.3, 0.9),
        mix_scale=rng.uniform(0.5, 1.3),
        grain=0.09,
        grain_u=5.0,
        grain_v=5.0,
        salt=salt(rng),
    )
    kind = rng.random()
    if kind < 0.10:
        return replace(
            base,
            colour=varied(rng, (0.42, 0.20, 0.13)),
            second=(0.52, 0.33, 0.24),
            cell_u=0.32,
            cell_v=0.13,
            stagger=0.5,
            line=0.008,
            line_shade=1.7,
            tint=0.25,
            hue=0.1,
            grain=0.15,
        )
    if kind < 0.20:
        return replace(
            base, cell_u=rng.uniform(0.35, 0.8), cell_v=50.0, tint=0.16, hue=0.05, line=0.006, line_shade=0.7
        )
    if kind < 0.34:
        return replace(base, mix=1.0, mix_scale=rng.uniform(2.0, 4.0), sharpness=4.0, second=varied(rng, colour, 0.5))
    return base


def wood(rng: Rng, along_u: bool = True) -> Material:
    """Furniture wood with grain along one direction."""
    light, dark = pick(rng, WOOD)
    fine, coarse = (2.5, 26.0) if along_u else (26.0, 2.5)
    return Material(
        varied(rng, light), dark, mix=0.7, mix_scale=3.0, grain=0.22, grain_u=fine, grain_v=coarse, salt=salt(rng)
    )


def floor(rng: Rng) -> Material:
    """Planks, tiles or carpet."""
    kind = rng.random()
    if kind < 0.5:
        return planks(rng)
    return tiles(rng) if kind < 0.72 else carpet(rng)


def planks(rng: Rng) -> Material:
    """Boards of one wood, staggered, each of its own tone."""
    light, dark = pick(rng, WOOD)
    board = Material(varied(rng, light), dark, mix=0.5, mix_scale=1.2, grain=0.2, grain_u=2.0, grain_v=22.0)
    long, wide = rng.uniform(0.9, 1.6), rng.uniform(0.12, 0.2)
    cells = replace(board, cell_u=long, cell_v=wide, stagger=1.0, tint=0.25, hue=0.06, salt=salt(rng))
    return replace(cells, line=0.004, line_shade=0.35)


def tiles(rng: Rng) -> Material:
    """Stone tiles with joints."""
    side = rng.uniform(0.3, 0.6)
    colour = varied(rng, pick(rng, ((0.6, 0.57, 0.52), (0.35, 0.36, 0.38), (0.55, 0.36, 0.26))))
    stone = Material(colour, varied(rng, colour, 0.4), mix=0.8, mix_scale=2.2, sharpness=1.6, grain=0.1, salt=salt(rng))
    return replace(stone, cell_u=side, cell_v=side, tint=0.16, hue=0.05, line=0.008, line_shade=0.45)


def carpet(rng: Rng) -> Material:
    """Wall-to-wall carpet with worn patches."""
    colour = varied(rng, pick(rng, FABRIC), 0.3)
    pile = Material(colour, varied(rng, colour, 0.5), mix=0.8, mix_scale=rng.uniform(0.8, 2.5), sharpness=1.5)
    return replace(pile, grain=0.3, grain_u=28.0, grain_v=28.0, salt=salt(rng))


def fabric(rng: Rng) -> Material:
    """Upholstery: plain weave, stripes or checks."""
    colour = varied(rng, pick(rng, FABRIC), 0.25)
    plain = Material(
        colour, varied(rng, colour, 0.5), mix=0.6, mix_scale=3.0, grain=0.22, grain_u=22.0, grain_v=22.0, salt=salt(rng)
    )
    kind = rng.random()
    if kind < 0.15:
        return replace(plain, cell_u=rng.uniform(0.06, 0.16), tint=0.45, hue=0.2)
    if kind < 0.25:
        side = rng.uniform(0.08, 0.2)
        return replace(plain, cell_u=side, cell_v=side, tint=0.35, hue=0.1)
    if kind < 0.45:
        return replace(
            plain, second=varied(rng, pick(rng, FABRIC), 0.3), mix=0.9, sharpness=5.0, mix_scale=rng.uniform(4, 8)
        )
    return plain


def rug(rng: Rng) -> Material:
    """A rug with a bold hand-woven pattern."""
    a, b = varied(rng, pick(rng, FABRIC), 0.3), varied(rng, pick(rng, VIVID), 0.2)
    return Material(
        a,
        b,
        mix=0.85,
        mix_scale=rng.uniform(1.5, 3.5),
        sharpness=5.0,
        grain=0.25,
        grain_u=20.0,
        grain_v=20.0,
        cell_u=rng.uniform(0.3, 0.7),
        cell_v=rng.uniform(0.3, 0.7),
        tint=0.25,
        hue=0.25,
        salt=salt(rng),
    )


def painting(rng: Rng, width: float, height: float) -> Material:
    """A framed picture of the given size: patches of colour inside a dark or pale frame."""
    a, b = varied(rng, pick(rng, VIVID), 0.3), varied(rng, pick(rng, FABRIC), 0.3)
    return Material(
        a,
        b,
        mix=1.0,
        mix_scale=rng.uniform(2.0, 5.0),
        sharpness=rng.uniform(2.0, 6.0),
        grain=0.35,
        grain_u=7.0,
        grain_v=7.0,
        cell_u=width,
        cell_v=height,
        origin_u=-width / 2,
        origin_v=-height / 2,
        line=0.03,
        line_shade=float(pick(rng, (0.12, 0.2, 1.6))),
        salt=salt(rng),
    )


def window(rng: Rng, width: float, height: float) -> Material:
    """Daylight behind panes: sky, and trees or houses as patches."""
    outside = varied(rng, pick(rng, ((0.30, 0.42, 0.20), (0.45, 0.42, 0.40), (0.38, 0.50, 0.62))), 0.2)
    return Material(
        (0.62, 0.74, 0.86),
        outside,
        mix=0.85,
        mix_scale=rng.uniform(1.2, 2.4),
        sharpness=3.0,
        grain=0.12,
        cell_u=width / int(rng.integers(1, 4)),
        cell_v=height / int(rng.integers(1, 3)),
        origin_u=-width / 2,
        origin_v=-height / 2,
        line=0.03,
        line_shade=0.28,
        glow=0.45,
        salt=salt(rng),
    )


def door(rng: Rng, width: float, height: float) -> Material:
    """A panelled door leaf."""
    base = wood(rng, along_u=False) if rng.random() < 0.5 else replace(plain(rng, (0.72, 0.71, 0.68)), grain=0.08)
    return replace(
        base,
        cell_u=width / 2,
        cell_v=height / int(rng.integers(2, 4)),
        origin_u=-width / 2,
        origin_v=-height / 2,
        line=0.018,
        line_shade=0.5,
        tint=0.05,
        stagger=0.0,
    )


def books(rng: Rng) -> Material:
    """A row of book spines."""
    return Material(
        (0.42, 0.36, 0.30),
        (0.2, 0.16, 0.14),
        mix=0.3,
        mix_scale=6.0,
        grain=0.1,
        cell_u=rng.uniform(0.028, 0.05),
        cell_v=5.0,
        origin_v=-2.0,
        tint=0.5,
        hue=0.75,
        line=0.002,
        line_shade=0.3,
        salt=salt(rng),
    )


def plain(rng: Rng, colour: Colour) -> Material:
    """Lacquer, plastic, ceramics: nearly even, with faint clouds."""
    return Material(
        varied(rng, colour),
        varied(rng, colour, 0.35),
        mix=0.6,
        mix_scale=5.0,
        grain=0.07,
        grain_u=12.0,
        grain_v=12.0,
        salt=salt(rng),
    )


def printed(rng: Rng) -> Material:
    """Packaging and book covers: two vivid colours in patches."""
    a, b = varied(rng, pick(rng, VIVID), 0.3), varied(rng, pick(rng, VIVID), 0.3)
    return Material(
        a,
        b,
        mix=1.0,
        mix_scale=rng.uniform(6.0, 16.0),
        sharpness=rng.uniform(3.0, 6.0),
        grain=0.15,
        grain_u=18.0,
        grain_v=18.0,
        salt=salt(rng),
    )


def banded(rng: Rng) -> Material:
    """A ball or vase with painted bands."""
    a = varied(rng, pick(rng, VIVID), 0.3)
    return Material(
        a,
        varied(rng, pick(rng, VIVID), 0.3),
        mix=0.9,
        mix_scale=rng.uniform(4, 9),
        sharpness=4.0,
        grain=0.1,
        cell_v=rng.uniform(0.05, 0.1),
        tint=0.3,
        hue=0.35,
        salt=salt(rng),
    )


def foliage(rng: Rng) -> Material:
    """Leaves, seen as one bush."""
    return Material(
        varied(rng, (0.10, 0.26, 0.07), 0.3),
        (0.03, 0.09, 0.03),
        mix=1.0,
        mix_scale=11.0,
        sharpness=3.0,
        grain=0.45,
        grain_u=22.0,
        grain_v=22.0,
        salt=salt(rng),
    )
