"""write(): the format follows from the suffix, a folder from a name without one.

A new format is one function `write(scene, path, filters, origin)`, and one line in FORMATS.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spark3r.errors import InputError
from spark3r.export import colmap, writers
from spark3r.export.contents import Filters, Origin
from spark3r.files import check_target
from spark3r.installation import require
from spark3r.reconstruction import Reconstruction
from spark3r.reduction.schedule import ReductionSchedule
from spark3r.stopping import may_stop

FOLDER = ""  # the suffix of a folder


@dataclass(frozen=True)
class Format:
    """How a suffix is written, and what a person gets."""

    label: str
    title: str
    write: Callable[[Reconstruction, Path, Filters, Origin], None]
    point_bytes: int = 0  # size of the file per point …
    default_points: int = 0  # … of which it holds so many at most, unless asked otherwise; 0: no points
    needs: tuple[str, ...] = ()  # modules that not every user has


_COLMAP = "COLMAP model with tracks (text and binary), nerfstudio transforms.json, frames"
FORMATS = {
    ".glb": Format("GLB", "coloured points and camera frusta, y up: Blender, browsers", writers.write_glb,
                   writers.GLB_POINT_BYTES, 1_000_000, ("trimesh", "scipy")),
    ".ply": Format("PLY", "points with colour, confidence, frame; OpenCV axes", writers.write_ply,
                   writers.PLY_POINT_BYTES, 1_000_000),
    ".npz": Format("NPZ", "numpy archive: everything, unfiltered, to load again", writers.write_npz),
    ".tum": Format("TUM", "text: the camera path, one line per frame", writers.write_tum),
    ".zip": Format("COLMAP", f"zip: {_COLMAP}", colmap.write_zip, colmap.ZIPPED_POINT_BYTES, colmap.DEFAULT_MAX_POINTS),
    FOLDER: Format("COLMAP", f"folder: {_COLMAP}", colmap.write_folder, colmap.POINT_BYTES, colmap.DEFAULT_MAX_POINTS),
}  # fmt: skip


def check(path: str | Path) -> Format:
    """The format a path asks for; ask before a long run.

    Raises InputError naming the legal suffixes, or the packages that are missing, or saying why nothing may be written
    there: a device, a folder in the place of a file (or the reverse), something that another program made.
    """
    path = Path(path)
    suffix = FOLDER if os.path.isdir(path) and path.suffix.lower() not in FORMATS else path.suffix.lower()
    if suffix not in FORMATS:
        legal = ", ".join(name for name in FORMATS if name)
        raise InputError(f"{path} has the suffix {path.suffix}: must be one of {legal}, or none for a COLMAP folder")
    kind = FORMATS[suffix]
    require(f"Writing {kind.label}", *kind.needs)
    check_target(path, is_folder=suffix == FOLDER)
    return kind


def write(
    scene: Reconstruction,
    path: str | Path,
    *,
    min_confidence_percentile: float = 0.0,
    max_points: int | None = None,
    origin: Origin | None = None,
) -> None:
    """Writes a scene in the format of the suffix; the two filters are those of `Reconstruction.points`.

    max_points  None: what the format is made for (1,000,000; COLMAP 100,000)
    origin      what the file says of its clip and alignment; with a source, COLMAP gets the frames in their own size

    What is written appears whole or not at all. Raises InputError as `check` does, and for a folder that cannot be
    written, a full disk, a scene without points.
    """
    kind = check(path)
    may_stop()
    kind.write(scene, Path(path), Filters(min_confidence_percentile, max_points), origin or Origin())


def file_name(clip: str, scene: Reconstruction, suffix: str) -> str:
    """A name that tells clip, model and schedule: "room-walk_mini_q2-kv8.glb"."""
    parts = (os.path.splitext(clip)[0], Path(scene.model).stem, _short(scene.schedule))
    words = [re.sub(r"[^A-Za-z0-9]+", "-", part).strip("-").lower() for part in parts]
    return "_".join(word[:60] for word in words if word) + ("-colmap" if suffix == ".zip" else "") + suffix


def estimated_bytes(scene: Reconstruction, suffix: str, filters: Filters) -> int:
    """About how large the file will be, known without writing it."""
    kind = FORMATS[suffix]
    if suffix == ".npz":
        arrays = (scene.images, scene.depth, scene.confidence, scene.world_from_camera, scene.intrinsics)
        return sum(array.nbytes for array in arrays)
    if not kind.default_points:
        return 100 * len(scene)
    usable = int(np.count_nonzero(np.isfinite(scene.depth)) * (1 - filters.min_confidence_percentile / 100))
    points = min(filters.budget(kind.default_points), usable)
    frames = colmap.image_bytes(scene) if kind.label == "COLMAP" else 0
    return points * kind.point_bytes + frames


def _short(schedule: ReductionSchedule) -> str:
    if schedule.is_off:
        return "dense"
    policy = "" if schedule.policy == "spark3r" else f"{schedule.policy}-"
    return f"{policy}q{schedule.query_factor}-kv{schedule.kv_factor}"
