"""Camera path errors; ATE as `evo_ape --align --correct_scale` defines it.

evo itself is not used: it brings matplotlib, seaborn, rosbags and a dozen more for three lines on top of
`umeyama`. A test holds the number that evo 1.38.1 gives for the same paths.
"""

from typing import NamedTuple

import numpy as np

from spark3r.geometry import STANDING_STILL, nearest_rotation, path_spread, rotation_degrees, umeyama

MOST_FRAMES = 600  # whose pairs are compared: 180,000 of them


class TrajectoryErrors(NamedTuple):
    """NaN where a predicted camera is not finite."""

    ate: float  # rmse of camera centres after Sim(3) alignment, in the truth's world units
    ate_relative: float  # ATE / path length of the truth; NaN where the true camera stands still
    rotation_deg: float  # mean angle between orientations, after the one rotation that fits them best
    auc_3: float  # strict: `pose_auc` up to 3°
    auc_30: float  # loose: up to 30°


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
        return TrajectoryErrors(*[np.nan] * 5)
    centres, true_centres = cameras[:, :3, 3], truth[:, :3, 3]
    offsets = umeyama(centres, true_centres).apply(centres) - true_centres
    ate = float(np.sqrt(np.square(offsets).sum(-1).mean()))
    length = path_length(truth)
    pairs = pair_errors(cameras, truth)
    return TrajectoryErrors(
        ate,
        ate / length if length > 0 else np.nan,
        _rotation_error(cameras, truth),
        pose_auc(pairs, 3),
        pose_auc(pairs, 30),
    )


def pose_auc(
    errors: np.ndarray,  # [P] degrees, of all pairs of frames
    limit: float,
) -> float:  # 0 … 1; NaN without pairs
    """Area under the curve "share of pairs below an error" from 0 to `limit` degrees, as a part of the whole.

    The integral itself; the official evaluations of VGGT and π³ sum it in steps of one degree, which gives up to half
    a step more. Strict limits tell apart what loose ones call equal.
    """
    return float(np.clip(1 - errors / limit, 0, None).mean()) if len(errors) else np.nan


def pair_errors(
    cameras: np.ndarray,  # [S, 4, 4] world_from_camera
    truth: np.ndarray,  # [S, 4, 4] world_from_camera
) -> np.ndarray:  # [S · (S - 1) / 2] degrees
    """The error of every pair's relative pose: the larger of the angles of its rotation and its direction of travel.

    Of clips longer than MOST_FRAMES so many frames, spread evenly. Where the true camera does not move between two
    frames, only the rotation counts; a predicted camera that stands still where the true one moves is 180° off.
    """
    if len(truth) > MOST_FRAMES:
        chosen = np.linspace(0, len(truth) - 1, MOST_FRAMES).round().astype(int)
        cameras, truth = cameras[chosen], truth[chosen]
    first, second = np.triu_indices(len(truth), 1)
    turn, travel = _relative(cameras, first, second)
    true_turn, true_travel = _relative(truth, first, second)
    rotation = rotation_degrees(true_turn.swapaxes(1, 2) @ turn)
    lengths = np.linalg.norm(travel, axis=-1), np.linalg.norm(true_travel, axis=-1)
    cross, dot = np.linalg.norm(np.cross(travel, true_travel), axis=-1), (travel * true_travel).sum(-1)
    direction = np.degrees(np.arctan2(cross, dot))
    direction[lengths[0] <= _still(cameras)] = 180
    direction[lengths[1] <= _still(truth)] = 0
    return np.maximum(rotation, direction)


def _relative(cameras: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation [P, 3, 3] and centre [P, 3] of the second camera as seen by the first."""
    cameras = np.asarray(cameras, dtype=np.float64)
    back = cameras[first, :3, :3].swapaxes(1, 2)
    travel = cameras[second, :3, 3] - cameras[first, :3, 3]
    return back @ cameras[second, :3, :3], (back @ travel[..., None])[..., 0]


def _still(cameras: np.ndarray) -> float:
    """The distance below which two centres of this path are one."""
    return STANDING_STILL * max(path_spread(cameras), float(np.abs(cameras[:, :3, 3]).max()), STANDING_STILL)


def _rotation_error(cameras: np.ndarray, truth: np.ndarray) -> float:
    rotations, true_rotations = cameras[:, :3, :3], truth[:, :3, :3]
    common = nearest_rotation((true_rotations @ rotations.swapaxes(1, 2)).mean(0))
    return float(rotation_degrees(true_rotations.swapaxes(1, 2) @ common @ rotations).mean())
