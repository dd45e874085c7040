"""Measuring: arithmetic counted right, medians side by side, quality against one factor at a time, and the commands."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import spark3r.benchmark.sensitivity as sensitivity
import spark3r.benchmark.speed as speed
from spark3r import DoesNotFit, Frames, InputError, ReductionSchedule
from spark3r.__main__ import main
from spark3r.benchmark.ablations import Ablations
from spark3r.benchmark.chart import relative_to_dense
from spark3r.benchmark.speed import Setting, benchmark
from spark3r.estimate import schedule_for
from spark3r.examples import FOLDER
from spark3r.flops import count_flops
from spark3r.metrics import match_features
from spark3r.metrics.truth import Truth
from spark3r.models.blocks import grid_rotation
from spark3r.models.checkpoints import load_model
from spark3r.models.families.mini import MINI_CONFIG
from spark3r.models.network import Network
from spark3r.tokens import TokenLayout
from tests.analytic import room_walk

WIDTH, LAYERS, SPECIAL, PATCHES = 192, 6, 2, 48


@pytest.fixture(scope="module")
def network(untrained: Path) -> Network:
    return load_model(untrained, "cpu", "float32")


@pytest.mark.parametrize(
    "schedule",
    [
        ReductionSchedule.off(),
        ReductionSchedule(query_factor=4),
        ReductionSchedule(kv_factor=8),
        ReductionSchedule(3, 5, group_size=7),
        ReductionSchedule(2, policy="uniform"),
        ReductionSchedule(3, 5, group_size=7, policy="grid"),
        ReductionSchedule(policy="register"),
    ],
    ids=str,
)
def test_arithmetic_of_every_stage_is_what_the_formulas_say(schedule: ReductionSchedule):
    frames = 40
    layout = TokenLayout(frames, SPECIAL, (6, 8), frames // 2)
    queries, keys = schedule.token_counts(layout)
    counted = count_flops(MINI_CONFIG, frames, 96, 128, schedule)
    square, tokens = WIDTH**2, layout.total
    mlp = 2 * tokens * 8 * square
    attention = 2 * queries * 2 * square + 2 * keys * 2 * square + 4 * queries * keys * WIDTH
    assert counted["global_attention"] == LAYERS * (attention + mlp)
    per_frame = 2 * tokens * 4 * square + 4 * tokens * layout.per_frame * WIDTH
    assert counted["frame_attention"] == LAYERS * (per_frame + mlp)
    assert counted["matching"] == LAYERS * 2 * WIDTH * _pairs(frames, schedule)
    assert counted["encoder"] > 0
    assert counted["heads"] > 0


def _pairs(frames: int, schedule: ReductionSchedule) -> int:
    """Source–destination pairs over all groups."""
    if schedule.policy == "uniform":  # at factor 2 half of each frame's patches, and the reference frame for all
        half, reference = PATCHES // 2, frames // 2
        near = [sum(f != reference for f in range(start, start + 20)) for start in range(0, frames, 20)]
        return sum(others * half * (PATCHES + others * half) for others in near)
    pairs = 0
    for start in range(0, frames, schedule.group_size):
        length = min(schedule.group_size, frames - start)
        destinations = math.ceil(length / schedule.query_factor)
        pairs += destinations * (length - destinations) * PATCHES**2
    return pairs


def test_words_mean_schedules(network: Network, tmp_path: Path):
    network = _with_sensitive(network, (1, 2))
    assert schedule_for("dense", 300, network).is_off
    assert schedule_for("auto", 300, network) == ReductionSchedule.auto(300, (1, 2))
    assert schedule_for("4x25", 300, network) == ReductionSchedule(4, 25, sensitive_layers=(1, 2))
    assert schedule_for("uniform", 300, network).at(0) == (2, 2)
    assert schedule_for("uniform:6", 300, network).at(1) == (6, 6)
    file = tmp_path / "schedule.json"
    file.write_text(ReductionSchedule(3, 9).to_json())
    assert schedule_for(str(file), 300, network) == ReductionSchedule(3, 9)
    with pytest.raises(InputError, match="'fast': must be dense, auto"):
        schedule_for("fast", 300, network)


def _with_sensitive(network: Network, layers: tuple[int, ...]) -> Network:
    other = Network.__new__(Network)
    other.__dict__.update(network.__dict__)
    other.config = dataclasses.replace(network.config, sensitive_layers=layers)
    return other


@pytest.mark.slow
def test_rows_are_medians_in_turns_and_factors_refer_to_dense(network: Network, monkeypatch: pytest.MonkeyPatch):
    """Invented times: three runs of each schedule, one of them an outlier."""
    real, order = speed.reconstruct, []
    times = {"dense": iter([90.0, 100.0, 500.0]), "reduced": iter([10.0, 70.0, 20.0])}

    def invented(frames: np.ndarray, network: Network, schedule: ReductionSchedule, **how: Any):
        scene = real(frames, network, schedule, **how)
        name = "dense" if schedule.is_off else "reduced"
        order.append((name, len(frames)))
        told = dict.fromkeys(scene.cost.milliseconds, 1.0) | {"total": next(times[name])}
        return dataclasses.replace(scene, cost=dataclasses.replace(scene.cost, milliseconds=told))

    monkeypatch.setattr(speed, "reconstruct", invented)
    schedules = {"dense": ReductionSchedule.off(), "2x2": ReductionSchedule(2, 2)}
    dense, reduced = benchmark(network, Setting(frames=4, resolution=32, repeats=3), schedules)
    assert [name for name, _ in order] == ["dense", "reduced"] * 3
    assert reduced["speedup_total_range"] == [100.0 / 70, 25.0]
    assert reduced["total_range_ms"] == [10.0, 70.0]
    assert reduced["busy"]
    assert len(reduced["reference_flops_per_second"]) == 6
    assert (dense["total_ms"], reduced["total_ms"]) == (100.0, 20.0)
    assert (dense["speedup_total"], reduced["speedup_total"]) == (1.0, 9.0)  # 90 / 10, 100 / 70, 500 / 20
    assert reduced["kv_tokens"] < reduced["query_tokens"] + 1 <= reduced["tokens"]
    assert reduced["flops"]["total"] < dense["flops"]["total"]
    assert (reduced["height"], reduced["width"], reduced["frames"], reduced["repeats"]) == (32, 32, 4, 3)


@pytest.mark.slow
def test_a_schedule_is_measured_with_torchs_kernel_too(untrained: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPARK3R_KERNEL", "matmuls-2m")
    network = load_model(untrained, "cpu", "bfloat16")
    schedules = {"dense": ReductionSchedule.off(), "dense:torch": ReductionSchedule.off()}
    ours, theirs = benchmark(network, Setting(frames=2, resolution=32, repeats=1), schedules)
    assert (ours["kernel"], theirs["kernel"]) == ("matmuls-2m", "torch")
    assert theirs["speedup_total"] == ours["total_ms"] / theirs["total_ms"]


@pytest.mark.slow
def test_what_does_not_fit_is_a_row_that_says_so(network: Network, monkeypatch: pytest.MonkeyPatch):
    real = speed.reconstruct

    def small_machine(frames: np.ndarray, network: Network, schedule: ReductionSchedule, **how: Any):
        if schedule.is_off and len(frames) > 24:
            raise DoesNotFit("26 frames need a larger machine")
        return real(frames, network, schedule, **how)

    monkeypatch.setattr(speed, "reconstruct", small_machine)
    schedules = {"dense": ReductionSchedule.off(), "2x2": ReductionSchedule(2, 2)}
    dense, reduced = benchmark(network, Setting(frames=26, resolution=32, repeats=1), schedules)
    assert dense["skipped"] == "26 frames need a larger machine"
    assert reduced["total_ms"] > 0
    assert reduced["speedup_total"] is None


@pytest.mark.slow
def test_a_study_compresses_one_side_at_a_time_and_runs_dense_once(network: Network, monkeypatch: pytest.MonkeyPatch):
    asked: list[ReductionSchedule] = []
    real = sensitivity.reconstruct

    def watched(frames: Frames, network: Network, schedule: ReductionSchedule, **how: Any):
        asked.append(schedule)
        return real(frames, network, schedule, **how)

    monkeypatch.setattr(sensitivity, "reconstruct", watched)
    depth, cameras, intrinsics = room_walk(5, 32, 32)
    count = np.arange(5)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    frames = Frames(images, count, count.astype(float), tuple("abcde"), "noise", (), 0.0)
    sample = sensitivity.Sample("noise", frames, Truth(depth, cameras, intrinsics), match_features(frames.images))
    rows = sensitivity.study(sample, network, (1, 2), (1, 4), resolution=32)
    assert asked == [ReductionSchedule.off(), ReductionSchedule(query_factor=2), ReductionSchedule(kv_factor=4)]
    assert [(row["side"], row["factor"]) for row in rows] == [("query", 1), ("query", 2), ("kv", 1), ("kv", 4)]
    assert {**rows[0], "side": ""} == {**rows[2], "side": ""}
    assert rows[0]["abs_rel"] != rows[3]["abs_rel"]


def test_errors_are_told_relative_to_each_clips_dense_run():
    def row(clip: str, factor: int, error: float | None) -> dict[str, Any]:
        return {"clip": clip, "frames": 9, "side": "kv", "factor": factor, "abs_rel": error}

    rows = [row("a", 1, 0.1), row("a", 4, 0.3), row("b", 1, 2.0), row("b", 4, 2.0), row("b", 8, None)]
    assert relative_to_dense(rows, "kv", 9, "abs_rel") == [(1, pytest.approx(1.0)), (4, pytest.approx(2.0))]
    assert relative_to_dense(rows, "query", 9, "abs_rel") == []


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip folder with six frames and their truth."""
    folder = tmp_path_factory.mktemp("clips") / "room"
    (folder / "rgb").mkdir(parents=True)
    for index, image in enumerate(np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)):
        cv2.imwrite(str(folder / "rgb" / f"{index:06d}.png"), image)
    depth, cameras, intrinsics = room_walk(6, 32, 32)
    np.savez(folder / "truth.npz", depth=depth, world_from_camera=cameras, intrinsics=intrinsics)
    return folder


