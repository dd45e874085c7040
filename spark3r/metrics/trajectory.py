"""Camera path errors; ATE as `evo_ape --align --correct_scale` defines it.

evo itself is not used: it brings matplotlib, seaborn, rosbags and a dozen more for three lines on top of
`umeyama`. A test holds the number that evo 1.38.1 gives for the same paths.
"""

from typing import NamedTuple

import numpy as np

from spark3r.geometry import nearest_rotation, rotation_degrees, umeyama


class TrajectoryErrors(NamedTuple):
    """NaN where a predicted camera is not finite."""

    ate: float  # rmse of camera centres after Sim(3) alignment, in the truth's world units
    ate_relative: float  # ATE / path length of the truth; NaN where the true camera stands still
    rotation_deg: float  # mean angle between orientations, after the one rotation that fits them best


def path_length(
    world_from_camera: np.ndarray,  # [S, 4, 4]
) -> float:
    """The way the camera goes from centre to centre, in world units."""
    centres = np.asarray(world_from_camera, dtype=np.float64)[:, :3, 3]
    return float(np.linalg.norm(np.diff(centres, axis=0), axis=-1).sum())


def trajectory_errors(
    cameras: np.ndarray,  # [S, 4, 4] world_from_camera
    truth: np.ndarray,  # [S, 4, 4] world_from_camera
) -> TrajectoryErrors:
    """Errors of a path against the true one; positions and orientations each aligned at their best."""
    cameras, truth = np.asarray(cameras, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if not np.isfinite(cameras).all():
        return TrajectoryErrors(np.nan, np.nan, np.nan)
    centres, true_centres = cameras[:, :3, 3], truth[:, :3, 3]
    offsets = umeyama(centres, true_centres).apply(centres) - true_centres
    ate = float(np.sqrt(np.square(offsets).sum(-1).mean()))
    length = path_length(truth)
    return TrajectoryErrors(ate, ate / length if length > 0 else np.nan, _rotation_error(cameras, truth))


def _rotation_error(cameras: np.ndarray, truth: np.ndarray) -> float:
    rotations, true_rotations = cameras[:, :3, :3], truth[:, :3, :3]
    common = nearest_rotation((true_rotations @ rotations.swapaxes(1, 2)).mean(0))
    return float(rotation_degrees(true_rotations.swapaxes(1, 2) @ common @ rotations).mean())
