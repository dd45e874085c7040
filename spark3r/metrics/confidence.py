"""What confidence is worth: the error of pixels against how sure the model was of them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from spark3r.metrics.cloud import surface_distances
from spark3r.metrics.depth import depth_scale, known
from spark3r.metrics.scores import matched, view_of
from spark3r.metrics.truth import Truth
from spark3r.reconstruction import Reconstruction

STEP = 5  # percentiles of a clip's confidence that make one bin
BINS = 100 // STEP
WRONG = 0.1  # relative depth error from which on a pixel is wrong
MISPLACED = 0.05  # distance from the true surface, in scene diagonals, from which on a point is misplaced
EDGE = 0.15  # relative step of true depth that makes an edge,
NEAR_EDGE = 2  # and within how many pixels of one a misplaced point flies: it hangs between near and far surfaces

MEASURES = ("abs_rel", "wrong", "misplaced", "flying")


@dataclass(frozen=True, eq=False)
class ConfidenceCurve:
    """Sums over the pixels of each bin, least sure first; curves of several clips add up.

    A clip's pixels are sorted by its own percentiles, as `Reconstruction.points` filters them.
    """

    totals: np.ndarray  # [BINS, 4] sums over pixels of |depth - truth| / truth, then of 0 or 1: wrong depth, misplaced
    # point, flying point
    counts: np.ndarray  # [BINS, 4] pixels that each sum is over; points are a spread sample of the pixels

    @staticmethod
    def empty() -> ConfidenceCurve:
        """Of no clip yet."""
        return ConfidenceCurve(np.zeros((BINS, len(MEASURES))), np.zeros((BINS, len(MEASURES))))

    def __add__(self, other: ConfidenceCurve) -> ConfidenceCurve:
        return ConfidenceCurve(self.totals + other.totals, self.counts + other.counts)

    def by_bin(self) -> np.ndarray:  # [BINS, 4]
        """MEASURES of the pixels in each bin; NaN where a bin is empty, as with equal confidences."""
        with np.errstate(invalid="ignore"):
            return self.totals / self.counts

    def kept(self, percentile: float) -> dict[str, float]:
        """MEASURES of all pixels that a filter at this percentile, a multiple of STEP, leaves."""
        first = round(percentile / STEP)
        with np.errstate(invalid="ignore"):
            means = self.totals[first:].sum(0) / self.counts[first:].sum(0)
        return dict(zip(MEASURES, means.tolist(), strict=True))


def confidence_curve(scene: Reconstruction, truth: Truth) -> ConfidenceCurve:
    """The curve of one clip, over the pixels known in both; depth after `depth_scale`, points aligned as a cloud."""
    truth = matched(truth, scene)
    if not known(scene.depth).any():
        return ConfidenceCurve.empty()
    scale = depth_scale(scene.depth, truth.depth)
    levels = np.percentile(scene.confidence[known(scene.depth)], np.arange(STEP, 100, STEP))
    totals, counts = np.zeros((len(MEASURES), BINS)), np.zeros((len(MEASURES), BINS))
    for depth, true, confidence in zip(scene.depth, truth.depth, scene.confidence, strict=True):
        both = known(depth) & known(true)
        error = np.abs(depth[both] * scale - true[both]) / true[both].astype(np.float64)
        place = np.searchsorted(levels, confidence[both], side="right")
        counts[:2] += _sums(place)
        totals[0] += _sums(place, error)
        totals[1] += _sums(place, error > WRONG)
    pixels, distance = surface_distances(view_of(scene), view_of(truth))
    place = np.searchsorted(levels, scene.confidence[tuple(pixels.T)], side="right")
    misplaced = distance > MISPLACED
    counts[2:] = _sums(place)
    totals[2] = _sums(place, misplaced)
    totals[3] = _sums(place, misplaced & _near_edges(truth.depth)[tuple(pixels.T)])
    return ConfidenceCurve(totals.T, counts.T)


def _near_edges(depth: np.ndarray) -> np.ndarray:  # [S, H, W] → bool
    """Pixels with near and far surfaces around them."""
    around = np.ones((2 * NEAR_EDGE + 1,) * 2, np.uint8)
    return np.stack([
        cv2.dilate(np.where(known(frame), frame, 0), around)
        > (1 + EDGE) * cv2.erode(np.where(known(frame), frame, np.inf), around)
        for frame in depth.astype(np.float32)
    ])  # fmt: skip


def _sums(place: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:  # [BINS]
    return np.bincount(place, weights, minlength=BINS)
