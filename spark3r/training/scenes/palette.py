"""Colours that go together in a home, and random choices among them."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from .material import Colour

Rng = np.random.Generator
T = TypeVar("T")

WALL_PAINT: tuple[Colour, ...] = (
    (0.74, 0.71, 0.65),
    (0.68, 0.69, 0.69),
    (0.62, 0.68, 0.60),
    (0.55, 0.65, 0.70),
    (0.75, 0.64, 0.52),
    (0.72, 0.60, 0.40),
    (0.45, 0.55, 0.60),
    (0.60, 0.42, 0.34),
    (0.40, 0.48, 0.42),
    (0.70, 0.56, 0.55),
)
WOOD: tuple[tuple[Colour, Colour], ...] = (
    ((0.48, 0.30, 0.16), (0.34, 0.19, 0.09)),
    ((0.60, 0.43, 0.26), (0.46, 0.30, 0.16)),
    ((0.24, 0.13, 0.07), (0.15, 0.08, 0.04)),
    ((0.66, 0.54, 0.38), (0.54, 0.41, 0.26)),
    ((0.38, 0.18, 0.09), (0.27, 0.11, 0.05)),
)
FABRIC: tuple[Colour, ...] = (
    (0.10, 0.28, 0.30),
    (0.60, 0.40, 0.08),
    (0.33, 0.34, 0.36),
    (0.45, 0.15, 0.09),
    (0.16, 0.20, 0.40),
    (0.62, 0.55, 0.45),
    (0.22, 0.32, 0.16),
    (0.52, 0.24, 0.30),
    (0.14, 0.15, 0.17),
    (0.70, 0.66, 0.60),
)
VIVID: tuple[Colour, ...] = (
    (0.70, 0.08, 0.06),
    (0.08, 0.25, 0.60),
    (0.80, 0.55, 0.05),
    (0.06, 0.42, 0.22),
    (0.75, 0.30, 0.05),
    (0.40, 0.10, 0.42),
    (0.75, 0.72, 0.68),
    (0.05, 0.40, 0.48),
    (0.75, 0.30, 0.38),
    (0.12, 0.12, 0.14),
)


def pick(rng: Rng, choices: tuple[T, ...]) -> T:
    """One of the choices."""
    return choices[int(rng.integers(len(choices)))]


def varied(rng: Rng, colour: Colour, amount: float = 0.12) -> Colour:
    """A colour near the given one."""
    gain = 1 + amount * rng.uniform(-1, 1)
    c = np.clip(np.asarray(colour) * gain * (1 + 0.5 * amount * rng.uniform(-1, 1, 3)), 0.02, 0.9)
    return float(c[0]), float(c[1]), float(c[2])


def salt(rng: Rng) -> float:
    """A random number that tells one surface's noise from another's."""
    return float(rng.integers(1, 1_000_000))
