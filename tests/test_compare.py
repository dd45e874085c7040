"""compare(): the same conditions for both runs, one world, honest factors."""

import dataclasses
import itertools
import json
import math
import operator
import statistics
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spark3r.compare import Comparison, Run, RunProgress, alignment, compare, cost_row, difference, result, sweep, turns
from spark3r.errors import Cancelled, InputError
from spark3r.frames import Frames
from spark3r.geometry import Similarity
from spark3r.kernels import torch_kernel
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
    alike = {"delta_1_25": 1.0, "auc_3": 1.0, "auc_30": 1.0}
    assert {name: getattr(differences, name) for name in alike} == pytest.approx(alike, abs=1e-4)
    assert max(dataclasses.astuple(dataclasses.replace(differences, **dict.fromkeys(alike, 0.0)))) < 1e-4


def test_both_runs_stand_in_one_world(comparison):
    dense, reduced = comparison.dense, comparison.reduced
    assert dense.schedule.is_off
    assert reduced.schedule == SCHEDULE
    assert not comparison.runs["dense"].reused
    gap = np.linalg.norm(dense.world_from_camera[:, :3, 3].mean(0) - reduced.world_from_camera[:, :3, 3].mean(0))
    assert gap < 1e-4
    assert comparison.difference.abs_rel > 0


def test_the_json_has_the_agreed_keys(comparison):
    content = json.loads(json.dumps(comparison.to_json(), allow_nan=False))
    assert set(content) >= {"machine", "rows", "difference", "dense_reused", "consistency"}
    differences = "abs_rel delta_1_25 ate ate_relative rotation_deg auc_3 auc_30 chamfer"
    assert list(content["difference"]) == differences.split()
    assert set(content["consistency"]) == {"dense", "reduced"}
    keys = """model policy query_factor kv_factor frames height width dtype device kernel decode_ms preprocess_ms
        encoder_ms frame_attention_ms global_attention_ms matching_ms heads_ms aggregator_ms total_ms peak_bytes
        speedup_aggregator speedup_total"""
    assert all(list(row)[: len(keys.split())] == keys.split() for row in content["rows"])
    dense, reduced = content["rows"]
    assert (dense["policy"], dense["speedup_total"], dense["speedup_aggregator"]) == ("dense", 1, 1)
    assert (reduced["policy"], reduced["query_factor"], reduced["kv_factor"]) == ("spark3r", 2, 3)
    for key, samples in (("total", operator.attrgetter("total")), ("aggregator", operator.attrgetter("aggregator"))):
        pairs = zip(samples(comparison.runs["dense"]).values, samples(comparison.run()).values, strict=True)
        assert reduced[f"speedup_{key}"] == statistics.median(dense / reduced for dense, reduced in pairs)
    assert reduced["speedup_total_range"][0] <= reduced["speedup_total"] <= reduced["speedup_total_range"][1]
    assert reduced["flops"]["total"] < dense["flops"]["total"]
    assert reduced["speedup_arithmetic"] == dense["flops"]["total"] / reduced["flops"]["total"]


@dataclasses.dataclass
class Machine:
    """Stands in for clock, product and network: runs take invented seconds, at an invented speed."""

    seconds: dict[str, Iterator[float]]  # of dense and reduced runs, in order
    speeds: Iterator[float] = dataclasses.field(default_factory=lambda: itertools.repeat(1e9))
    alike_ms: float = 100.0  # what the stages take that no schedule changes
    now: float = 0.0
    ran: list[str] = dataclasses.field(default_factory=list)

    def perf_counter(self) -> float:
        return self.now

    monotonic = perf_counter

    def reconstruct(self, frames: Frames, network: Network, schedule: ReductionSchedule, **how: Any) -> Reconstruction:
        scene = reconstruction(len(frames))
        if len(frames) == turns.WARM_UP_FRAMES:
            return scene
        name = "dense" if schedule.is_off else "reduced"
        self.ran.append(name)
        seconds = next(self.seconds[name])
        self.now += seconds
        times = {"encoder": self.alike_ms, "global_attention": 900.0 * seconds, "total": 1e3 * seconds}
        cost = dataclasses.replace(scene.cost, milliseconds=times)
        return dataclasses.replace(scene, cost=cost, schedule=schedule, images=frames.images)

    def reference_speed(self, *about: Any) -> float:
        return next(self.speeds)


