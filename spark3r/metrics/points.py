"""How far each single point of a result is from where a reference has it: for colours, not for tables.

A point and its counterpart come from the same pixel, so no neighbours are searched, and a surface that slid along
itself counts as moved. Distances are shares of the reference's diagonal, as in `cloud`.
"""

from __future__ import annotations

import numpy as np

from spark3r.geometry import Similarity
from spark3r.metrics.cloud import View, align_points, box_diagonal, spread_pixels
from spark3r.metrics.depth import known
from spark3r.metrics.scores import matched, view_of
from spark3r.metrics.truth import Truth
from spark3r.reconstruction import PointCloud, Reconstruction


def alignment_to_truth(scene: Reconstruction, truth: Truth) -> Similarity:
    """The Sim(3) that takes a result into the world of the truth, by the points that both know, outliers damped.

    The truth covers the whole clip or exactly the frames of the result, at any size. The identity where fewer than
    three pixels are known in both.
    """
    return _alignment(view_of(scene), view_of(matched(truth, scene)))


def point_distances(
    cloud: PointCloud,
    scene: Reconstruction,
    reference: Reconstruction | Truth,
    alignment: Similarity | None = None,
    diagonal: float | None = None,
) -> np.ndarray:  # [N] float32
    """How far the points of `cloud`, as `scene.points` gave them, are from the reference's points of the same pixels.

    alignment  brings `scene` into the world of the reference; None: it is there already
    diagonal   of the reference, as `scene_diagonal` finds it; None: found now

    Distances are shares of that diagonal; NaN where the reference knows nothing.
    """
    if isinstance(reference, Truth):
        reference = matched(reference, scene)
    view, (row, column) = view_of(reference), np.divmod(cloud.pixel, scene.width)
    true = view.at(cloud.frame, row, column)
    own = view_of(scene).at(cloud.frame, row, column)
    if alignment is not None:
        own = alignment.apply(own)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.linalg.norm(own - true, axis=-1) / (diagonal or scene_diagonal(reference))
    is_known = known(view.depth[cloud.frame, row, column]) & np.isfinite(distance)
    return np.where(is_known, distance, np.nan).astype(np.float32)


def depth_difference(
    scene: Reconstruction,
    reference: Reconstruction | Truth,
    frame: int,
    diagonal: float | None = None,
) -> np.ndarray:  # [H, W] float32
    """|depth - reference's depth| of one frame of two results in one world, as shares of the reference's diagonal; NaN
    where either is unknown."""
    if isinstance(reference, Truth):
        reference = matched(reference, scene)
    depth, true = scene.depth[frame], reference.depth[frame]
    with np.errstate(invalid="ignore", over="ignore"):
        moved = np.abs(depth - true) / (diagonal or scene_diagonal(reference))
    return np.where(known(depth) & known(true), moved, np.nan).astype(np.float32)


def scene_diagonal(scene: Reconstruction | Truth) -> float:
    """Of the box between the 1st and 99th percentile of the points per axis, in world units; > 0."""
    view = view_of(scene)
    pixels = spread_pixels(*view.depth.shape)
    points = view.at(*pixels)[known(view.depth[pixels])]
    points = points[np.isfinite(points).all(-1)]
    return box_diagonal(points) if len(points) else 1.0


def _alignment(prediction: View, truth: View) -> Similarity:
    pixels = spread_pixels(*prediction.depth.shape)
    predicted, true = prediction.at(*pixels), truth.at(*pixels)
    both = known(prediction.depth[pixels]) & known(truth.depth[pixels]) & np.isfinite(predicted).all(-1)
    return align_points(predicted[both], true[both]) if both.sum() >= 3 else Similarity()
