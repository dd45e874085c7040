"""Laws of the confidence curve: it falls where confidence knows the error, and is what the filter of points leaves."""

import dataclasses

import numpy as np
import pytest

from spark3r.metrics import ConfidenceCurve, confidence_curve
from spark3r.metrics.cloud import surface_distances
from spark3r.metrics.confidence import BINS, MEASURES, MISPLACED, STEP, WRONG
from spark3r.metrics.scores import view_of
from spark3r.metrics.truth import Truth
from spark3r.reconstruction import Reconstruction
from tests.analytic import reconstruction


def noisy(seed: int = 0) -> tuple[Reconstruction, Truth, np.ndarray]:
    """A scene with wrong depth, its truth, and the relative error of each pixel at the true scale."""
    scene = reconstruction(6, 24, 32)
    error = np.random.default_rng(seed).normal(0, 0.1, scene.depth.shape)
    truth = Truth(scene.depth, scene.world_from_camera, scene.intrinsics)
    return dataclasses.replace(scene, depth=(scene.depth * (1 + error)).astype(np.float32)), truth, np.abs(error)


def sure(scene: Reconstruction, confidence: np.ndarray) -> Reconstruction:
    return dataclasses.replace(scene, confidence=confidence.astype(np.float32))


def test_error_falls_all_the_way_under_a_perfect_confidence() -> None:
    scene, truth, error = noisy()
    curve = confidence_curve(sure(scene, 1 / (1 + error)), truth).by_bin()
    assert curve.shape == (BINS, len(MEASURES))
    assert (np.diff(curve[:, 0]) < 0).all()
    assert (np.diff(curve[:, 1]) <= 0).all()
    assert curve[0, 1] == 1
    assert curve[-1, 1] == 0
    assert curve[0, 2] > curve[-1, 2]


def test_a_confidence_that_knows_nothing_gives_a_flat_curve() -> None:
    scene, truth, _ = noisy()
    blind = sure(scene, np.random.default_rng(1).uniform(0.1, 1, scene.depth.shape))
    curve = confidence_curve(blind, truth)
    assert np.ptp(curve.by_bin()[:, 0]) < 0.5 * curve.kept(0)["abs_rel"]
    assert curve.kept(50)["abs_rel"] == pytest.approx(curve.kept(0)["abs_rel"], rel=0.1)


def test_equal_confidences_share_one_bin_and_no_filter_parts_them() -> None:
    scene, truth, _ = noisy()
    curve = confidence_curve(sure(scene, np.ones(scene.depth.shape)), truth)
    assert np.isnan(curve.by_bin()[:-1]).all()
    assert curve.kept(95) == curve.kept(0)


@pytest.mark.parametrize("percentile", [15.0, 60.0])
def test_kept_is_what_the_filter_of_points_leaves(percentile: float) -> None:
    scene, truth, _ = noisy()
    scene = sure(scene, np.random.default_rng(2).uniform(0.1, 1, scene.depth.shape))
    points = scene.points(percentile)
    kept = confidence_curve(scene, truth)
    true = truth.depth.reshape(len(truth), -1)[points.frame, points.pixel]
    scale = np.median(truth.depth / scene.depth)
    off = np.abs(points.depth * scale - true) / true
    assert kept.counts[round(percentile / STEP) :, 0].sum() == len(points)
    assert kept.kept(percentile)["abs_rel"] == pytest.approx(off.mean(), rel=1e-4)
    assert kept.kept(percentile)["wrong"] == pytest.approx((off > WRONG).mean(), abs=2e-3)


def test_clips_pool_by_pixels() -> None:
    scene, truth, error = noisy()
    other, other_truth, other_error = noisy(5)
    one = confidence_curve(sure(scene, 1 / (1 + error)), truth)
    both = one + confidence_curve(sure(other, 1 / (1 + other_error)), other_truth) + ConfidenceCurve.empty()
    assert both.counts[:, 0].sum() == 2 * scene.depth.size
    assert one.kept(0)["abs_rel"] != both.kept(0)["abs_rel"] == pytest.approx(one.kept(0)["abs_rel"], rel=0.2)


def test_a_point_thrown_out_of_the_scene_is_misplaced() -> None:
    scene, truth, _ = noisy()
    perfect = dataclasses.replace(scene, depth=truth.depth.copy())
    perfect.depth[0, :4] *= 3
    pixels, distance = surface_distances(view_of(perfect), view_of(truth))
    assert len(pixels) == scene.depth.size
    thrown = (pixels[:, 0] == 0) & (pixels[:, 1] < 4)
    assert (distance[~thrown] < MISPLACED).all()
    assert (distance[thrown] > MISPLACED).mean() > 0.9
    assert confidence_curve(perfect, truth).kept(0)["misplaced"] == pytest.approx(thrown.mean(), rel=0.1)


def test_a_point_flies_only_between_near_and_far_surfaces() -> None:
    """A near square before a far wall, one row of each moved off its surface: the row that crosses the square's sides
    flies there, the one in the open wall is misplaced only."""
    scene = reconstruction(1, 48, 64)
    true = np.full((1, 48, 64), 4.0, np.float32)
    true[:, 10:30, 20:40] = 2.0
    wrong = true.copy()
    wrong[:, 20] = wrong[:, 42] = 3.0
    truth = Truth(true, scene.world_from_camera, scene.intrinsics)
    kept = confidence_curve(dataclasses.replace(scene, depth=wrong), truth).kept(0)
    assert kept["misplaced"] == pytest.approx(2 * 64 / true.size, rel=0.1)
    assert kept["flying"] == pytest.approx(2 * 4 / true.size, rel=0.1)  # two columns on either side of both sides


def test_an_unknown_scene_has_an_empty_curve() -> None:
    scene, truth, _ = noisy()
    blind = dataclasses.replace(scene, depth=np.full_like(scene.depth, np.nan))
    assert confidence_curve(blind, truth).counts.sum() == 0
