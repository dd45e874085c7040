"""write(): picks the format by suffix.

A new format is one file with a function `write(scene, path, choice)`, and one line in FORMATS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spark3r.errors import InputError
from spark3r.export import glb, npz, ply, tum
from spark3r.export.choice import DEFAULT_MAX_POINTS, Choice
from spark3r.reconstruction import Reconstruction


@dataclass(frozen=True)
class Format:
    """How a suffix is written, and what a person gets."""

    title: str
    write: Callable[[Reconstruction, Path, Choice], None]


FORMATS = {
    ".glb": Format("glTF binary: coloured points and camera frusta, y up", glb.write),
    ".ply": Format("binary PLY: coloured points in OpenCV axes", ply.write),
    ".npz": Format("numpy archive: everything, to load again", npz.write),
    ".tum": Format("text: the camera path, one line per frame (TUM format)", tum.write),
}


def check(path: str | Path) -> Format:
    """The format a path asks for. Raises InputError naming the legal suffixes; ask before a long run."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        came = f"the suffix {path.suffix}" if path.suffix else "no suffix"
        raise InputError(f"{path} has {came}: must be one of {', '.join(FORMATS)}")
    return FORMATS[path.suffix.lower()]


def write(
    scene: Reconstruction,
    path: str | Path,
    *,
    min_confidence_percentile: float = 0.0,
    max_points: int | None = DEFAULT_MAX_POINTS,
) -> None:
    """Writes a scene in the format of the suffix; the two filters are those of `Reconstruction.points`.

    The file appears whole or not at all. Raises InputError for an unknown suffix, a folder that cannot be
    written, a full disk, a scene without points.
    """
    check(path).write(scene, Path(path), Choice(min_confidence_percentile, max_points))
