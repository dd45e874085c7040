"""A sweep: a grid of query and key/value factors, and other policies, measured one dot after the other."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from spark3r.compare import grid_schedule
from spark3r.errors import InputError
from spark3r.models.network import Network
from spark3r.reduction.schedule import ReductionSchedule
from viewer.engine import Engine
from viewer.job import Job, Visitor
from viewer.request import RunRequest
from viewer.state import CHUNKED, WINDOW, ReductionSettings, chunked

QUERY_FACTORS = (1, 2, 4, 8)
KV_FACTORS = (1, 4, 16, 64)
LARGEST_GRID = 64
SHORT_MS = 5000.0  # runs that take less are measured three times
LEAST_SHARE = 0.1  # of global attention that no reduction takes away: its linear layers


@dataclass(frozen=True)
class Grid:
    """The factors of a sweep, and whether policies beside Spark3R join in."""

    query_factors: tuple[int, ...] = QUERY_FACTORS
    kv_factors: tuple[int, ...] = KV_FACTORS
    others: bool = True

    def __post_init__(self) -> None:
        if not self.query_factors or not self.kv_factors:
            raise InputError("A sweep needs at least one factor for queries and one for keys/values.")
        if len(self.query_factors) * len(self.kv_factors) > LARGEST_GRID:
            raise InputError(f"A sweep of more than {LARGEST_GRID} points takes too long: name fewer factors.")

    @classmethod
    def read(cls, queries: str, keys: str, others: bool) -> "Grid":
        """From what was typed, "1, 2, 4" say; raises InputError for what is no list of whole numbers."""
        return cls(_numbers(queries), _numbers(keys), others)

    def schedules(self, frames: int, model: Network) -> list[ReductionSchedule]:
        """What is measured, the fastest first, so that the plot spans its range early."""
        pairs = [(q, k) for q in self.query_factors for k in self.kv_factors if (q, k) != (1, 1)]
        found = [grid_schedule(query, kv, model) for query, kv in sorted(pairs, reverse=True)]
        if self.others:
            auto = ReductionSchedule.auto(frames, model.config.sensitive_layers)
            found += [auto, *(auto.with_(policy=policy) for policy in ("grid", "anchor", "register"))]
            found += [ReductionSchedule(query, policy="uniform") for query in self.query_factors if query > 1]
            found += [chunked()] if frames > WINDOW else []
        return [each for index, each in enumerate(found) if each not in found[:index] and not each.is_off]


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(word) for word in text.replace(",", " ").split()}))
    except ValueError as error:
        raise InputError(f"“{text}” is no list of factors: write whole numbers such as 1, 2, 4.") from error


def settings_of(schedule: ReductionSchedule, before: ReductionSettings) -> ReductionSettings:
    """The dials that make this schedule."""
    return replace(
        before, mode="manual", query_factor=schedule.query_factor, kv_factor=schedule.kv_factor,
        group_size=schedule.group_size, kv_boost=schedule.kv_boost,
        policy=CHUNKED if schedule.window else schedule.policy,
    )  # fmt: skip


class SweepJob(Job):
    """One comparison for each point that was not measured before; what was measured stays when it is stopped."""

    def __init__(self, request: RunRequest, grid: Grid, engine: Engine, visitor: Visitor) -> None:
        super().__init__(request, engine, visitor)
        self._grid = grid

    def _work(self) -> None:
        model, frames, spent = self._prepare()
        runs, source = self._visitor.runs, self._request.input
        todo = [
            schedule for schedule in self._grid.schedules(len(frames), model) if runs.find(source, schedule) is None
        ]  # fmt: skip
        started = time.perf_counter()
        for done, schedule in enumerate(todo):
            left = (time.perf_counter() - started) / done * (len(todo) - done) if done else None
            self._tell(point=done + 1, points=len(todo), seconds_left=left)
            self._settings = settings_of(schedule, self._request.reduction)
            kept = self._compare(model, frames, schedule, spent)
            if kept.against.doubt:
                self._both = True
                self._compare(model, frames, schedule, spent)
                self._both = False
            self._tell(doing="Scoring", live={})
            self._score(nullcontext)  # between two points nothing is measured; a dot needs its error
        present = runs.find(source, self._request.reduction.schedule(len(frames), model.config.sensitive_layers))
        if present is not None and present.scene is not None:  # what the dials say, rather than the last point
            self._visitor.place("right", present.name)

    def _follow_up(self) -> None:
        """Nothing: every point was scored at once."""

    def _how(self) -> dict[str, Any]:
        """The dense run is measured with the first point, and again where the machine's speed has moved."""
        return {"retime_baseline": self._both}


def expected_seconds(
    schedules: Sequence[ReductionSchedule],
    dense: Mapping[str, float],  # milliseconds per stage of the dense run
    kept_share: Callable[[ReductionSchedule], float],  # of dense attention's products
) -> float:
    """About how long measuring these will take: what no reduction touches, and attention by the products left."""
    attention = dense.get("global_attention", 0.0)
    rest = dense.get("total", 0.0) - dense.get("decode", 0.0) - attention
    total = 0.0
    for schedule in schedules:
        once = rest + attention * max(LEAST_SHARE, kept_share(schedule))
        total += once * (3 if once < SHORT_MS else 1)
    return total / 1000
