"""Which points go into a file."""

from dataclasses import dataclass

from spark3r.errors import InputError
from spark3r.reconstruction import PointCloud, Reconstruction

# A cloud that common viewers open at once: a 16 MB file. Every pixel of a long clip would be gigabytes.
DEFAULT_MAX_POINTS = 1_000_000


@dataclass(frozen=True)
class Choice:
    """The arguments of `Reconstruction.points`, applied by those formats that hold points."""

    min_confidence_percentile: float = 0.0
    max_points: int | None = DEFAULT_MAX_POINTS

    def points(self, scene: Reconstruction) -> PointCloud:
        """The cloud to write. Raises InputError if nothing is left, as no viewer opens an empty file."""
        cloud = scene.points(self.min_confidence_percentile, self.max_points)
        if not len(cloud):
            raise InputError("the scene has no usable points to write: its depth is nowhere finite and positive")
        return cloud
