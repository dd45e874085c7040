"""compare(): the same conditions for both runs, one world, honest factors."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from spark3r.compare import RunProgress, alignment, compare, cost_row, difference
from spark3r.errors import Cancelled, InputError
from spark3r.geometry import Similarity
from spark3r.metrics.truth import Truth
from spark3r.models.checkpoints import load_model
from spark3r.models.network import Network
from spark3r.reconstruction import Reconstruction
from spark3r.reduction import ReductionSchedule
from tests.analytic import reconstruction, turned

ANYWHERE = Similarity(2.2, turned(np.array([3, -1, 2]), 140), np.array([10.0, -4, 6]))
SCHEDULE = ReductionSchedule(query_factor=2, kv_factor=3)


@pytest.fixture(scope="module")
def network(untrained: Path) -> Network:
    return load_model(untrained, "cpu", "float32")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def comparison(network: Network, images: np.ndarray):
    return compare(images, network, SCHEDULE, resolution=64)


def still(scene: Reconstruction) -> Reconstruction:
    cameras = scene.world_from_camera.copy()
    cameras[:, :3, 3] = cameras[0, :3, 3]
    return dataclasses.replace(scene, world_from_camera=cameras)


@pytest.mark.parametrize("frames", [1, 2, 6])
def test_alignment_undoes_any_similarity(frames):
    scene = reconstruction(frames)
    moved = scene.transformed(ANYWHERE)
    back = moved.transformed(alignment(moved, scene))
    np.testing.assert_allclose(back.world_from_camera, scene.world_from_camera, atol=1e-5)
    np.testing.assert_allclose(back.depth, scene.depth, rtol=1e-5)


def test_alignment_of_a_turning_camera_takes_the_scale_from_depth():
    scene = still(reconstruction(6))
    moved = scene.transformed(ANYWHERE)
    assert alignment(moved, scene).scale == pytest.approx(1 / ANYWHERE.scale, rel=1e-5)


def test_alignment_leaves_out_broken_cameras():
    scene = reconstruction(6)
    moved = scene.transformed(ANYWHERE)
    moved.world_from_camera[2] = np.nan
    np.testing.assert_allclose(alignment(moved, scene).scale, 1 / ANYWHERE.scale, rtol=1e-5)
    moved.world_from_camera[:] = np.nan
    assert alignment(moved, scene).scale == 1


def test_a_result_does_not_differ_from_itself():
    scene = reconstruction(6)
    differences = difference(scene.transformed(ANYWHERE), scene)
    assert (differences.auc_3, differences.auc_30) == pytest.approx((1, 1), abs=1e-4)
    assert max(dataclasses.astuple(dataclasses.replace(differences, auc_3=0, auc_30=0))) < 1e-4


def test_both_runs_stand_in_one_world(comparison):
    dense, reduced = comparison.dense, comparison.reduced
    assert dense.schedule.is_off
    assert reduced.schedule == SCHEDULE
    assert not comparison.dense_reused
    gap = np.linalg.norm(dense.world_from_camera[:, :3, 3].mean(0) - reduced.world_from_camera[:, :3, 3].mean(0))
    assert gap < 1e-4
    assert comparison.difference.abs_rel > 0


def test_the_json_has_the_agreed_keys(comparison):
    content = json.loads(json.dumps(comparison.to_json(), allow_nan=False))
    assert set(content) == {"machine", "rows", "difference", "dense_reused", "consistency"}
    differences = "abs_rel ate ate_relative rotation_deg auc_3 auc_30 chamfer"
    assert list(content["difference"]) == differences.split()
    assert set(content["consistency"]) == {"dense", "reduced"}
    keys = """model policy query_factor kv_factor frames height width dtype device kernel decode_ms preprocess_ms
        encoder_ms frame_attention_ms global_attention_ms matching_ms heads_ms aggregator_ms total_ms peak_bytes
        speedup_aggregator speedup_total"""
    assert all(list(row) == keys.split() for row in content["rows"])
    dense, reduced = content["rows"]
    assert (dense["policy"], dense["speedup_total"], dense["speedup_aggregator"]) == ("dense", 1, 1)
    assert (reduced["policy"], reduced["query_factor"], reduced["kv_factor"]) == ("spark3r", 2, 3)
    assert reduced["speedup_total"] == pytest.approx(dense["total_ms"] / reduced["total_ms"])
    parts = ("frame_attention_ms", "global_attention_ms", "matching_ms")
    assert reduced["aggregator_ms"] == pytest.approx(sum(reduced[part] for part in parts))


def test_a_baseline_is_reused_and_said_to_be(comparison, network, images):
    again = compare(images, network, ReductionSchedule.off(), baseline=comparison.dense, resolution=64)
    assert again.dense_reused
    assert again.dense is comparison.dense
    assert again.difference.abs_rel == pytest.approx(0, abs=1e-6)
    assert again.to_json()["dense_reused"]


@pytest.mark.parametrize("change", ["frames", "model", "dtype", "reduced"])
def test_a_baseline_of_something_else_is_refused(comparison, network, images, change):
    baseline = comparison.reduced if change == "reduced" else comparison.dense
    if change in ("model", "dtype"):
        baseline = dataclasses.replace(baseline, **{change: "another"})
    if change == "frames":
        images = 255 - images
    with pytest.raises(InputError, match="baseline"):
        compare(images, network, SCHEDULE, baseline=baseline, resolution=64)


def test_truth_scores_both_runs(comparison, network, images):
    dense = comparison.dense
    truth = Truth(dense.depth, dense.world_from_camera, dense.intrinsics)
    scored = compare(images, network, SCHEDULE, baseline=dense, truth=truth, resolution=64)
    assert scored.dense_truth is not None
    assert scored.reduced_truth is not None
    assert scored.dense_truth.abs_rel < 1e-5 < scored.reduced_truth.abs_rel
    assert set(scored.to_json()["truth"]) == {"dense", "reduced"}


def test_progress_names_the_run_and_cancel_stops_it(network, images):
    seen: list[RunProgress] = []

    def cancelled() -> bool:
        return any(progress.run == "reduced" for progress in seen)

    with pytest.raises(Cancelled):
        compare(images, network, SCHEDULE, resolution=64, progress=seen.append, cancel=cancelled)
    assert [progress.run for progress in seen[:1] + seen[-1:]] == ["dense", "reduced"]
    assert all(0 <= progress.fraction <= 1 for progress in seen)


def test_no_time_gives_no_factor():
    scene = reconstruction(2)
    free = dataclasses.replace(scene, cost=dataclasses.replace(scene.cost, milliseconds={}))
    row = cost_row(free, scene)
    assert row["speedup_aggregator"] is None
    assert row["total_ms"] == 0
