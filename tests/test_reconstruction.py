"""The result keeps its bits through a file, and its one filter keeps its promises."""

import dataclasses
import itertools
import time

import numpy as np
import pytest

from spark3r.errors import InputError
from spark3r.geometry import Similarity
from spark3r.reconstruction import Cost, PointCloud, Reconstruction, even_shares
from tests.analytic import HALF_ROOM, reconstruction, turned

PER_FRAME = (
    "images",
    "depth",
    "confidence",
    "world_from_camera",
    "intrinsics",
    "indices",
    "timestamps",
)


def identities(cloud: PointCloud) -> set[tuple[int, int]]:
    return set(zip(cloud.frame.tolist(), cloud.pixel.tolist(), strict=True))


def test_saving_and_loading_changes_no_bit(tmp_path):
    scene = reconstruction()
    scene.save(tmp_path / "new folder" / "scene.npz")
    loaded = Reconstruction.load(tmp_path / "new folder" / "scene.npz")
    for name in (field.name for field in dataclasses.fields(scene)):
        before, after = getattr(scene, name), getattr(loaded, name)
        if isinstance(before, np.ndarray):
            assert before.dtype == after.dtype, name
            assert np.array_equal(before, after), name
        else:
            assert before == after, name
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["scene.npz"]


def test_the_file_needs_no_pickle(tmp_path):
    reconstruction().save(tmp_path / "scene.npz")
    with np.load(tmp_path / "scene.npz", allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)


@pytest.mark.parametrize("content", [None, b"", b"not a zip", "npz of something else", "cut short"])
def test_foreign_and_damaged_files_are_told_in_a_sentence(tmp_path, content):
    path = tmp_path / "scene.npz"
    if content == "npz of something else":
        np.savez(path, other=np.zeros(3))
    elif content == "cut short":
        reconstruction().save(path)
        path.write_bytes(path.read_bytes()[:2000])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"scene\.npz"):
        Reconstruction.load(path)


def test_wrong_shapes_and_types_are_refused_by_name():
    scene = reconstruction()
    with pytest.raises(InputError, match="confidence"):
        dataclasses.replace(scene, confidence=scene.confidence[:, :-1])
    with pytest.raises(InputError, match="world_from_camera"):
        dataclasses.replace(scene, world_from_camera=scene.world_from_camera.astype(np.float64))
    with pytest.raises(InputError, match="names"):
        dataclasses.replace(scene, names=("one",))


def test_points_of_a_perfect_result_lie_on_the_walls_and_carry_their_pixel():
    scene = reconstruction()
    cloud = scene.points()
    assert len(cloud) == scene.depth.size
    assert np.abs(cloud.xyz / HALF_ROOM).max(-1) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(cloud.rgb, scene.images.reshape(len(scene), -1, 3)[cloud.frame, cloud.pixel])
    assert np.array_equal(cloud.depth, scene.depth.reshape(len(scene), -1)[cloud.frame, cloud.pixel])
    dtypes = [getattr(cloud, field.name).dtype for field in dataclasses.fields(cloud)]
    assert dtypes == ["float32", "uint8", "float32", "float32", "int32", "int64"]


@pytest.mark.parametrize("percentile", [0, 25, 90, 100])
def test_the_percentile_keeps_that_share_of_the_clip(percentile):
    scene = reconstruction(frames=5)
    cloud = scene.points(percentile)
    assert len(cloud) == pytest.approx(scene.depth.size * (1 - percentile / 100), abs=1)
    if percentile:
        assert cloud.confidence.min() >= np.percentile(scene.confidence, percentile)


@pytest.mark.parametrize("budget", [1, 3, 7, 100, 501, 10**9])
def test_the_budget_is_met_evenly_and_repeatably(budget):
    scene = reconstruction(frames=7)
    cloud, again = scene.points(30, budget), scene.points(30, budget)
    everything = scene.points(30)
    assert len(cloud) == min(budget, len(everything))
    assert identities(cloud) == identities(again) <= identities(everything)
    if budget < 501:
        counts = np.bincount(cloud.frame, minlength=7)
        assert counts.max() - counts.min() <= 1


