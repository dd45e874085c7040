"""Time, memory and work of models under schedules, measured side by side in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from spark3r.benchmark.sharing import sharing
from spark3r.compare import cost_row, warm_up
from spark3r.errors import DoesNotFit
from spark3r.flops import count_flops
from spark3r.frames import Frames
from spark3r.inference import Progress, reconstruct
from spark3r.kernels import torch_kernel
from spark3r.models import preprocess
from spark3r.models.config import ModelConfig
from spark3r.models.network import Network
from spark3r.reduction import ReductionSchedule
from spark3r.timing import Factor, Samples, is_busy, reference_speed

WARM_UP_FRAMES = 24  # more than a group of the automatic schedule, so that every path is taken once

PARTS = ("aggregator", "total")  # that factors are told of

TORCH = ":torch"  # ends the name of a schedule that is measured with torch's own attention kernel


@dataclass(frozen=True)
class Setting:
    """One clip size at which every schedule is measured."""

    frames: int
    resolution: int | None  # longer side of the network's input; None: the model's own
    repeats: int


def benchmark(
    network: Network,
    setting: Setting,
    schedules: Mapping[str, ReductionSchedule],
    progress: Callable[[str, Progress], None] | None = None,
) -> list[dict[str, Any]]:
    """One row per schedule: medians of the repeats, taken in turns so that every schedule sees the same machine.

    The frames are noise: time does not depend on what they show. A schedule whose run does not fit in memory gives a
    row with a `skipped` sentence and no times. `dense` among the schedules is what factors refer to; a name
    that ends in TORCH is measured with torch's own attention kernel. A reference product looks at the machine's speed
    before and after every run; `busy` says that it drifted by more than a tenth, or that times spread.
    """
    frames = Frames.of(_noise(network, setting))
    for name, schedule in schedules.items():
        with _kernel_of(name):
            warm_up(frames, network, schedule, setting.resolution, num_frames=WARM_UP_FRAMES)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in schedules}
    speeds = [reference_speed(network.device, network.dtype)]
    for _ in range(setting.repeats):
        for name, schedule in schedules.items():
            told = None if progress is None else partial(progress, name)
            with _kernel_of(name):
                run = _run(frames, network, schedule, setting, told)
            speeds.append(reference_speed(network.device, network.dtype))
            runs[name].append({**run, "speeds": speeds[-2:]})
    rows = [_summary(name, schedule, runs[name]) for name, schedule in schedules.items()]
    dense = next((runs[name] for name in ("dense", "off") if name in runs), None)
    for row, schedule in zip(rows, schedules.values(), strict=True):
        if "ranks" in row:
            row["ranks"] = _middle(runs[row["schedule"]])["ranks"]
            row["sharing"] = sharing(row["ranks"], [block.scope for block in network.config.blocks])
        if "skipped" not in row:
            _add_work(row, network, schedule, median(speeds))
            _add_factors(row, runs[row["schedule"]], dense)
            row["busy"] = is_busy(speeds, _factor("total_ms", dense, runs[row["schedule"]]))
    return rows


def _kernel_of(name: str) -> AbstractContextManager[None]:
    return torch_kernel() if name.endswith(TORCH) else nullcontext()


def _noise(network: Network, setting: Setting) -> np.ndarray:
    """Frames [S, H, W, 3] uint8 of 4:3 at the network's own size, so that nothing is resized."""
    height, width = frame_size(network.config, setting)
    return np.random.default_rng(0).integers(0, 256, (setting.frames, height, width, 3), dtype=np.uint8)


def frame_size(config: ModelConfig, setting: Setting) -> tuple[int, int]:
    """Height and width of a network's input for frames of 4:3."""
    longer = setting.resolution or config.resize.longer_side
    return preprocess.network_size(config, 3 * longer, 4 * longer, setting.resolution)


def _run(
    frames: Frames,
    network: Network,
    schedule: ReductionSchedule,
    setting: Setting,
    progress: Callable[[Progress], None] | None,
) -> dict[str, Any]:
    """What one run cost, without its pictures."""
    try:
        scene = reconstruct(frames, network, schedule, resolution=setting.resolution, progress=progress)
    except DoesNotFit as error:
        about = {"model": network.config.name, "policy": schedule.name, "frames": setting.frames}
        return {**about, "skipped": str(error)}
    tokens = {name: getattr(scene.cost, name) for name in ("tokens", "query_tokens", "kv_tokens")}
    return {**cost_row(scene), **tokens}


def _summary(name: str, schedule: ReductionSchedule, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """One row: what all runs have in common, the median of every time and of the peak, and how far totals range."""
    row = {"schedule": name, "words": str(schedule), **runs[0], "repeats": len(runs)}
    row["reference_flops_per_second"] = [speed for run in runs for speed in run["speeds"]]
    del row["speeds"]
    if "skipped" in row:
        return row
    for key in runs[0]:
        if key.endswith(("_ms", "_bytes")):
            row[key] = median(run[key] for run in runs)
    for part in PARTS:
        times = _samples(f"{part}_ms", runs)
        row[f"{part}_range_ms"], row[f"{part}_spread"] = [times.low, times.high], times.spread
    return row


def _middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run of the median total."""
    return sorted(runs, key=lambda run: run["total_ms"])[len(runs) // 2]


def _add_work(row: dict[str, Any], network: Network, schedule: ReductionSchedule, rate: float) -> None:
    """Arithmetic per stage, and which share of the machine's matmul rate the run reaches."""
    flops = count_flops(network.config, row["frames"], row["height"], row["width"], schedule)
    row["flops"] = {**flops, "total": sum(flops.values())}
    row["matmul_flops_per_second"] = rate
    row["matmul_share"] = {
        stage: work / (row[f"{stage}_ms"] / 1e3) / rate
        for stage, work in row["flops"].items()
        if row[f"{stage}_ms"] > 0
    }


def _add_factors(row: dict[str, Any], runs: list[dict[str, Any]], dense: list[dict[str, Any]] | None) -> None:
    """Speed-ups against the dense runs of the same setting, with their range; None where these were not measured."""
    for part in PARTS:
        factor = _factor(f"{part}_ms", dense, runs)
        row[f"speedup_{part}"] = factor and factor.median
        row[f"speedup_{part}_range"] = factor and [factor.low, factor.high]


def _factor(key: str, dense: list[dict[str, Any]] | None, runs: list[dict[str, Any]]) -> Factor | None:
    known = dense is not None and "skipped" not in dense[0] and "skipped" not in runs[0]
    return Factor.of(_samples(key, dense), _samples(key, runs)) if known and dense else None


def _samples(key: str, runs: list[dict[str, Any]]) -> Samples:
    return Samples(tuple(run[key] for run in runs))
