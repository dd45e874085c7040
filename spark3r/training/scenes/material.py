"""Surface materials: every one is cells (tiles, planks, book spines, one picture) plus band-limited noise."""

from __future__ import annotations

from dataclasses import dataclass

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Material:
    """One surface. Lengths in metres along the surface; colours are linear albedo in 0..1."""

    colour: Colour = (0.6, 0.6, 0.6)
    second: Colour = (0.5, 0.5, 0.5)  # mixed in by slow noise
    mix: float = 0.0  # share of the second colour, 0..1
    mix_scale: float = 1.0  # cells of the slow noise per metre
    sharpness: float = 1.0  # 1 soft clouds, 6 hard-edged patches
    grain: float = 0.1  # amplitude of the fine noise
    grain_u: float = 8.0  # fine noise cells per metre along u
    grain_v: float = 8.0  # and along v (wood: few along, many across)
    cell_u: float = 100.0  # cell width
    cell_v: float = 100.0  # cell height
    stagger: float = 0.0  # 0 aligned rows, 0.5 bricks, 1 random planks
    tint: float = 0.0  # brightness difference between cells
    hue: float = 0.0  # colour difference between cells
    line: float = 0.0  # half width of the joints between cells
    line_shade: float = 0.3  # brightness of the joints relative to the colour
    glow: float = 0.0  # light given off (windows, lamps)
    origin_u: float = -50.0  # where a cell corner lies
    origin_v: float = -50.0
    salt: float = 0.0  # makes two surfaces of one material differ
    gloss: float = 0.0  # strength of the highlight

    def row(self) -> tuple[float, ...]:
        """The numbers in order of declaration, colours spelled out."""
        first, second, *rest = vars(self).values()
        return (*first, *second, *rest)

    @staticmethod
    def size() -> int:
        """How many numbers describe a material."""
        return len(Material().row())


def column(name: str) -> int:
    """Index of a scalar field of Material inside `row()`."""
    names = [n for n in Material.__dataclass_fields__ if n not in ("colour", "second")]
    return 6 + names.index(name)
