"""A run as one flat object, as every report of ours shows it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from spark3r.reconstruction import Cost, Reconstruction
from spark3r.stages import STAGES


def cost_row(scene: Reconstruction, cost: Cost | None = None) -> dict[str, Any]:
    """What ran under which conditions, and how long each stage took; `cost`: in place of the scene's own."""
    schedule, cost = scene.schedule, cost or scene.cost
    return {
        "model": scene.model,
        "policy": schedule.name,
        "query_factor": schedule.query_factor,
        "kv_factor": schedule.kv_factor,
        "frames": len(scene),
        "height": scene.height,
        "width": scene.width,
        "dtype": scene.dtype,
        "device": scene.device,
        "kernel": scene.kernel,
        **{f"{stage}_ms": cost.milliseconds.get(stage, 0.0) for stage in STAGES},
        "aggregator_ms": cost.aggregator_ms,
        "total_ms": cost.total_ms,
        "peak_bytes": cost.peak_bytes,
        **({"ranks": [asdict(rank) for rank in cost.ranks]} if cost.ranks else {}),
    }
