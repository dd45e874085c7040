"""Laws of the metrics: nothing wrong at the truth, nothing changed by a similarity, worse when made worse."""

import dataclasses
import math

import numpy as np
import pytest

from spark3r.errors import InputError
from spark3r.geometry import Similarity
from spark3r.metrics import Scores, evaluate, trivial_baseline, trivial_scores
from spark3r.metrics.cloud import align_points
from spark3r.metrics.depth import depth_errors, depth_scale
from spark3r.metrics.trajectory import MOST_FRAMES, pair_errors, path_length, pose_auc, trajectory_errors
from spark3r.metrics.truth import Truth
from spark3r.reconstruction import Reconstruction
from tests.analytic import reconstruction, room_walk, turned

ANYWHERE = Similarity(3.7, turned(np.array([3, -1, 2]), 140), np.array([10.0, -4, 6]))
PERFECT = Scores(0, 1, 0, 0, 0, 1, 1, 0, 0, 1)


def truth_of(scene: Reconstruction) -> Truth:
    return Truth(scene.depth, scene.world_from_camera, scene.intrinsics)


def disturbed(scene: Reconstruction, amount: float) -> Reconstruction:
    random = np.random.default_rng(0)
    cameras = scene.world_from_camera.copy()
    for camera in cameras:
        camera[:3, :3] = turned(random.normal(size=3), 20 * amount) @ camera[:3, :3]
    cameras[:, :3, 3] += amount * random.normal(size=(len(scene), 3))
    depth = scene.depth * np.exp(amount * random.normal(size=scene.depth.shape))
    return dataclasses.replace(scene, depth=depth.astype(np.float32), world_from_camera=cameras)


def assert_close(a: Scores, b: Scores, tolerance: float) -> None:
    np.testing.assert_allclose(dataclasses.astuple(a), dataclasses.astuple(b), atol=tolerance)


@pytest.mark.parametrize("frames", [2, 5])
def test_the_truth_scores_perfectly_in_any_world(frames):
    scene = reconstruction(frames)
    assert_close(evaluate(scene, truth_of(scene)), PERFECT, 1e-4)
    assert_close(evaluate(scene.transformed(ANYWHERE), truth_of(scene)), PERFECT, 1e-4)


def test_one_frame_has_no_path_but_all_else():
    scene = reconstruction(frames=1)
    scores = evaluate(scene.transformed(ANYWHERE), truth_of(scene))
    assert math.isnan(scores.ate_relative)
    assert scores.to_json()["ate_relative"] is None
    assert_close(dataclasses.replace(scores, ate_relative=0.0, auc_3=1.0, auc_30=1.0), PERFECT, 1e-4)


def test_scores_do_not_depend_on_the_world_of_the_result():
    scene = reconstruction(6)
    wrong = disturbed(scene, 0.05)
    scores = evaluate(wrong, truth_of(scene))
    assert_close(evaluate(wrong.transformed(ANYWHERE), truth_of(scene)), scores, 1e-4)
    assert scores.abs_rel > 0.01
    assert scores.ate > 0.01
    assert scores.rotation_deg > 0.5
    assert scores.accuracy > 1e-3


def test_every_score_worsens_with_the_disturbance():
    scene = reconstruction(8)
    small, large = (evaluate(disturbed(scene, amount), truth_of(scene)) for amount in (0.03, 0.3))
    for name, best in dataclasses.asdict(PERFECT).items():
        assert abs(getattr(small, name) - best) < abs(getattr(large, name) - best), name


def test_depth_errors_by_hand():
    truth = np.array([[[1.0, 2, 4, 8, np.nan]]], np.float32)
    depth = np.array([[[1.1, 2, 2, np.nan, 5]]], np.float32)  # median of truth / depth is 1
    assert depth_scale(depth, truth) == 1
    errors = depth_errors(depth, truth)
    assert errors.abs_rel == pytest.approx((0.1 + 0 + 0.5 + 1) / 4)
    assert errors.delta_1_25 == pytest.approx(2 / 4)


@pytest.mark.parametrize("factor", [1e-3, 1, 42])
def test_scaled_depth_has_no_error(factor):
    depth = room_walk(3)[0]
    assert depth_errors(depth * np.float32(factor), depth).abs_rel == pytest.approx(0, abs=1e-6)


def test_depth_without_truth_is_undefined():
    assert np.isnan(depth_errors(np.ones((1, 2, 2)), np.full((1, 2, 2), np.nan))).all()


def test_ate_is_the_number_of_evo():
    """evo 1.38.1: PosePath3D.align(correct_scale=True), APE translation_part rmse, path_length."""
    true = room_walk(9)[1].astype(np.float64)
    bent = true.copy()
    for i, camera in enumerate(bent):
        camera[:3, :3] = turned(np.array([1, 0, 0]), 2 * i) @ camera[:3, :3]
        camera[:3, 3] = 0.5 * camera[:3, 3] + [0.02 * i * i / 9, 0, 1]
    errors = trajectory_errors(bent, true)
    assert errors.ate == pytest.approx(0.03993119821785013, rel=1e-6)
    assert path_length(true) == pytest.approx(2.187057464501904, rel=1e-6)
    assert errors.ate_relative == pytest.approx(errors.ate / path_length(true))
    assert errors.rotation_deg == pytest.approx(np.abs(2 * np.arange(9) - 8).mean(), abs=1e-5)


