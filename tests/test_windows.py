"""Long clips by windows: exact parts join to the exact whole, and a run by windows is the sum of its runs."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from spark3r import InputError, ReductionSchedule, estimate, reconstruct
from spark3r.compare import compare
from spark3r.frames import Frames
from spark3r.geometry import Similarity
from spark3r.inference import Progress
from spark3r.metrics import evaluate
from spark3r.metrics.truth import Truth
from spark3r.models.checkpoints import load_model
from spark3r.models.network import Network
from spark3r.reconstruction import Reconstruction
from spark3r.windows import joined, spans
from tests.analytic import reconstruction, turned


@pytest.fixture(scope="module")
def network(untrained) -> Network:
    return load_model(untrained, "cpu", "float32")


def clip(frames: int) -> Frames:
    images = np.random.default_rng(0).integers(0, 256, (frames, 24, 32, 3), dtype=np.uint8)
    return Frames(images, np.arange(frames) * 2, np.arange(frames) / 10, tuple(map(str, range(frames))), "x", (), 7.0)


@pytest.mark.parametrize(
    ("frames", "window", "overlap", "starts"),
    [
        (5, 12, 4, [0]),
        (12, 12, 4, [0]),
        (13, 12, 4, [0, 1]),
        (20, 12, 4, [0, 8]),
        (21, 12, 4, [0, 8, 9]),
        (300, 100, 20, [0, 80, 160, 200]),
        (6, 2, 1, [0, 1, 2, 3, 4]),
        (9, 4, 3, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_windows_cover_the_clip_and_share_what_they_should(frames: int, window: int, overlap: int, starts: list[int]):
    windows = spans(frames, window, overlap)
    assert [one.start for one in windows] == starts
    assert all(one.stop - one.start == min(window, frames) for one in windows)
    assert windows[-1].stop == frames
    assert all(before.stop - after.start >= overlap for before, after in pairwise(windows))


def part_of(whole: Reconstruction, window: slice, number: int) -> Reconstruction:
    """A window as a model gives it: in a world of its own."""
    per_frame = ("images", "depth", "confidence", "world_from_camera", "intrinsics", "indices", "timestamps", "names")
    part = dataclasses.replace(whole, **{name: getattr(whole, name)[window] for name in per_frame})
    random = np.random.default_rng(number)
    turn = turned(random.normal(size=3), 100 * random.random())
    anywhere = Similarity(float(np.exp(random.normal())), turn, random.normal(size=3))
    return part if number == 0 else part.transformed(anywhere)


def parts_of(whole: Reconstruction, windows: list[slice]) -> list[Reconstruction]:
    return [part_of(whole, window, number) for number, window in enumerate(windows)]


def truth_of(scene: Reconstruction) -> Truth:
    return Truth(scene.depth, scene.world_from_camera, scene.intrinsics)


@pytest.mark.parametrize(("window", "overlap"), [(12, 4), (5, 1), (4, 3), (29, 2)])
def test_exact_windows_join_to_the_exact_clip(window: int, overlap: int):
    whole = reconstruction(30)
    windows = spans(30, window, overlap)
    scene = joined(parts_of(whole, windows), windows)
    np.testing.assert_allclose(scene.world_from_camera, whole.world_from_camera, atol=1e-3)
    np.testing.assert_allclose(scene.depth, whole.depth, rtol=1e-3)
    assert np.array_equal(scene.images, whole.images)
    assert np.array_equal(scene.confidence, whole.confidence)
    assert np.array_equal(scene.indices, whole.indices)
    assert scene.names == whole.names


def test_a_shared_frame_gone_astray_does_not_bend_the_rest():
    whole, windows = reconstruction(20), spans(20, 12, 4)
    parts = parts_of(whole, windows)
    astray = parts[1].world_from_camera.copy()
    astray[3, :3, :3] = turned(np.array([1, 2, 0]), 60) @ astray[3, :3, :3]  # the last that both see
    astray[3, :3, 3] += 5
    depth = parts[1].depth.copy()
    depth[3] *= 9
    parts[1] = dataclasses.replace(parts[1], world_from_camera=astray, depth=depth)
    scene = joined(parts, windows)
    good = np.arange(20) != 11
    np.testing.assert_allclose(scene.world_from_camera[good], whole.world_from_camera[good], atol=0.02)
    np.testing.assert_allclose(scene.depth[good], whole.depth[good], rtol=0.01)


def test_windows_with_cameras_that_are_not_finite_still_join():
    whole, windows = reconstruction(20), spans(20, 12, 4)
    parts = parts_of(whole, windows)
    broken = parts[1].world_from_camera.copy()
    broken[0] = np.nan
    scene = joined([parts[0], dataclasses.replace(parts[1], world_from_camera=broken)], windows)
    np.testing.assert_allclose(scene.world_from_camera, whole.world_from_camera, atol=1e-3)
    parts[1] = dataclasses.replace(parts[1], world_from_camera=np.full_like(broken, np.nan))
    assert np.isfinite(joined(parts, windows).depth).all()


@pytest.mark.slow
def test_each_frame_is_the_one_its_own_window_saw(network: Network):
    """Frame by frame the depth of a run by windows is that of the window's own run, up to the joint's scale."""
    frames = clip(11)
    scene = reconstruct(frames, network, "chunked:5+2")
    assert len(scene) == 11
    assert scene.schedule == ReductionSchedule(window=5, overlap=2)
    assert scene.names == frames.names
    assert np.array_equal(scene.indices, frames.indices)
    alone = [reconstruct(frames.select(window), network, None) for window in spans(11, 5, 2)]
    np.testing.assert_array_equal(scene.depth[:4], alone[0].depth[:4])
    ratio = scene.depth[7:] / alone[2].depth[1:]
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-4)
    np.testing.assert_array_equal(scene.confidence[7:], alone[2].confidence[1:])
    np.testing.assert_array_equal(scene.intrinsics[4:7], alone[1].intrinsics[1:4])


def test_a_clip_that_fits_one_window_is_one_pass(network: Network):
    frames = clip(5)
    scene, plain = reconstruct(frames, network, "chunked:5+2"), reconstruct(frames, network, None)
    assert np.array_equal(scene.depth, plain.depth)


@pytest.mark.slow
def test_arguments_and_words_mean_the_same(network: Network):
    frames = clip(9)
    assert reconstruct(frames, network, None, window=5).schedule.word == "chunked:5+1"
    by_argument = reconstruct(frames, network, "2x3", window=5, overlap=2)
    by_word = reconstruct(frames, network, "chunked:5+2:2x3")
    assert by_argument.schedule == by_word.schedule
    assert np.array_equal(by_argument.depth, by_word.depth)
    with pytest.raises(InputError, match="without a window"):
        reconstruct(frames, network, None, overlap=2)
    with pytest.raises(InputError, match="overlap=5"):
        reconstruct(frames, network, None, window=5, overlap=5)


def test_progress_grows_over_all_windows_and_costs_add_up(network: Network):
    told: list[Progress] = []
    scene = reconstruct(clip(11), network, "chunked:5+2", progress=told.append)
    fractions = [now.fraction for now in told]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] < 0.2
    assert 0.8 < fractions[-1] <= 1
    elapsed = [now.elapsed_ms for now in told]
    assert elapsed == sorted(elapsed)
    assert scene.cost.milliseconds["decode"] == 7
    stages = sum(ms for stage, ms in scene.cost.milliseconds.items() if stage != "total")
    assert stages <= scene.cost.total_ms * 1.01
    assert scene.cost.tokens == network.trunk.layout(5, network.grid(*scene.depth.shape[1:])).total


@pytest.mark.slow
def test_a_run_by_windows_can_be_compared_and_evaluated(network: Network):
    frames = clip(9)
    comparison = compare(frames, network, "chunked:5+2")
    assert comparison.to_json()["rows"][1]["policy"] == "chunked"
    assert len(comparison.reduced) == 9
    assert np.isfinite(evaluate(comparison.reduced, truth_of(comparison.dense)).abs_rel)


def test_memory_is_asked_for_one_window_and_the_whole_result(network: Network):
    whole = estimate(network, 1000, 96, 128, None)
    windowed = estimate(network, 1000, 96, 128, "chunked:50+10")
    assert windowed.tokens * 20 == whole.tokens
    assert windowed.needed_bytes < 0.5 * whole.needed_bytes
    assert windowed.needed_bytes >= 1000 * 96 * 128 * 11