@pytest.fixture
def invented(monkeypatch: pytest.MonkeyPatch, network: Network) -> Callable[..., Comparison]:
    """compare() on a machine of one's own; `machine.ran` tells what was run."""
    monkeypatch.setattr(turns, "_FASTEST", {})

    def run(machine: Machine, **how: Any) -> Comparison:
        monkeypatch.setattr(turns, "PATIENCE_SECONDS", 10.0)
        monkeypatch.setattr(turns, "time", machine)
        monkeypatch.setattr(turns, "seconds_choosing", lambda: 7.0)  # what this process spent before is nobody's time
        monkeypatch.setattr(turns, "reconstruct", machine.reconstruct)
        monkeypatch.setattr(turns, "reference_speed", machine.reference_speed)
        monkeypatch.setattr(result, "count_flops", lambda *about: {"encoder": 1.0, "heads": 1.0})
        shape = reconstruction(5).images.shape
        return compare(np.zeros(shape, np.uint8), network, SCHEDULE, **how)

    return run


def machine(dense: Iterable[float], reduced: Iterable[float], **how: Any) -> Machine:
    return Machine({"dense": iter(dense), "reduced": iter(reduced)}, **how)


def test_short_runs_take_turns_three_times(invented):
    here = machine([2.0, 2.1, 2.05], [1.0, 1.0, 1.01])
    found = invented(here)
    assert here.ran == ["dense", "reduced"] * 3
    total = found.total_factor()
    assert total.median == pytest.approx(2.05 / 1.01)
    assert (total.low, total.high) == pytest.approx((2.0, 2.1))
    assert found.runs["dense"].cost.total_ms == 2050
    assert not found.busy


def test_what_spreads_is_measured_on_until_its_mean_is_sure(invented):
    """One of three ratios apart: after five turns the outer ones are left out, after eight it weighs little."""
    here = machine([0.5, 0.5, 0.59, *[0.5] * 9], itertools.repeat(0.25))
    found = invented(here)
    assert here.ran == ["dense", "reduced"] * 8
    assert found.total_factor().uncertainty <= turns.SURE


def test_what_spreads_little_and_is_unsure_all_the_same_is_measured_on(invented):
    here = machine(itertools.cycle([0.5, 0.53, 0.56]), itertools.repeat(0.25))
    found = invented(here)
    assert here.ran.count("dense") > turns.LEAST_TURNS
    assert found.total_factor().spread < turns.ENOUGH_SPREAD
    assert found.total_factor().uncertainty <= turns.SURE


def test_what_never_holds_ends_with_patience_and_is_told_as_busy(invented):
    here = machine(itertools.cycle([1.0, 2.0]), itertools.repeat(0.5))
    assert invented(here).busy
    assert 10 <= here.now < 14


def test_long_runs_are_measured_once(invented):
    here = machine([4.5], [0.6])
    invented(here)
    assert here.ran == ["dense", "reduced"]


def test_repeats_are_as_many_as_asked(invented):
    here = machine([40.0] * 2, [0.6, 30.0])
    found = invented(here, repeats=2)
    assert here.ran == ["dense", "reduced"] * 2
    assert found.row()["repeats"] == 2


def test_a_machine_far_from_its_best_is_told_as_busy_however_evenly_it_works(invented):
    assert not invented(machine([8.0], [4.0], speeds=itertools.repeat(0.5e9))).busy  # it is no faster, for all we know
    assert not invented(machine([4.0], [2.0])).busy
    assert invented(machine([8.0], [4.0], speeds=itertools.repeat(0.5e9))).busy


def test_measuring_again_adds_to_what_was_measured(invented):
    first = invented(machine([2.0, 2.06, 2.04], [1.0] * 3))
    earlier = {name: run.measured for name, run in first.runs.items()}
    here = machine([2.1, 2.0, 2.08], [1.0] * 3)
    found = invented(here, earlier=earlier)
    assert here.ran == ["dense", "reduced"] * 3
    assert found.runs["dense"].total.values == (2000, 2060, 2040, 2100, 2000, 2080)
    assert (found.runs["dense"].turns, len(found.run().measured)) == (3, 6)
    assert found.total_factor().median == pytest.approx(2.05)


def test_what_a_slower_machine_measured_does_not_count_on(invented):
    slow = invented(machine([4.0] * 3, [2.0] * 3, speeds=itertools.repeat(0.5e9)))
    found = invented(machine([2.0] * 3, [1.0] * 3), earlier={name: run.measured for name, run in slow.runs.items()})
    assert found.runs["dense"].total.values == (2000, 2000, 2000)


def test_what_was_not_measured_in_the_same_turns_does_not_count_on(invented):
    """The dense run was measured anew beside another schedule: its times are no pairs with those of the first."""
    first = invented(machine([2.0] * 3, [1.0] * 3))
    second = invented(machine([4.0] * 3, [1.0] * 3), baseline=first.runs["dense"])
    earlier = {"dense": second.runs["dense"].measured, "reduced": first.run().measured}
    found = invented(machine([3.0] * 3, [1.0] * 3), earlier=earlier)
    assert found.runs["dense"].total.values == (3000, 3000, 3000)


