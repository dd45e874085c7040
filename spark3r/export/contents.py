"""What goes into a file: points by the usual filters, and what every file says about itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spark3r.errors import InputError
from spark3r.reconstruction import PointCloud, Reconstruction

# A cloud that common viewers open at once: a 16 MB file. Every pixel of a long clip would be gigabytes.
DEFAULT_MAX_POINTS = 1_000_000

OPENCV_AXES = "OpenCV: x right, y down, z forward"
OWN_WORLD = "none: the world of this run"


@dataclass(frozen=True)
class Filters:
    """The arguments of `Reconstruction.points`, applied by those formats that hold points."""

    min_confidence_percentile: float = 0.0  # 0 keeps all points, 100 the most confident only
    max_points: int | None = None  # None: as many as the format is made for

    def points(self, scene: Reconstruction, default: int = DEFAULT_MAX_POINTS) -> PointCloud:
        """The cloud to write. Raises InputError if nothing is left, as no viewer opens an empty file."""
        cloud = scene.points(self.min_confidence_percentile, self.budget(default))
        if not len(cloud):
            raise InputError("the scene has no usable points to write: its depth is nowhere finite and positive")
        return cloud

    def budget(self, default: int = DEFAULT_MAX_POINTS) -> int:
        """Points at most."""
        return default if self.max_points is None else self.max_points

    def words(self, default: int = DEFAULT_MAX_POINTS) -> str:
        """For the file: a cloud that was filtered must not be taken for a worse model."""
        hidden = f"the {self.min_confidence_percentile:g} % least confident points left out"
        kept = hidden if self.min_confidence_percentile else "points of any confidence"
        return f"{kept}, at most {self.budget(default):,} points, evenly from the frames"


@dataclass(frozen=True)
class Origin:
    """Where a scene comes from, as far as the scene itself does not know."""

    clip: str = ""  # its name, for a person
    alignment: str = OWN_WORLD  # what the world was aligned to, and how
    source: str | Path | Sequence[str | Path] | None = None  # as `read_frames` takes it: frames in their own size


def about(scene: Reconstruction, origin: Origin, filters: str = "", axes: str = OPENCV_AXES) -> dict[str, str]:
    """What a file says about itself, as {what: words}; `filters` for files with points."""
    told = {
        "software": "Spark3R",
        "clip": origin.clip,
        "model": f"{scene.model}, {scene.dtype} on {scene.device}",
        "schedule": str(scene.schedule),
        "frames": f"{len(scene)} of {scene.width}x{scene.height} pixels",
        "units": "arbitrary: one unknown scale for the whole clip, no metres",
        "axes": axes,
        "alignment": origin.alignment,
        "filters": filters,
    }
    return {what: words for what, words in told.items() if words}
