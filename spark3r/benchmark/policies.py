"""Every policy's quality against its time: which ways to long clips are worth their price, and which are beaten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from spark3r.benchmark.speed import Setting, benchmark
from spark3r.benchmark.unseen import SCORES, study_unseen
from spark3r.estimate import schedule_for
from spark3r.models.network import Network
from spark3r.reduction import ReductionSchedule

LENGTHS = (100, 300)
SCHEDULES = (
    *("dense", "auto", "2x8", "4x25", "uniform:4", "uniform:9", "grid:2x9", "grid:4x25"),
    *("anchor:9", "anchor:25", "register", "chunked:12+4", "chunked:32+8"),
)
QUALITIES = {  # name of a score: (title, whether less is better)
    "abs_rel": ("depth: AbsRel, less is better", True),
    "auc_3": ("relative poses: AUC@3°, more is better", False),
    "auc_30": ("relative poses: AUC@30°, more is better", False),
}


def measure_times(
    network: Network,
    words: Sequence[str],
    lengths: Sequence[int],
    repeats: int,
    progress: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Rows of `benchmark`: all schedules in turns at every length, on noise."""
    rows = []
    for length in lengths:

        def told(word: str, now: Any, length: int = length) -> None:
            if progress is not None:
                progress(f"times, {length} frames: {word}")

        rows += benchmark(network, Setting(length, None, repeats), _schedules(network, words, length), told)
    return rows


def measure_quality(
    network: Network,
    words: Sequence[str],
    lengths: Sequence[int],
    clips: int,
    progress: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Rows of `evaluate --unseen`, one per clip, length and schedule."""

    def schedules(length: int) -> dict[str, ReductionSchedule]:
        return _schedules(network, words, length)

    return study_unseen(network, clips, lengths, schedules, None, progress).rows


def summary(times: Sequence[dict[str, Any]], quality: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per length and schedule that has both: its time, mean scores, and for which qualities it is on the front.

    On the front is what no other schedule of that length beats in time and quality at once.
    """
    rows = []
    for time in times:
        scored = [row for row in quality if (row["frames"], row["schedule"]) == (time["frames"], time["schedule"])]
        if not scored or "skipped" in time:
            continue
        means = {score: _mean([row[score] for row in scored]) for score in SCORES}
        about = {key: time[key] for key in ("frames", "schedule", "policy", "words")}
        cost = {key: time[key] for key in ("total_ms", "aggregator_ms", "speedup_total", "speedup_aggregator")}
        rows.append({**about, "clips": len(scored), **cost, **means})
    for row in rows:
        rivals = [other for other in rows if other["frames"] == row["frames"] and other is not row]
        row["front"] = [name for name in QUALITIES if not any(_beats(other, row, name) for other in rivals)]
    return rows


def _beats(one: dict[str, Any], other: dict[str, Any], name: str) -> bool:
    """As fast and as good, and better in one of the two; what has no score beats nothing and is beaten."""
    if one[name] is None or other[name] is None:
        return other[name] is None and one[name] is not None
    sign = 1 if QUALITIES[name][1] else -1
    mine, theirs = (one["total_ms"], sign * one[name]), (other["total_ms"], sign * other[name])
    return mine[0] <= theirs[0] and mine[1] <= theirs[1] and mine != theirs


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _schedules(network: Network, words: Sequence[str], length: int) -> dict[str, ReductionSchedule]:
    return {word: schedule_for(word, length, network) for word in words}