def test_a_reused_time_makes_no_pairs(invented):
    dense = invented(machine([1.0, 1.06, 1.12], [0.5] * 3), repeats=3).runs["dense"]
    found = invented(machine([], [0.5, 0.52, 0.48]), baseline=dense, retime_baseline=False, repeats=3)
    total = found.total_factor()
    assert (total.low, total.high) == pytest.approx((1.0 / 0.52, 1.12 / 0.48))  # of all with all


def test_turns_count_on_in_pairs_and_only_the_latest(invented):
    first = invented(machine([1.0] * 14, [0.5] * 14), repeats=14)
    earlier = {name: run.measured for name, run in first.runs.items()}
    found = invented(machine([1.0] * 3, [0.5] * 3), earlier=earlier)
    assert len(found.runs["dense"].measured) == turns.MOST_CARRIED + 3
    alone = invented(machine([1.0] * 3, [0.5] * 3), earlier={"dense": earlier["dense"]})
    assert len(alone.runs["dense"].measured) == 3


def test_a_drifting_machine_is_told_as_busy(invented):
    here = machine(
        itertools.repeat(1.0), itertools.repeat(0.5), speeds=itertools.chain([1e9] * 4, itertools.repeat(0.8e9))
    )
    assert invented(here).busy


def test_a_short_baseline_is_timed_anew_and_a_long_one_reused(invented):
    first = invented(machine([1.0] * 3, [0.5] * 3))
    again = machine([2.0] * 3, [0.5] * 3)
    found = invented(again, baseline=first.runs["dense"])
    assert again.ran == ["dense", "reduced"] * 3
    assert found.dense is first.dense
    assert found.total_factor().median == 4.0
    kept = machine([], [0.5] * 3)
    assert invented(kept, baseline=first.runs["dense"], retime_baseline=False).total_factor().median == 2.0
    long = invented(machine([60.0], [5.0])).runs["dense"]
    once = machine([], [5.0])
    found = invented(once, baseline=long)
    assert once.ran == ["reduced"]
    assert found.runs["dense"].reused
    assert found.to_json()["dense_reused"]


@pytest.mark.parametrize(("speed", "alike_ms", "doubted"), [(1e9, 105, False), (0.8e9, 100, True), (1e9, 125, True)])
def test_a_reused_time_is_divided_only_while_the_speed_agrees(invented, speed, alike_ms, doubted):
    """By the reference product, and by the stages that do the same work in both runs."""
    baseline = invented(machine([60.0], [60.0])).runs["dense"]
    here = machine([], [60.0], speeds=itertools.repeat(speed), alike_ms=alike_ms)
    found = invented(here, baseline=baseline)
    assert bool(found.doubt()) is doubted
    assert (found.total_factor() is None) is doubted
    assert (found.row()["speedup_total"] is None) is doubted
    if doubted:
        assert "25 % slower" in found.doubt()


def test_every_second_is_accounted_for(invented):
    here = machine([1.0] * 3, [0.5] * 3)
    told: list[Run] = []
    found = invented(here, finished=told.append)
    assert found.seconds["dense"] >= 0
    assert list(found.seconds) == ["reading", "warm-up", "speed checks", "dense", "scores", "reduced"]
    assert [(run.name, len(run.measured)) for run in told] == [
        ("dense", 1), ("reduced", 1), ("dense", 2), ("reduced", 2), ("dense", 3), ("reduced", 3)
    ]  # fmt: skip


@pytest.mark.slow
def test_the_warm_up_happens_once_for_each_size_and_schedule(network, images, monkeypatch):
    lengths = []
    real = turns.reconstruct

    def watched(frames: Frames, *about: Any, **how: Any) -> Reconstruction:
        lengths.append(len(frames))
        return real(frames, *about, **how)

    monkeypatch.setattr(turns, "reconstruct", watched)
    schedule = ReductionSchedule(query_factor=5, kv_factor=3)
    for _ in range(2):
        compare(images, network, schedule, resolution=48, repeats=1)
    assert lengths == [2, 2, 5, 5, 5, 5]


def test_the_warm_up_can_be_stopped_and_is_told(network, images):
    seen: list[RunProgress] = []
    with pytest.raises(Cancelled):
        compare(images, network, ReductionSchedule(6, 3), resolution=32, progress=seen.append, cancel=lambda: seen)  # pyright: ignore[reportArgumentType]
    assert {progress.phase for progress in seen} == {"warm-up"}


@pytest.mark.slow
def test_several_schedules_stand_beside_each_other(network, images):
    schedules = {"gentle": SCHEDULE, "hard": ReductionSchedule(5, 5)}
    found = compare(images, network, schedules, resolution=64, repeats=1)
    assert list(found.runs) == ["dense", "gentle", "hard"]
    assert found.differences["gentle"].abs_rel != found.differences["hard"].abs_rel
    assert [row["name"] for row in found.to_json()["rows"]] == ["dense", "gentle", "hard"]
    with pytest.raises(InputError, match="which is always run"):
        compare(images, network, {"dense": SCHEDULE}, resolution=64)


