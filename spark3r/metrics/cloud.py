"""Errors of the fused point cloud after Sim(3) alignment.

Distances are fractions of the scene's diagonal (of the true points' box between the 1st and 99th percentile
per axis), as neither a model nor a rendered scene has metres. scipy finds the neighbours.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from spark3r.geometry import Similarity, nearest_rotation, unproject_pixels
from spark3r.metrics.depth import known
from spark3r.stopping import may_stop

# Points compared. They sample a room of 8 m to about 3 cm, or 0.4 % of its diagonal.
SAMPLE = 100_000

# Points in a leaf of the search tree. With scipy's own 10, a flat cloud far from the truth takes three times as long.
LEAF = 64


class CloudErrors(NamedTuple):
    """Means over points; NaN where fewer than three pixels are known in both clouds."""

    accuracy: float  # distance from a predicted point to the nearest true one, fraction of the diagonal
    completeness: float  # distance from a true point to the nearest predicted one, fraction of the diagonal
    normal_consistency: float  # |cosine| between normals of such neighbours, both ways, 1 is perfect

    @property
    def chamfer(self) -> float:
        """Mean of accuracy and completeness, fraction of the diagonal."""
        return (self.accuracy + self.completeness) / 2


@dataclass(frozen=True, eq=False)
class View:
    """Depth and cameras: what a cloud is made of, predicted or true."""

    depth: np.ndarray  # [S, H, W]
    world_from_camera: np.ndarray  # [S, 4, 4]
    intrinsics: np.ndarray  # [S, 3, 3]

    def at(self, frame: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:  # [N, 3]
        """The 3-D points behind pixels, each clamped to the image."""
        row = row.clip(0, self.depth.shape[1] - 1)
        column = column.clip(0, self.depth.shape[2] - 1)
        depth = self.depth[frame, row, column]
        return unproject_pixels(column, row, depth, self.intrinsics[frame], self.world_from_camera[frame])

    def normals(self, frame: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:  # [N, 3]
        """Unit normals from the four neighbouring pixels, of either sign; 0 where they span nothing."""
        with np.errstate(invalid="ignore"):  # where depth is not finite
            across = self.at(frame, row, column + 1) - self.at(frame, row, column - 1)
            down = self.at(frame, row + 1, column) - self.at(frame, row - 1, column)
            normal = np.nan_to_num(np.cross(across.astype(np.float64), down))
        return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-30)


def cloud_errors(prediction: View, truth: View) -> CloudErrors:
    """Errors over the same evenly spread pixels of both, after `align_points` on those known in both."""
    frame, row, column = spread_pixels(*prediction.depth.shape)
    clouds = _aligned(prediction, truth, (frame, row, column))
    if clouds is None:
        return CloudErrors(np.nan, np.nan, np.nan)
    may_stop()
    normals = prediction.normals(frame, row, column)[clouds.has_prediction] @ clouds.rotation.T
    true_normals = truth.normals(frame, row, column)[clouds.has_truth]
    return _neighbour_errors(clouds.predicted, normals, clouds.true, true_normals)


def surface_distances(prediction: View, truth: View) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [N, 3] (frame, row, column), evenly spread, and how far their points, aligned as in `cloud_errors`, are
    from the nearest true one [N], as a fraction of the diagonal. Empty where nothing can be aligned."""
    from scipy.spatial import KDTree

    pixels = spread_pixels(*prediction.depth.shape)
    clouds = _aligned(prediction, truth, pixels)
    if clouds is None:
        return np.empty((0, 3), np.int64), np.empty(0)
    distance, _ = KDTree(clouds.true, LEAF).query(clouds.predicted)
    return np.stack(pixels, -1)[clouds.has_prediction], distance / box_diagonal(clouds.true)


class _Clouds(NamedTuple):
    predicted: np.ndarray  # [P, 3] in the world of the truth
    true: np.ndarray  # [T, 3]
    has_prediction: np.ndarray  # [N] bool, P of them: which pixels they come from
    has_truth: np.ndarray  # [N] bool, T of them
    rotation: np.ndarray  # [3, 3] by which the prediction was turned