@pytest.mark.slow
def test_benchmark_prints_a_table_writes_json_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("matplotlib")
    flags = ["--random-weights", "--device", "cpu", "--frames", "3", "5", "--resolution", "32", "--repeats", "1"]
    out, chart = tmp_path / "rows.json", tmp_path / "chart.png"
    command = ["benchmark", *flags, "--schedule", "dense", "2x4", "--json", str(out), "--chart", str(chart)]
    assert main(command) == 0
    content = json.loads(out.read_text())
    assert [(row["frames"], row["schedule"]) for row in content["rows"]] == [
        (3, "dense"), (3, "2x4"), (5, "dense"), (5, "2x4")
    ]  # fmt: skip
    assert content["machine"]["command"].startswith("python -m spark3r")
    assert "median of 1" in capsys.readouterr().out
    assert chart.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_probe_writes_a_schedule_that_other_commands_take(clip: Path, untrained: Path, tmp_path: Path):
    flags = ["--model", str(untrained), "--device", "cpu", "--dtype", "float32", "--resolution", "64", "--quiet"]
    schedule, table = tmp_path / "schedule.json", tmp_path / "layers.json"
    assert main(["probe", str(clip), "-o", str(schedule), "--json", str(table), *flags]) == 0
    content = json.loads(table.read_text())
    assert [row["layer"] for row in content["rows"]] == list(range(LAYERS))
    assert content["against"] == "truth"
    read = ReductionSchedule.from_json(schedule.read_text())
    assert read.sensitive_layers == tuple(content["sensitive_layers"])
    assert (
        main(["reconstruct", str(clip / "rgb"), "-o", str(tmp_path / "a.npz"), "--schedule", str(schedule), *flags])
        == 0
    )