def test_pose_auc_is_the_area_under_the_curve():
    assert pose_auc(np.array([0.0, 1.5, 3.0, 90.0]), 3) == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert pose_auc(np.array([3.0]), 30) == pytest.approx(0.9)
    assert np.isnan(pose_auc(np.empty(0), 3))


def test_strict_and_loose_pose_scores_tell_a_small_error_apart():
    true = room_walk(9)[1].astype(np.float64)
    bent = true.copy()
    for i, camera in enumerate(bent):
        camera[:3, :3] = camera[:3, :3] @ turned(np.array([1, 0, 0]), 2 * (-1) ** i)
    errors = trajectory_errors(bent, true)
    assert errors.auc_30 > 0.85
    assert errors.auc_3 < 0.4


def test_a_pair_is_as_wrong_as_the_worse_of_its_turn_and_its_direction():
    true = np.tile(np.eye(4), (3, 1, 1))
    true[:, 0, 3] = [0, 1, 1]  # the last two stand at one place
    found = true.copy()
    found[1, :3, 3], found[2, :3, 3] = [1, 1, 0], [1, 1, 0.5]  # 45° off
    found[2, :3, :3] = turned(np.array([0, 0, 1]), 10)
    toward = np.degrees(np.arccos(1 / np.sqrt(2.25)))
    np.testing.assert_allclose(pair_errors(found, true), [45, toward, 10], atol=1e-6)
    still = np.tile(np.eye(4), (3, 1, 1))
    np.testing.assert_allclose(pair_errors(still, true), [180, 180, 0], atol=1e-6)


def test_long_clips_are_scored_by_frames_spread_over_them():
    true = room_walk(700, 2, 2)[1]
    assert len(pair_errors(true, true)) == MOST_FRAMES * (MOST_FRAMES - 1) / 2
    assert pair_errors(true, true).max() < 0.5


def test_broken_cameras_are_undefined_not_a_crash():
    true = room_walk(4)[1]
    broken = true.copy()
    broken[2, 0, 0] = np.nan
    assert np.isnan(trajectory_errors(broken, true)).all()


def test_a_minority_of_flying_points_does_not_drag_the_alignment():
    random = np.random.default_rng(0)
    points = random.normal(size=(1000, 3))
    target = ANYWHERE.apply(points)
    points[:100] += random.normal(size=(100, 3)) * 20
    error = np.linalg.norm(align_points(points, target).apply(points[100:]) - target[100:], axis=-1)
    assert error.max() < 0.01


def test_a_missing_part_costs_completeness_not_accuracy():
    scene = reconstruction(5)
    half = dataclasses.replace(scene, depth=scene.depth.copy())
    half.depth[:, :, 8:] = np.nan
    scores = evaluate(half, truth_of(scene))
    assert scores.accuracy < 1e-5
    assert scores.completeness > 1e-3
    assert scores.chamfer == pytest.approx((scores.accuracy + scores.completeness) / 2)


def test_nothing_known_is_undefined():
    scene = reconstruction()
    blind = dataclasses.replace(scene, depth=np.full_like(scene.depth, np.nan))
    scores = evaluate(blind, truth_of(scene))
    assert scores.abs_rel == 1
    assert math.isnan(scores.accuracy)
    assert scores.to_json()["accuracy"] is None


def test_truth_of_the_whole_clip_is_matched_by_index_and_size():
    clip = truth_of(reconstruction(10, height=24, width=32))
    taken = np.array([1, 4, 7])
    scene = reconstruction(10)
    per_frame = ("images", "depth", "confidence", "world_from_camera", "intrinsics", "timestamps")
    arrays = {name: getattr(scene, name)[taken] for name in per_frame}
    few = dataclasses.replace(scene, **arrays, indices=taken, names=("a", "b", "c"))
    scores = evaluate(few, clip)
    assert scores.rotation_deg < 1e-3
    assert scores.abs_rel < 0.03
    with pytest.raises(InputError, match="frame 9"):
        evaluate(dataclasses.replace(few, indices=np.array([1, 4, 9])), clip.select(np.arange(8)))


def test_the_trivial_baseline_is_worse_than_looking_and_knows_nothing():
    scene = reconstruction(8)
    looked, trivial = evaluate(disturbed(scene, 0.05), truth_of(scene)), trivial_scores(scene, truth_of(scene))
    assert trivial.abs_rel > 2 * looked.abs_rel
    assert trivial.rotation_deg > 2 * looked.rotation_deg
    assert trivial.ate > 2 * looked.ate
    assert trivial.accuracy > looked.accuracy
    assert np.unique(trivial_baseline(scene).depth).size == 1
    assert path_length(trivial_baseline(scene).world_from_camera) == 0
