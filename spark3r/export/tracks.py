"""Which frames see a point: where its projection meets the depth of that frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spark3r.reconstruction import PointCloud, Reconstruction
from spark3r.stopping import may_stop

SAME_SURFACE = 0.02  # relative difference of depth up to which two frames see one surface
LONGEST_TRACK = 6  # observations of one point that are kept, spread over the frames that see it


@dataclass(frozen=True, eq=False)
class Observations:
    """The N points of a cloud, and which of the S frames see each."""

    scene: Reconstruction
    cloud: PointCloud
    sees: np.ndarray  # [S, N] bool

    @property
    def is_tracked(self) -> np.ndarray:  # [N] bool
        """Points that at least two frames see."""
        return self.sees.sum(0) >= 2

    def select(self, chosen: np.ndarray) -> Observations:
        """For some of the points only, [N] bool."""
        return Observations(self.scene, self.cloud.select(chosen), self.sees[:, chosen])

    def of_frame(self, frame: int) -> tuple[np.ndarray, np.ndarray]:  # [n] positions in the cloud, [n, 2] x, y
        """What one frame sees, and at which pixels (centres at integers)."""
        points = np.flatnonzero(self.sees[frame])
        pixels, _ = _project(self.scene, frame, self.cloud.select(points))
        return points, pixels


def observations(scene: Reconstruction, cloud: PointCloud, frames: np.ndarray) -> Observations:
    """Where the points of a cloud are seen, among the given frames, in at most LONGEST_TRACK of them each.

    A point is seen by the frame that it comes from, and by those whose own depth at its projection agrees within
    SAME_SURFACE: nothing stands before it there, and the two frames tell of one surface.
    """
    sees = np.zeros((len(scene), len(cloud)), bool)
    for frame in frames:
        may_stop()
        sees[frame] = _seen_by(scene, int(frame), cloud)
    _shorten(sees)
    return Observations(scene, cloud, sees)


def _seen_by(scene: Reconstruction, frame: int, cloud: PointCloud) -> np.ndarray:  # [N] bool
    pixels, depth = _project(scene, frame, cloud)
    x, y = pixels.T
    inside = (depth > 0) & (x > -0.5) & (x < scene.width - 0.5) & (y > -0.5) & (y < scene.height - 0.5)
    column, row = (np.where(inside, np.rint(side), 0).astype(np.int64) for side in (x, y))
    found = scene.depth[frame, row, column]
    return inside & (np.abs(found - depth) < SAME_SURFACE * depth) | (cloud.frame == frame)


def _project(scene: Reconstruction, frame: int, cloud: PointCloud) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [N, 2] x, y and z-depth [N] in a frame; its own points at the very pixels they come from."""
    camera_from_world = np.linalg.inv(scene.world_from_camera[frame].astype(np.float64)).astype(np.float32)
    local = cloud.xyz @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    intrinsics, depth = scene.intrinsics[frame], local[:, 2]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        pixels = local[:, :2] / depth[:, None] * intrinsics[[0, 1], [0, 1]] + intrinsics[:2, 2]
    row, column = np.divmod(cloud.pixel, scene.width)
    own = (cloud.frame == frame)[:, None]
    return np.where(own, np.stack([column, row], -1), pixels), depth


def _shorten(sees: np.ndarray) -> None:
    """Keep at most LONGEST_TRACK frames of each point, evenly among those that see it; in place."""
    total = np.maximum(sees.sum(0, dtype=np.int32), 1)
    rank = np.zeros_like(total)
    for frame in sees:  # by frame, to stay small in memory
        is_next = (rank + 1) * LONGEST_TRACK // total > rank * LONGEST_TRACK // total
        rank += frame
        frame &= is_next | (total <= LONGEST_TRACK)
