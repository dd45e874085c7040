"""The paper's central claim, tested: queries suffer from compression, keys/values hardly do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from spark3r.frames import Frames
from spark3r.inference import reconstruct
from spark3r.metrics import Matches, consistency, evaluate
from spark3r.metrics.truth import Truth
from spark3r.models.network import Network
from spark3r.reduction import ReductionSchedule

QUERY_FACTORS = (1, 2, 4, 8, 12, 16, 32)
KV_FACTORS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

Side = Literal["query", "kv"]


@dataclass(frozen=True, eq=False)
class Sample:
    """A clip to study, with its truth if it has one."""

    name: str
    frames: Frames
    truth: Truth | None  # of these frames, at the network's size
    matches: Matches  # features of these frames, by which every result is judged alike


def study(
    sample: Sample,
    network: Network,
    query_factors: Sequence[int] = QUERY_FACTORS,
    kv_factors: Sequence[int] = KV_FACTORS,
    resolution: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Quality with one side compressed in every global layer and the other untouched.

    A row has the side ("query" or "kv"), the factor and all scores (those against truth where there is one, and how the
    result fits matched features); factor 1 is the dense run, made once.
    """
    dense: dict[str, Any] | None = None
    rows = []
    sides: tuple[tuple[Side, Sequence[int]], ...] = (("query", query_factors), ("kv", kv_factors))
    for side, factors in sides:
        for factor in factors:
            if progress is not None:
                progress(f"{sample.name}, {len(sample.frames)} frames: {side} factor {factor}")
            if factor > 1 or dense is None:
                query, kv = (factor, 1) if side == "query" else (1, factor)
                scores = _scores(sample, network, ReductionSchedule(query, kv), resolution)
                dense = scores if factor == 1 else dense
            else:
                scores = dense
            about = {"clip": sample.name, "frames": len(sample.frames), "side": side, "factor": factor}
            rows.append({**about, **scores})
    return rows


def _scores(
    sample: Sample, network: Network, schedule: ReductionSchedule, resolution: int | None
) -> dict[str, float | None]:
    scene = reconstruct(sample.frames, network, schedule, resolution=resolution)
    fit = consistency(scene, sample.matches).to_json()
    return fit if sample.truth is None else {**evaluate(scene, sample.truth).to_json(), **fit}