def _aligned(prediction: View, truth: View, pixels: tuple[np.ndarray, np.ndarray, np.ndarray]) -> _Clouds | None:
    """The points behind N pixels; None where fewer than three are known in both."""
    predicted, true = prediction.at(*pixels), truth.at(*pixels)
    has_prediction = known(prediction.depth[pixels]) & np.isfinite(predicted).all(-1)
    has_truth = known(truth.depth[pixels])
    both = has_prediction & has_truth
    if both.sum() < 3:
        return None
    alignment = align_points(predicted[both], true[both])
    predicted = alignment.apply(predicted[has_prediction])
    return _Clouds(predicted, true[has_truth], has_prediction, has_truth, alignment.rotation)


def align_points(
    source: np.ndarray,  # [N, 3]
    target: np.ndarray,  # [N, 3]
    rounds: int = 15,
) -> Similarity:
    """The similarity that takes points to their counterparts, whatever a minority of flying pixels does.

    Reweighted by 1 / distance, so distances count and not their squares. The scale is the mean log ratio
    of the two extents, which unlike least squares cannot shrink a wrong cloud to a flattering speck. Defined
    for one frame and for a camera that only turns, as the points themselves have extent.
    """
    weights = np.full(len(source), 1 / len(source))
    source_centre, target_centre = np.median(source, axis=0), np.median(target, axis=0)
    for _ in range(rounds):
        source_arm, target_arm = source - source_centre, target - target_centre
        source_length, target_length = _lengths(source_arm), _lengths(target_arm)
        scale = float(np.exp(weights @ np.log(target_length / source_length)))
        # Directions from the centre: no point pulls harder for being far away.
        weighted = (weights / target_length)[:, None] * target_arm
        rotation = nearest_rotation(weighted.T.astype(np.float64) @ (source_arm / source_length[:, None]))
        alignment = Similarity(scale, rotation, target_centre - scale * rotation @ source_centre)
        distance = _lengths(alignment.apply(source) - target)
        weights = 1 / np.maximum(distance, 0.1 * np.median(distance))
        weights = weights / weights.sum()
        source_centre, target_centre = weights @ source, weights @ target
    return alignment


def _lengths(vectors: np.ndarray) -> np.ndarray:
    return np.maximum(np.linalg.norm(vectors, axis=-1), 1e-12)


def _neighbour_errors(
    points: np.ndarray, normals: np.ndarray, true_points: np.ndarray, true_normals: np.ndarray
) -> CloudErrors:
    from scipy.spatial import KDTree

    diagonal = box_diagonal(true_points)
    may_stop()
    to_truth, nearest_true = KDTree(true_points, LEAF).query(points)
    may_stop()
    distinct, first = np.unique(points, axis=0, return_index=True)  # a trivial baseline says the same in every frame
    to_prediction, nearest = KDTree(distinct, LEAF).query(true_points)
    agreement = np.abs((normals * true_normals[nearest_true]).sum(-1)).mean()
    agreement_back = np.abs((true_normals * normals[first[nearest]]).sum(-1)).mean()
    return CloudErrors(
        float(to_truth.mean()) / diagonal,
        float(to_prediction.mean()) / diagonal,
        float(agreement + agreement_back) / 2,
    )


def box_diagonal(points: np.ndarray) -> float:
    """Of the box between the 1st and 99th percentile per axis."""
    low, high = np.percentile(points, [1, 99], axis=0)
    return max(float(np.linalg.norm(high - low)), 1e-12)


def spread_pixels(frames: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(frame, row, column) of at most SAMPLE pixels: all, or a fixed scatter, as many in each frame."""
    per_frame = min(height * width, max(1, SAMPLE // frames))
    if per_frame == height * width:
        pixel = np.tile(np.arange(per_frame), frames)
    else:
        pixel = np.random.default_rng(0).integers(0, height * width, frames * per_frame)
    row, column = np.divmod(pixel, width)
    return np.repeat(np.arange(frames), per_frame), row, column