@pytest.mark.slow
def test_the_time_of_a_run_is_expected_from_the_last_one(network, images, comparison):
    seen: list[RunProgress] = []
    compare(images, network, SCHEDULE, resolution=64, repeats=1, progress=seen.append)
    assert all(progress.expected_ms > 0 for progress in seen if progress.phase == "run")  # pyright: ignore[reportOptionalOperand]


@pytest.mark.slow
def test_a_sweep_yields_the_fastest_first_and_measures_dense_once(network, images, monkeypatch):
    asked: list[bool] = []
    real = turns.reconstruct

    def watched(frames: Frames, network: Network, schedule: ReductionSchedule, **how: Any) -> Reconstruction:
        asked.append(schedule.is_off and len(frames) == len(images))
        return real(frames, network, schedule, **how)

    monkeypatch.setattr(turns, "reconstruct", watched)
    monkeypatch.setattr(turns, "reference_speed", lambda *about: 1e9)
    monkeypatch.setattr(result, "STEADY", math.inf)
    points = sweep(images, network, (1, 2), (1, 3), resolution=64, repeats=1)
    found = [next(points), *points]
    factors = [(point.reduced.schedule.query_factor, point.reduced.schedule.kv_factor) for point in found]
    assert factors == [(2, 3), (2, 1), (1, 3)]
    assert sum(asked) == 1
    assert found[1].reduced.schedule.at(0) == (2, 1)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["frames", "model", "dtype", "reduced"])
def test_a_baseline_of_something_else_is_refused(comparison, network, images, change):
    baseline = comparison.runs["reduced" if change == "reduced" else "dense"]
    if change in ("model", "dtype"):
        baseline = dataclasses.replace(baseline, scene=dataclasses.replace(baseline.scene, **{change: "another"}))
    if change == "frames":
        images = 255 - images
    with pytest.raises(InputError, match="baseline"):
        compare(images, network, SCHEDULE, baseline=baseline, resolution=64)


@pytest.mark.slow
def test_another_kernel_is_another_condition_only_where_one_is_forced(comparison, network, images):
    dense = comparison.runs["dense"]
    baseline = dataclasses.replace(dense, scene=dataclasses.replace(dense.scene, kernel="the fastest for its sizes"))
    assert compare(images, network, SCHEDULE, baseline=baseline, resolution=64, retime_baseline=False).runs
    with torch_kernel(), pytest.raises(InputError, match="the baseline has kernel the fastest for its sizes"):
        compare(images, network, SCHEDULE, baseline=baseline, resolution=64, retime_baseline=False)


@pytest.mark.slow
def test_truth_scores_both_runs(comparison, network, images):
    dense = comparison.dense
    truth = Truth(dense.depth, dense.world_from_camera, dense.intrinsics)
    scored = compare(images, network, SCHEDULE, baseline=comparison.runs["dense"], truth=truth, resolution=64)
    assert scored.truth["dense"].abs_rel < 1e-5 < scored.truth["reduced"].abs_rel
    assert set(scored.to_json()["truth"]) == {"dense", "reduced"}


def test_scores_may_be_left_for_later(comparison, network, images):
    bare = compare(images, network, SCHEDULE, resolution=64, repeats=1, scored=False)
    assert not (bare.differences or bare.truth or bare.consistency)
    assert bare.total_factor() is not None
    assert isinstance(bare.busy, bool)
    assert difference(bare.reduced, bare.dense) == comparison.difference


def test_progress_names_the_run_and_cancel_stops_it(network, images):
    seen: list[RunProgress] = []

    def cancelled() -> bool:
        return any(progress.run == "reduced" and progress.phase == "run" for progress in seen)

    with pytest.raises(Cancelled):
        compare(images, network, SCHEDULE, resolution=64, progress=seen.append, cancel=cancelled)
    assert [progress.run for progress in seen[:1] + seen[-1:]] == ["dense", "reduced"]
    assert all(0 <= progress.fraction <= 1 for progress in seen)


def test_no_time_gives_no_factor(comparison):
    run = comparison.run()
    scene = dataclasses.replace(run.scene.cost, milliseconds={"total": 0.0})
    free = dataclasses.replace(run, measured=(dataclasses.replace(run.measured[0], cost=scene),))
    row = dataclasses.replace(comparison, runs={**comparison.runs, "reduced": free}).row()
    assert row["speedup_aggregator"] is None
    assert row["speedup_total"] is None
    assert cost_row(run.scene, scene)["total_ms"] == 0
