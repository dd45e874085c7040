"""Judging without truth: exact geometry fits its pictures, whatever the world; wrong geometry does not."""

import dataclasses
from functools import cache

import numpy as np
import pytest

from spark3r.examples import FOLDER, load_truth
from spark3r.frames import read_frames
from spark3r.geometry import Similarity, unproject_pixels
from spark3r.metrics import trivial_baseline
from spark3r.metrics.consistency import (
    GAPS,
    Matches,
    consistency,
    epipolar_distances,
    match_features,
    reprojection_distances,
)
from spark3r.reconstruction import Reconstruction
from tests.analytic import reconstruction, turned

FRAMES = 40


@cache
def rendered(name: str = "room_walk") -> Reconstruction:
    """Frames of an example clip as its video shows them, with their exact geometry."""
    frames = read_frames(FOLDER / name / "video.mp4", max_frames=FRAMES, resolution=128)
    truth = load_truth(FOLDER / name, size=frames.images.shape[1:3])
    assert truth is not None
    truth = truth.select(frames.indices)
    scene = reconstruction(FRAMES, *frames.images.shape[1:3])
    arrays = {name: getattr(truth, name) for name in ("depth", "world_from_camera", "intrinsics")}
    return dataclasses.replace(scene, images=frames.images, **arrays)


@cache
def found() -> Matches:
    return match_features(rendered().images)


def with_turned_cameras(scene: Reconstruction, degrees: float) -> Reconstruction:
    random = np.random.default_rng(0)
    cameras = scene.world_from_camera.copy()
    for camera in cameras:
        camera[:3, :3] = camera[:3, :3] @ turned(random.normal(size=3), degrees)
    return dataclasses.replace(scene, world_from_camera=cameras)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["room_walk", "table_orbit"])
def test_the_exact_truth_of_a_video_misses_by_less_than_half_a_pixel(name: str):
    scores = consistency(rendered(name))
    assert scores.epipolar_px < 0.5
    assert scores.reprojection_px < 0.5
    assert scores.below_1px > 0.85
    assert scores.below_1px <= scores.below_2px <= scores.below_4px <= 1
    assert scores.matches > 1000


def test_cameras_turned_by_two_degrees_show():
    exact, off = consistency(rendered(), found()), consistency(with_turned_cameras(rendered(), 2), found())
    assert off.epipolar_px > 5 * exact.epipolar_px
    assert off.epipolar_px > 1
    assert off.reprojection_px > 2
    assert off.below_1px < 0.6 * exact.below_1px


def test_a_wrong_lens_shows_in_the_lines_and_wrong_depth_in_the_reprojection_only():
    scene, exact = rendered(), consistency(rendered(), found())
    lens = scene.intrinsics.copy()
    lens[:, :2, :2] *= 1.3
    assert consistency(dataclasses.replace(scene, intrinsics=lens), found()).epipolar_px > 3 * exact.epipolar_px
    deep = consistency(dataclasses.replace(scene, depth=scene.depth * 1.3), found())
    assert deep.reprojection_px > 3 * exact.reprojection_px
    assert deep.epipolar_px == exact.epipolar_px


@pytest.mark.slow
def test_the_world_does_not_matter():
    moved = rendered().transformed(Similarity(3.7, turned(np.array([3, -1, 2]), 140), np.array([10.0, -4, 6])))
    exact, again = consistency(rendered(), found()), consistency(moved, found())
    assert again.epipolar_px == pytest.approx(exact.epipolar_px, abs=1e-3)
    assert again.reprojection_px == pytest.approx(exact.reprojection_px, abs=1e-3)


def test_standing_still_misses_by_the_whole_motion():
    still = consistency(trivial_baseline(rendered()), found())
    assert still.epipolar_px > 10 * consistency(rendered(), found()).epipolar_px
    assert still.epipolar_px == pytest.approx(still.reprojection_px)


