"""Distances of single points, where they are known in closed form."""

import dataclasses

import numpy as np
import pytest

from spark3r.geometry import Similarity
from spark3r.metrics import alignment_to_truth, depth_difference, point_distances, scene_diagonal
from spark3r.metrics.truth import Truth
from spark3r.reconstruction import Reconstruction
from tests.analytic import HALF_ROOM, reconstruction, turned


@pytest.fixture(scope="module")
def scene() -> Reconstruction:
    return reconstruction(6, 24, 32)


def truth_of(scene: Reconstruction) -> Truth:
    return Truth(scene.depth, scene.world_from_camera, scene.intrinsics)


def test_a_scene_is_nowhere_from_itself_and_its_diagonal_is_that_of_the_room(scene):
    cloud = scene.points(0, 500)
    assert point_distances(cloud, scene, scene).max() == 0
    assert depth_difference(scene, scene, 2).max() == 0
    low, high = np.percentile(scene.points().xyz, [1, 99], axis=0)
    assert scene_diagonal(scene) == pytest.approx(np.linalg.norm(high - low), rel=0.01)
    assert scene_diagonal(scene) <= np.linalg.norm(2 * HALF_ROOM)
    assert scene_diagonal(scene.transformed(Similarity(3.0))) == pytest.approx(3 * scene_diagonal(scene), rel=1e-4)


def test_a_shifted_world_is_as_far_everywhere_as_it_was_shifted(scene):
    shift = np.array([0.3, -0.4, 0.0])
    moved = scene.transformed(Similarity(1.0, np.eye(3), shift))
    distances = point_distances(moved.points(0, 500), moved, scene)
    np.testing.assert_allclose(distances, 0.5 / scene_diagonal(scene), rtol=1e-4)
    assert depth_difference(moved, scene, 0).max() == 0  # the depths themselves did not change


def test_longer_depth_moves_a_point_along_its_ray(scene):
    depth = scene.depth.copy()
    depth[3] *= 1.02
    wrong = dataclasses.replace(scene, depth=depth)
    cloud = wrong.points()
    distances = point_distances(cloud, wrong, scene) * scene_diagonal(scene)
    assert distances[cloud.frame != 3].max() < 1e-6
    in_frame = cloud.frame == 3
    rays = np.linalg.norm(scene.points().xyz[in_frame] - scene.world_from_camera[3, :3, 3], axis=-1)
    np.testing.assert_allclose(distances[in_frame], 0.02 * rays, rtol=1e-3)
    np.testing.assert_allclose(
        depth_difference(wrong, scene, 3), 0.02 * scene.depth[3] / scene_diagonal(scene), rtol=1e-3
    )


def test_error_to_the_truth_does_not_see_the_choice_of_world(scene):
    elsewhere = scene.transformed(Similarity(3.0, turned(np.array([1, 2, 3]), 70), np.array([5.0, -2.0, 1.0])))
    truth = truth_of(scene)
    alignment = alignment_to_truth(elsewhere, truth)
    assert point_distances(elsewhere.points(0, 500), elsewhere, truth, alignment).max() < 1e-4
    assert point_distances(elsewhere.points(0, 500), elsewhere, truth).min() > 0.1


def test_a_truth_of_the_whole_clip_at_another_size_is_matched(scene):
    whole = truth_of(reconstruction(6, 48, 64))
    some = dataclasses.replace(
        scene, **{name: getattr(scene, name)[::3] for name in ("images", "depth", "confidence", "world_from_camera",
                                                               "intrinsics", "timestamps")},
        indices=np.array([0, 3]), names=("a", "b"),
    )  # fmt: skip
    distances = point_distances(some.points(), some, whole, alignment_to_truth(some, whole))
    assert np.median(distances) < 0.01


def test_what_the_reference_does_not_know_is_not_a_number(scene):
    hole = scene.depth.copy()
    hole[1, :5] = np.nan
    reference = dataclasses.replace(scene, depth=hole)
    cloud = scene.points()
    unknown = (cloud.frame == 1) & (cloud.pixel < 5 * scene.width)
    assert np.array_equal(np.isnan(point_distances(cloud, scene, reference)), unknown)
    assert np.isnan(depth_difference(scene, reference, 1)[:5]).all()
    assert np.isfinite(depth_difference(scene, reference, 1)[5:]).all()
