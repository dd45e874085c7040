"""Depth errors, up to one scale for the whole clip."""

from typing import NamedTuple

import numpy as np

# The median of a larger clip is taken over about this many pixels, spread over all frames.
_MEDIAN_SAMPLE = 1 << 22


class DepthErrors(NamedTuple):
    """Over all pixels of the clip whose truth is known; NaN where none is."""

    abs_rel: float  # mean of |depth - truth| / truth, 0 is perfect
    delta_1_25: float  # share of pixels with max(depth / truth, truth / depth) < 1.25, 1 is perfect


def known(depth: np.ndarray) -> np.ndarray:
    """Where a depth says something: finite and in front of the camera."""
    return (depth > 0) & (depth < np.inf)


def depth_scale(
    depth: np.ndarray,  # [S, H, W]
    truth: np.ndarray,  # [S, H, W]
) -> float:
    """The median of truth / depth over the clip, which wild pixels do not move; 1 if none is known."""
    step = max(1, depth.size // _MEDIAN_SAMPLE) | 1  # odd, so that even widths are not looked at by column
    depth, truth = depth.reshape(-1)[::step], truth.reshape(-1)[::step]
    both = known(depth) & known(truth)
    return float(np.median(truth[both].astype(np.float64) / depth[both])) if both.any() else 1.0


def depth_errors(
    depth: np.ndarray,  # [S, H, W]
    truth: np.ndarray,  # [S, H, W]
) -> DepthErrors:
    """Errors after `depth_scale`. A pixel without a prediction counts as depth 0, i.e. an error of 1."""
    scale = depth_scale(depth, truth)
    pixels, error, close = 0, 0.0, 0
    for predicted, true in zip(depth, truth, strict=True):  # by frame, to stay small in memory
        where = known(true)
        true = true[where].astype(np.float64)
        predicted = predicted[where].astype(np.float64)
        predicted = np.where(known(predicted), predicted * scale, 0.0)
        pixels += true.size
        error += float((np.abs(predicted - true) / true).sum())
        close += int(((predicted < 1.25 * true) & (true < 1.25 * predicted)).sum())
    return DepthErrors(error / pixels, close / pixels) if pixels else DepthErrors(np.nan, np.nan)
