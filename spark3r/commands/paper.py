"""The answer of `benchmark --paper`: what runs would take on GPUs, computed and never measured."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from spark3r.benchmark.paper import STAGES, gpu_named, paper_rows
from spark3r.benchmark.paper_ranks import shared
from spark3r.benchmark.speed import Setting, frame_size
from spark3r.commands.report import Report, table
from spark3r.formatting import byte_count, factor, milliseconds
from spark3r.models.checkpoints import pick_dtype
from spark3r.models.registry import named
from spark3r.reduction import ReductionSchedule

SHOWN = (*STAGES, "aggregator", "total")
HEADER = (
    "model",
    "card",
    "ranks",
    "frames",
    "schedule",
    *(stage.removesuffix("_attention") for stage in SHOWN),
    "× agg",
    "× all",
    "memory",
    "largest clip",
    "TFLOP",
    "TB",
)
NOTE = (
    "COMPUTED, NOT MEASURED: the longer of arithmetic and memory traffic of every op at the rates that good kernels\n"
    "reach on the card (roofline), without overlap or launch cost. Largest clip: frames that fit in its memory."
)


def paper_report(
    models: tuple[str, ...],
    words: tuple[str, ...],
    settings: list[Setting],
    gpus: tuple[str, ...],
    dtype: str | None,
    offload: bool,
    report: Report,
) -> list[dict[str, Any]]:
    """Rows of every model, size and length; raises InputError for a card or a word that is not known."""
    for name in gpus:
        gpu_named(name)
    half = pick_dtype(dtype or "bfloat16", torch.device("cuda"))
    rows: list[dict[str, Any]] = []
    for name in models:
        config = named(name).config
        for setting in settings:
            report.doing(f"{name}, {setting.frames} frames: computing")
            size = frame_size(config, setting)
            schedules = {word: partial(_schedule, word, layers=config.sensitive_layers) for word in words}
            rows += paper_rows(config, size, setting.frames, schedules, list(gpus), dtype=half, offload=offload)
    return rows


def across_ranks(rows: list[dict[str, Any]], ranks: tuple[int, ...], link: str) -> list[dict[str, Any]]:
    """The same rows for every number of cards that share the clip."""
    if ranks == (1,):
        return rows
    return [
        shared(row, named(row["model"]).config, _schedule_of(row), gpu_named(row["gpu"]), count, link)
        for row in rows
        for count in ranks
    ]


def _schedule_of(row: dict[str, Any]) -> ReductionSchedule:
    return _schedule(row["schedule"], row["frames"], named(row["model"]).config.sensitive_layers)


def _schedule(word: str, frames: int, layers: tuple[int, ...] | None) -> ReductionSchedule:
    return ReductionSchedule.parse(word, frames, layers)


def paper_table(rows: list[dict[str, Any]]) -> str:
    """One line per row, and how the numbers came about."""
    return f"{table([_cells(row) for row in rows], header=HEADER)}\n\n{NOTE}"


def _cards(row: dict[str, Any]) -> str:
    """How many share the clip, and how long they wait for each other's tokens."""
    return f"{row['ranks']} ({milliseconds(row['link_ms'])} {row['link']})" if row["ranks"] > 1 else "1"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    gains = (factor(row[f"speedup_{part}"] or float("nan")) for part in ("aggregator", "total"))
    return (
        row["model"],
        row["gpu"],
        _cards(row),
        str(row["frames"]),
        row["schedule"],
        *(milliseconds(row[f"{stage}_ms"]) for stage in SHOWN),
        *gains,
        byte_count(row["peak_bytes"]),
        str(row["largest_frames"]),
        f"{row['flops']['total'] / 1e12:.0f}",
        f"{row['bytes']['total'] / 1e12:.1f}",
    )
