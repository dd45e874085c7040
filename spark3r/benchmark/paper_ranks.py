"""Many cards on paper: what a clip takes when ranks share it, derived from the run of one card. Nothing is measured.

Every rank holds 1/R of the frames, so work and traffic of all stages divide by R; what does not is the projection of
the kept keys/values, which every rank does for all of them, the weights, and what travels (docs/distributed.md).
Transfers are counted in full, although most of them hide behind the query side's work.
"""

from __future__ import annotations

from typing import Any

from spark3r.benchmark.paper import STAGES, Gpu
from spark3r.errors import InputError
from spark3r.models.checkpoints import skeleton
from spark3r.models.config import ModelConfig
from spark3r.reduction import ReductionSchedule
from spark3r.stages import AGGREGATOR
from spark3r.tokens import TokenLayout

# Bytes per second that one rank receives, as reached: NVLink 4 of an HGX board (450 GB/s one way), PCIe 5 of 16 lanes,
# 100-gigabit Ethernet.
LINKS = {"nvlink": 360e9, "pcie": 50e9, "ethernet100g": 11e9}
_ITEM = 2  # bytes of a bf16 number


def shared(
    row: dict[str, Any], config: ModelConfig, schedule: ReductionSchedule, gpu: Gpu, ranks: int, link: str
) -> dict:
    """The row of one card → that of `ranks` of them. Raises InputError for an unknown link or no rank."""
    if link not in LINKS:
        raise InputError(f"--link {link}: must be one of {', '.join(LINKS)}")
    if ranks < 1:
        raise InputError(f"--ranks {ranks}: must be 1 or more")
    others = (ranks - 1) / ranks
    layout = TokenLayout(row["frames"], config.tokens.special, _grid(row, config))
    kept = [schedule.token_counts(layout, layer)[1] for layer in range(len(config.global_blocks))]
    dense = schedule.is_off
    travelling = sum(kept) * config.width * _ITEM * (2 if dense else 1) * others  # keys and values, or tokens
    projection = 0.0 if dense else sum(kept) * 4 * config.width**2 * others / gpu.rates["half"]
    times = {f"{stage}_ms": row[f"{stage}_ms"] / ranks for stage in STAGES}
    times["global_attention_ms"] += projection * 1e3
    link_ms = travelling / LINKS[link] * 1e3 if ranks > 1 else 0.0
    parts = 2 * 2 / ranks if dense else 3  # two parts of keys and values go round; else tokens, their keys and values
    context = max(kept) * config.width * _ITEM * parts * others
    weights = sum(tensor.numel() for tensor in skeleton(config).state_dict().values()) * _ITEM
    return {
        **row,
        **times,
        "ranks": ranks,
        "link": link if ranks > 1 else None,
        "link_ms": link_ms,
        "link_bytes": travelling,
        "aggregator_ms": sum(times[f"{stage}_ms"] for stage in AGGREGATOR) + link_ms,
        "total_ms": sum(times.values()) + link_ms,
        "peak_bytes": int(weights + max(0, row["peak_bytes"] - weights) / ranks + context),
    }


def _grid(row: dict[str, Any], config: ModelConfig) -> tuple[int, int]:
    return row["height"] // config.patch, row["width"] // config.patch
