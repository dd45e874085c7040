"""A GPU on paper: what a run would take on a card, computed from its data sheet. Nothing here is measured.

The networks' own code runs on tensors without data (dryrun.py). Each op takes the longer of the time to move its bytes
and the time for its arithmetic (the roofline model of Williams, Waterman and Patterson, 2009); ops follow each other
without overlap or launch cost. Rates are those that well-tuned kernels reach, not the peaks of the sheets.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from spark3r import stages
from spark3r.dryrun import Case, dry_run, peak_bytes
from spark3r.errors import InputError
from spark3r.ledger import Ledger, Work
from spark3r.models.config import ModelConfig
from spark3r.reduction import ReductionSchedule
from spark3r.tokens import TokenLayout

STAGES = tuple(stage for stage in stages.STAGES if stage not in ("decode", "preprocess"))
_LONGEST = 10_000_000  # frames; no clip asked about is longer


@dataclass(frozen=True)
class Gpu:
    """A card: dense peak rates of its data sheet, and the share of each that is reached in practice.

    Rates in TFLOP/s without sparsity and with float32 accumulation, bandwidth in TB/s, memory in GiB that a program
    can take.
    """

    name: str
    half: float  # bf16 and fp16 products
    tf32: float  # float32 convolutions, which cuDNN runs in TF32 unless told otherwise
    float32: float
    bandwidth: float
    memory: float
    link: float  # GB/s to the computer's memory, one way, as reached
    reached: tuple[float, float, float, float, float]  # of half in products, of half in attention, tf32, float32, bytes
    source: str

    @property
    def rates(self) -> dict[str, float]:
        """FLOP per second for each unit of `Work`."""
        products, attention, tf32, float32, _ = self.reached
        return {
            "half": products * self.half * 1e12,
            "attention": attention * self.half * 1e12,
            "convolution32": tf32 * self.tf32 * 1e12,
            "float32": float32 * self.float32 * 1e12,
        }

    @property
    def bytes_per_second(self) -> float:
        """Bandwidth of the memory as the data sheet has it."""
        return self.reached[-1] * self.bandwidth * 1e12


# Shares reached: products as cuBLAS reaches them at sizes of thousands; attention as FlashAttention-3 (Hopper; Shah et
# al. 2024), FlashAttention-2 (Ampere, Ada; Dao 2023) or cuDNN (H20) do; bandwidth as copies do; link:
# PCIe 5 (Hopper) or 4 of 16 lanes.
GPUS = {
    "h100": Gpu(
        "H100 SXM 80 GB", 989, 494, 67, 3.35, 78, 50, (0.708, 0.556, 0.708, 0.896, 0.776),
        "NVIDIA H100 Tensor Core GPU data sheet",
    ),
    "h200": Gpu(
        "H200 SXM 141 GB", 989, 494, 67, 4.8, 139, 50, (0.708, 0.556, 0.708, 0.896, 0.776),
        "NVIDIA H200 Tensor Core GPU data sheet",
    ),
    "a100": Gpu(
        "A100 SXM 80 GB", 312, 156, 19.5, 2.039, 78, 25, (0.8, 0.7, 0.8, 0.9, 0.82),
        "NVIDIA A100 Tensor Core GPU data sheet",
    ),
    "h20": Gpu(
        "H20 96 GB", 148, 74, 44, 4.0, 94, 50, (0.912, 0.811, 0.878, 0.909, 0.85),
        "specification as printed by server makers (no public NVIDIA data sheet)",
    ),
    "l40s": Gpu(
        "L40S 48 GB", 362, 183, 91.6, 0.864, 43.5, 25, (0.7, 0.55, 0.7, 0.75, 0.85),
        "NVIDIA L40S GPU data sheet",
    ),
    "rtx4090": Gpu(
        "RTX 4090 24 GB", 165.2, 82.6, 82.6, 1.008, 22.5, 25, (0.9, 0.8, 0.9, 0.8, 0.9),
        "NVIDIA Ada GPU architecture white paper, appendix A",
    ),
}  # fmt: skip


def gpu_named(name: str) -> Gpu:
    """Raises InputError for a card that is not in the table."""
    if name.lower() not in GPUS:
        raise InputError(f"--paper {name}: no data sheet of it; known are {', '.join(GPUS)}")
    return GPUS[name.lower()]


def paper_rows(
    config: ModelConfig,
    size: tuple[int, int],  # height and width of the network's input
    frames: int,
    schedules: dict[str, Callable[[int], ReductionSchedule]],  # by a word; from the length of a clip
    gpus: list[str],
    *,
    dtype: torch.dtype = torch.bfloat16,
    offload: bool = False,
) -> list[dict[str, Any]]:
    """A row for every schedule on every card; factors refer to dense, where it is among them."""
    rows: list[dict[str, Any]] = []
    cards = {name: gpu_named(name) for name in gpus}
    for word, schedule_of in schedules.items():
        case = Case(config, dtype, "cuda", frames, *size, schedule_of(frames), offload)
        ledger = dry_run(case)
        for name, gpu in cards.items():
            longest = largest_clip(case, schedule_of, gpu)
            rows.append({"schedule": word, "gpu": name, **_row(case, ledger, gpu), "largest_frames": longest})
    for row in rows:
        dense = next((r for r in rows if r["gpu"] == row["gpu"] and r["schedule"] in ("dense", "off")), None)
        for part in ("aggregator", "total"):
            row[f"speedup_{part}"] = dense[f"{part}_ms"] / row[f"{part}_ms"] if dense else None
    return rows


def _row(case: Case, ledger: Ledger, gpu: Gpu) -> dict[str, Any]:
    """One run on one card, under the keys of a measured row."""
    times, moved, flops = (dict.fromkeys(STAGES, 0.0) for _ in range(3))
    for work, count in ledger.work.items():
        times[work.stage] += 1e3 * count * seconds(work, gpu)
        moved[work.stage] += count * work.bytes
        flops[work.stage] += count * work.flop
    layout = TokenLayout(case.frames, case.config.tokens.special, _grid(case))
    queries, keys = case.schedule.token_counts(layout)
    return {
        "computed": True,
        "card": gpu.name,
        "ranks": 1,
        "link": None,
        "model": case.config.name,
        "policy": case.schedule.name,
        "words": str(case.schedule),
        "query_factor": case.schedule.query_factor,
        "kv_factor": case.schedule.kv_factor,
        "frames": case.frames,
        "height": case.height,
        "width": case.width,
        "dtype": str(case.dtype).removeprefix("torch."),
        "offload": case.offload,
        "tokens": layout.total,
        "query_tokens": queries,
        "kv_tokens": keys,
        **{f"{stage}_ms": time for stage, time in times.items()},
        "aggregator_ms": sum(times[stage] for stage in stages.AGGREGATOR),
        "total_ms": sum(times.values()),
        "bytes": moved | {"total": sum(moved.values())},
        "flops": flops | {"total": sum(flops.values())},
        "peak_bytes": ledger.peak,
    }


def _grid(case: Case) -> tuple[int, int]:
    return case.height // case.config.patch, case.width // case.config.patch


def seconds(work: Work, gpu: Gpu) -> float:
    """How long one op takes on a card."""
    if work.unit == "link":
        return work.bytes / (gpu.link * 1e9)
    return max(work.bytes / gpu.bytes_per_second, work.flop / gpu.rates[work.unit])


def largest_clip(case: Case, schedule_of: Callable[[int], ReductionSchedule], gpu: Gpu) -> int:
    """The most frames whose run fits in the card's memory (0: not even one)."""
    room = int(gpu.memory * 2**30)

    def needed(frames: int) -> int:
        return peak_bytes(replace(case, frames=frames, schedule=schedule_of(frames)))

    return bisect_right(range(1, _LONGEST), room, key=needed)