@pytest.mark.slow
def test_sensitivity_takes_the_clips_that_are_long_enough(clip: Path, untrained: Path, tmp_path: Path):
    flags = ["--model", str(untrained), "--device", "cpu", "--dtype", "float32", "--resolution", "64", "--quiet"]
    factors = ["--query-factors", "2", "--kv-factors", "4"]
    out = tmp_path / "rows.json"
    assert main(["sensitivity", str(clip), "--frames", "5", "100", *factors, "--json", str(out), *flags]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert {row["frames"] for row in rows} == {5}
    assert [(row["side"], row["factor"]) for row in rows] == [("query", 1), ("query", 2), ("kv", 1), ("kv", 4)]
    assert main(["sensitivity", str(clip), "--frames", "100", *flags]) == 1


@pytest.mark.slow
def test_footage_without_truth_is_judged_by_its_pictures(untrained: Path, tmp_path: Path, capsys):
    """A bare video: sensitivity and probe score by matched features; against truth there is none."""
    video = tmp_path / "video.mp4"
    video.write_bytes((FOLDER / "room_walk" / "video.mp4").read_bytes())
    flags = ["--model", str(untrained), "--device", "cpu", "--dtype", "float32", "--resolution", "64", "--quiet"]
    out, chart, schedule = tmp_path / "rows.json", tmp_path / "chart.png", tmp_path / "schedule.json"
    factors = ["--query-factors", "2", "--kv-factors", "2", "--chart", str(chart)]
    assert main(["sensitivity", str(video), "--frames", "4", *factors, "--json", str(out), *flags]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert all(row["epipolar_px"] > 0 and "abs_rel" not in row for row in rows)
    assert chart.stat().st_size > 10_000
    flags += ["-o", str(schedule), "--max-frames", "4"]
    assert main(["probe", str(video), "--against", "pictures", "--json", str(out), *flags]) == 0
    assert json.loads(out.read_text())["against"] == "pictures"
    assert json.loads(out.read_text())["base_error"] > 0
    assert main(["probe", str(video), "--against", "truth", *flags]) == 1
    assert "has no truth" in capsys.readouterr().err


def test_flags_without_meaning_are_usage_errors():
    assert main(["benchmark", "--repeats", "0"]) == 2
    assert main(["benchmark", "--frames", "0"]) == 2


@pytest.mark.parametrize("frames", [1, 7, 12])
def test_every_alternative_is_a_whole_reduction(network: Network, frames: int):
    """Specials stay themselves, every token gets an answer, and only the shipped one is what SchedulePlanner does."""
    layout = TokenLayout(frames, SPECIAL, (2, 3), frames // 2)
    x = torch.randn(1, layout.total, WIDTH, generator=torch.Generator().manual_seed(frames))
    rotation = grid_rotation(layout.grid, SPECIAL, 48, x.device)
    schedule = ReductionSchedule(3, 4, group_size=5)
    for name, plan in Ablations(network, schedule).planners().items():
        reduction = plan(x, layout, 0)
        merged, context = reduction.queries(x), reduction.context(x)
        assert len(reduction.query_rotation(rotation).tables(merged.shape[1])[0]) == merged.shape[1], name
        assert len(reduction.context_rotation(rotation).tables(context.shape[1])[0]) == context.shape[1], name
        special, _ = layout.split(reduction.restore(merged))
        assert torch.equal(special, layout.split(x)[0]), name
        means = layout.split(reduction.restore(merged))[1].sum(dim=(1, 2))
        torch.testing.assert_close(means, layout.split(x)[1].sum(dim=(1, 2)), rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_ablations_measure_every_variant(clip: Path, untrained: Path, tmp_path: Path):
    out = tmp_path / "ablations.json"
    flags = ["--model", str(untrained), "--frames", "3", "--json", str(out), "--quiet"]
    assert main(["ablations", str(clip), *flags]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["variant"] for row in rows][:2] == ["dense", "as shipped"]
    assert len({row["variant"] for row in rows}) == 10
    assert all(math.isfinite(row["abs_rel"]) for row in rows)
