"""Unseen clips: one path at every length, and the training stream as it always was."""

import numpy as np
import pytest

from spark3r.synthetic import paths, sequences
from spark3r.training.config import VALIDATION_SEED


def test_a_denser_clip_walks_the_same_path() -> None:
    take = sequences.plan(VALIDATION_SEED + 7, 32, 0.8)
    sparse, dense = take.resampled(32).walk, take.resampled(120).walk
    np.testing.assert_array_equal(sparse.world_from_camera(), take.walk.world_from_camera())
    np.testing.assert_array_equal(sparse.world_from_camera()[[0, -1]], dense.world_from_camera()[[0, -1]])
    step = np.linalg.norm(np.diff(sparse.position, axis=0), axis=1).max()
    away = np.linalg.norm(dense.position[:, None] - sparse.position[None], axis=-1).min(1)
    assert away.max() < step
    assert np.linalg.norm(np.diff(dense.position, axis=0), axis=1).max() < 0.5 * step


def test_the_light_goes_with_the_path() -> None:
    take = sequences.plan(VALIDATION_SEED + 7, 32, 0.8)
    dense = take.resampled(125)  # 4 steps for each of the 31
    np.testing.assert_allclose(dense.exposure[::4], take.exposure)
    np.testing.assert_allclose(dense.balance[::4], take.balance)
    assert dense.field_of_view == take.field_of_view


def test_a_straight_course_stays_straight_and_one_frame_stays_one_view() -> None:
    time = np.linspace(0, 1, 9)
    line = np.stack([3 * time, 1 - time], -1)
    np.testing.assert_allclose(paths.resampled(line, 33)[:, 0], 3 * np.linspace(0, 1, 33))
    assert (paths.resampled(line[:1], 4) == line[0]).all()
    assert paths.resampled(line, 1).tolist() == [line[0].tolist()]


def test_training_clips_are_what_they_were() -> None:
    clips = sequences.sample(123456, 1, 6, 24, 32, breadth=0.63)
    first, last = clips.world_from_camera[0, [0, -1], :3, 3].tolist()
    assert first == pytest.approx([-1.1165093183517456, -0.14214353263378143, 1.615194320678711], rel=1e-6)
    assert last == pytest.approx([-0.2912434935569763, 0.06365104764699936, 1.6238377094268799], rel=1e-6)
    assert clips.intrinsics[0, 0, 0, 0].item() == pytest.approx(28.854398727416992, rel=1e-6)
    assert clips.images.mean().item() == pytest.approx(0.7578524947166443, rel=1e-4)
    assert clips.depth.mean().item() == pytest.approx(2.7020816802978516, rel=1e-4)