@pytest.mark.slow
def test_matches_join_frames_at_the_gaps_and_are_the_same_each_time():
    gap = found().frames[:, 1] - found().frames[:, 0]
    assert set(gap.tolist()) == set(GAPS)
    assert np.array_equal(match_features(rendered().images).pixels, found().pixels)
    assert found().frames.min() >= 0
    assert found().frames.max() < FRAMES


def test_what_cannot_be_judged_is_undefined():
    lone = consistency(reconstruction(1))
    assert lone.matches == 0
    assert set(lone.to_json().values()) == {0, None}
    blank = dataclasses.replace(reconstruction(3), images=np.full((3, 12, 16, 3), 90, np.uint8))
    assert consistency(blank).matches == 0


def exact_matches(scene: Reconstruction) -> tuple[np.ndarray, np.ndarray]:
    """A point of every frame's middle, and where the next frame sees it: [M, 2] frames, [M, 2, 2] pixels."""
    frames = np.stack((np.arange(len(scene) - 1), np.arange(1, len(scene))), -1)
    row, column = scene.height // 2, scene.width // 2
    here, there = frames.T
    points = unproject_pixels(
        np.array(column), np.array(row), scene.depth[here, row, column],
        scene.intrinsics[here], scene.world_from_camera[here],
    )  # fmt: skip
    camera = np.linalg.inv(scene.world_from_camera.astype(np.float64))[there]
    seen = np.einsum("mij,mj->mi", camera[:, :3, :3], points) + camera[:, :3, 3]
    image = np.einsum("mij,mj->mi", scene.intrinsics[there], seen / seen[:, 2:])
    return frames, np.stack((np.tile([column, row], (len(frames), 1)), image[:, :2]), axis=1)


def test_distances_are_pixels():
    scene = reconstruction(6)
    frames, pixels = exact_matches(scene)
    np.testing.assert_allclose(epipolar_distances(scene, frames, pixels), 0, atol=1e-4)
    pixels = pixels[:1].copy()
    frames = frames[:1]
    sideways = pixels + np.array([[0, 0], [0.0, 3.0]])
    assert 0 < epipolar_distances(scene, frames, sideways)[0] <= 3
    standing = dataclasses.replace(scene, world_from_camera=np.tile(np.eye(4, dtype=np.float32), (6, 1, 1)))
    same = np.repeat(pixels[:, :1], 2, axis=1) + np.array([[0, 0], [3.0, 4.0]])
    assert epipolar_distances(standing, frames, same)[0] == pytest.approx(5)
    assert reprojection_distances(standing, frames, same)[0] == pytest.approx(5)


def test_a_point_behind_the_camera_and_a_camera_that_is_not_finite_miss_altogether():
    scene = reconstruction(3)
    frames, pixels = exact_matches(scene)
    behind = scene.world_from_camera.copy()
    behind[1, :3, :3] = behind[1, :3, :3] @ turned(np.array([0, 1, 0]), 180)
    assert np.isinf(reprojection_distances(dataclasses.replace(scene, world_from_camera=behind), frames, pixels)[0])
    broken = scene.world_from_camera.copy()
    broken[1] = np.nan
    lost = dataclasses.replace(scene, world_from_camera=broken)
    assert np.isinf(epipolar_distances(lost, frames, pixels)).all()
    assert np.isinf(reprojection_distances(lost, frames, pixels)).all()


def test_depth_that_says_nothing_is_left_out():
    scene = dataclasses.replace(reconstruction(3), depth=np.full((3, 12, 16), np.nan, np.float32))
    frames, pixels = exact_matches(reconstruction(3))
    assert np.isnan(reprojection_distances(scene, frames, pixels)).all()
    assert np.isfinite(epipolar_distances(scene, frames, pixels)).all()


@pytest.mark.slow
def test_pictures_of_another_size_find_the_same_places():
    scene = rendered()
    small = Matches(found().frames, (found().pixels + 0.5) / 2 - 0.5, (scene.height // 2, scene.width // 2))
    assert consistency(scene, small).epipolar_px == pytest.approx(consistency(scene, found()).epipolar_px, abs=1e-6)