def test_a_larger_budget_adds_to_what_is_shown():
    scene = reconstruction(frames=7)
    clouds = [identities(scene.points(30, budget)) for budget in (2, 5, 20, 23, 200, 700)]
    for smaller, larger in itertools.pairwise(clouds):
        assert smaller < larger


def test_what_is_not_finite_or_not_in_front_drops_out():
    scene = reconstruction(frames=6)
    bad = dataclasses.replace(scene, depth=scene.depth.copy(), confidence=scene.confidence.copy(),
                              world_from_camera=scene.world_from_camera.copy(),
                              intrinsics=scene.intrinsics.copy())  # fmt: skip
    bad.depth[0, 0, :5] = [np.nan, np.inf, -1, 0, 3e38]
    bad.confidence[1, 0, :2] = [np.nan, np.inf]
    bad.world_from_camera[2, 0, 0] = np.nan
    bad.intrinsics[3, 0, 0] = 0
    cloud = bad.points(max_points=100_000)
    assert np.isfinite(cloud.xyz).all()
    pixels = scene.height * scene.width
    assert np.bincount(cloud.frame, minlength=6).tolist() == [pixels - 5, pixels - 2, 0, 0, pixels, pixels]
    assert len(bad.points(100)) == 1


def test_nothing_usable_gives_an_empty_cloud():
    scene = reconstruction()
    cloud = dataclasses.replace(scene, depth=np.full_like(scene.depth, np.nan)).points(50, 10)
    assert len(cloud) == 0
    assert cloud.xyz.shape == (0, 3)


@pytest.mark.parametrize("percentile", [-1, 101, float("nan")])
def test_illegal_percentiles_are_refused(percentile):
    with pytest.raises(InputError, match="min_confidence_percentile"):
        reconstruction().points(percentile)


def test_an_empty_budget_is_refused():
    with pytest.raises(InputError, match="max_points=0"):
        reconstruction().points(max_points=0)


@pytest.mark.parametrize("seed", range(20))
def test_even_shares_are_as_level_as_the_frames_allow(seed):
    random = np.random.default_rng(seed)
    available = random.integers(0, 30, size=random.integers(1, 9))
    budget = int(random.integers(1, 150))
    shares = even_shares(available, budget)
    assert shares.sum() == min(budget, available.sum())
    assert (shares <= available).all()
    assert (shares >= 0).all()
    giving_less = shares[shares < available]
    assert giving_less.size == 0 or shares.max() - giving_less.min() <= 1


def test_transformed_moves_the_points_and_nothing_else():
    scene = reconstruction()
    similarity = Similarity(2.5, turned(np.array([1, 2, 3]), 50), np.array([1.0, -2, 3]))
    moved = scene.transformed(similarity)
    np.testing.assert_allclose(moved.points().xyz, similarity.apply(scene.points().xyz), atol=1e-5)
    back = moved.transformed(similarity.inverse())
    np.testing.assert_allclose(back.depth, scene.depth, rtol=1e-6)
    np.testing.assert_allclose(back.world_from_camera, scene.world_from_camera, atol=1e-6)
    assert moved.names == scene.names
    assert moved.cost == scene.cost


def test_three_hundred_frames_filter_in_a_blink():
    few = reconstruction(frames=3, height=96, width=128)
    tiled = {name: np.concatenate([getattr(few, name)] * 100) for name in PER_FRAME}
    scene = dataclasses.replace(few, **tiled, names=few.names * 100)
    scene.points(40, 1000)
    start = time.perf_counter()
    cloud = scene.points(40, 500_000)
    assert len(cloud) == 500_000
    assert time.perf_counter() - start < 2


def test_aggregator_time_is_the_part_the_method_changes():
    times = {"encoder": 1.0, "frame_attention": 2.0, "global_attention": 4.0, "matching": 8.0, "heads": 16.0}
    cost = Cost(times | {"total": 40.0}, 0, 1, 1, 1)
    assert cost.aggregator_ms == 14
    assert cost.total_ms == 40
