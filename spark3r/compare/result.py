"""What a comparison finds: every run with its times, and how far each result is from the dense one."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import zip_longest
from statistics import median
from typing import Any

import numpy as np

from spark3r.compare.rows import cost_row
from spark3r.flops import count_flops
from spark3r.geometry import Similarity, align_cameras
from spark3r.metrics import Scores, evaluate
from spark3r.metrics.consistency import Consistency
from spark3r.metrics.depth import depth_scale
from spark3r.metrics.scores import none_if_undefined
from spark3r.metrics.truth import Truth
from spark3r.models.config import ModelConfig
from spark3r.reconstruction import Cost, Reconstruction
from spark3r.stages import AGGREGATOR
from spark3r.timing import STEADY, Factor, Samples, changed, is_busy

DENSE, REDUCED = "dense", "reduced"

# What no schedule changes: these stages do the same work in every run of a clip in one piece.
_ALIKE = ("encoder", "frame_attention", "heads")


@dataclass(frozen=True)
class Difference:
    """How far a result is from the dense one, which stands in for the truth (see `metrics.Scores`)."""

    abs_rel: float  # mean relative difference of depth, after one scale per clip
    delta_1_25: float  # share of pixels within a factor 1.25; 1 is the same
    ate: float  # rmse of camera centres after Sim(3), world units of the dense run
    ate_relative: float  # ATE / path length of the dense run
    rotation_deg: float  # mean difference of orientations
    auc_3: float  # relative poses of all pairs of frames, area under the accuracy curve up to 3°; 1 is the same
    auc_30: float  # the same up to 30°
    chamfer: float  # mean distance between the clouds, fraction of the scene diagonal

    def to_json(self) -> dict[str, float | None]:
        """Numbers by name, None for undefined ones."""
        return {name: none_if_undefined(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Measurement:
    """One timed run."""

    cost: Cost
    seconds: float  # by the clock, without decoding
    speeds: tuple[float, float]  # FLOP/s of the reference product, just before and just after
    turn: int  # runs with the same number were measured one right after the other
    fastest: float  # FLOP/s, the best that the reference product reached in this process so far


@dataclass(frozen=True, eq=False)
class Run:
    """One schedule on the clip: its result, and every time it was measured."""

    name: str  # "dense", "reduced", or as the caller named the schedule
    scene: Reconstruction  # in the world of the dense run
    measured: tuple[Measurement, ...]  # at least one, in order
    ended_at: float  # of the last measurement, `time.monotonic()`
    reused: bool = False  # measured in an earlier comparison, not in this one
    carried: int = 0  # so many of the first measurements are of earlier comparisons

    def is_in_turns_with(self, other: Run) -> bool:
        """Whether every measurement of either has one of the other's beside it."""
        return [one.turn for one in self.measured] == [one.turn for one in other.measured]

    @property
    def turns(self) -> int:
        """How often it was measured in this comparison."""
        return len(self.measured) - self.carried

    @property
    def total(self) -> Samples:
        """Milliseconds of the whole run, decoding included."""
        return Samples(tuple(one.cost.total_ms for one in self.measured))

    @property
    def aggregator(self) -> Samples:
        """Milliseconds of what reduction changes: frame attention, global attention, matching."""
        return Samples(tuple(one.cost.aggregator_ms for one in self.measured))

    @property
    def cost(self) -> Cost:
        """Medians of all measurements, each number for itself."""
        costs = [one.cost for one in self.measured]
        times = {stage: median(cost.milliseconds[stage] for cost in costs) for stage in costs[0].milliseconds}
        return replace(costs[0], milliseconds=times, peak_bytes=round(median(cost.peak_bytes for cost in costs)))

    @property
    def seconds(self) -> float:
        """Of one run by the clock, without decoding; the median."""
        return median(one.seconds for one in self.measured)

    @property
    def speeds(self) -> tuple[float, ...]:
        """FLOP/s of the reference product around every measurement."""
        return tuple(speed for one in self.measured for speed in one.speeds)

    @property
    def alike_ms(self) -> float:
        """Milliseconds of the stages that do the same work under every schedule."""
        return sum(self.cost.milliseconds.get(stage, 0.0) for stage in _ALIKE)


@dataclass(frozen=True, eq=False)
class Comparison:
    """A clip under several schedules, all results in one world, with costs and differences.

    Names are those of the schedules; the dense run is always there, as "dense". Where a method takes a name, None
    means the first run that is not the dense one.
    """

    runs: Mapping[str, Run]  # dense first
    differences: Mapping[str, Difference]  # of every run but the dense one, from it; like the next two, if scored
    truth: Mapping[str, Scores]  # of every run, where the clip has a truth; else empty
    consistency: Mapping[str, Consistency]  # of every run with what the pictures show, by the same matches; no truth
    seconds: Mapping[str, float]  # where the waiting went: reading, warm-up, speed checks, each run by name, scores
    machine: dict[str, Any]
    config: ModelConfig

    @property
    def dense(self) -> Reconstruction:
        """The dense result."""
        return self.runs[DENSE].scene

    @property
    def reduced(self) -> Reconstruction:
        """The first other result, aligned to the dense one by Sim(3)."""
        return self.run().scene

    @property
    def difference(self) -> Difference:
        """Of the first other result from the dense one."""
        return self.differences[self.run().name]

    def run(self, name: str | None = None) -> Run:
        """A run by its name."""
        return self.runs[name] if name is not None else next(run for run in self.runs.values() if run.name != DENSE)

    def total_factor(self, name: str | None = None) -> Factor | None:
        """Dense ÷ reduced of the whole run; None where that must not be divided (`doubt` says why)."""
        return self._factor(name, operator.attrgetter("total"))

    def aggregator_factor(self, name: str | None = None) -> Factor | None:
        """Dense ÷ reduced of frame attention, global attention and matching; None as for `total_factor`."""
        return self._factor(name, operator.attrgetter("aggregator"))

    def arithmetic_factor(self, name: str | None = None, aggregator: bool = False) -> float:
        """Dense ÷ reduced in floating-point operations, of the whole run or of the aggregator: no noise touches it."""
        stages = AGGREGATOR if aggregator else tuple(self.flops(DENSE))
        dense, reduced = (sum(self.flops(each)[stage] for stage in stages) for each in (DENSE, self.run(name).name))
        return dense / reduced

    def flops(self, name: str | None = None) -> Mapping[str, float]:
        """Floating-point operations of a run by stage (see `count_flops`; a second or more when first asked)."""
        scene = self.run(name).scene
        return count_flops(self.config, len(scene), scene.height, scene.width, scene.schedule)

    def doubt(self, name: str | None = None) -> str:
        """Why the dense time must not be divided by this run's: a sentence for a person, or nothing.

        Only times of an earlier comparison are doubted: where the machine's speed has since moved by more than a
        tenth, by the reference product or by the stages that do the same work in both runs.
        """
        dense, run = self.runs[DENSE], self.run(name)
        if not dense.reused or run.name == DENSE:
            return ""
        products = Samples(run.speeds).median / Samples(dense.speeds).median
        alike = run.scene.schedule.window == 0 and dense.alike_ms > 0 and run.alike_ms > 0
        stages = dense.alike_ms / run.alike_ms if alike else 1.0
        speed = max(products, stages, key=lambda ratio: changed(1.0, ratio))
        if changed(1.0, speed) <= STEADY:
            return ""
        way = "faster" if speed > 1 else "slower"
        return (
            f"The machine is {100 * changed(1.0, speed):.0f} % {way} than when the dense run was measured: "
            "measure both again for a factor."
        )

    def _factor(self, name: str | None, samples: Callable[[Run], Samples]) -> Factor | None:
        if self.doubt(name):
            return None
        dense, run = self.runs[DENSE], self.run(name)
        return Factor.of(samples(dense), samples(run), paired=dense.is_in_turns_with(run))

    @property
    def busy(self) -> bool:
        """Whether the machine did other work meanwhile: it is slow, its speed drifted, or a factor spreads too far."""
        turns = zip_longest(*(run.measured for run in self.runs.values() if not run.reused))
        measured = [one for turn in turns for one in turn if one is not None]
        speeds = [speed for one in measured for speed in one.speeds]
        factors = [self.total_factor(name) for name in self.runs if name != DENSE]
        return is_busy(speeds, *factors, fastest=max((one.fastest for one in measured), default=0.0))

    @property
    def waited_s(self) -> float:
        """Seconds in all; their parts stand in `seconds`."""
        return sum(self.seconds.values())

    def row(self, name: str | None = None) -> dict[str, Any]:
        """One run as one flat object with the keys that every report of ours has."""
        run = self.run(name)
        total, aggregator = (
            (factors(run.name) if run.name != DENSE else Factor(1.0, 1.0, 1.0, 0.0))
            for factors in (self.total_factor, self.aggregator_factor)
        )  # fmt: skip
        return {
            **cost_row(run.scene, run.cost),
            "aggregator_ms": run.aggregator.median,
            "speedup_aggregator": aggregator and aggregator.median,
            "speedup_total": total and total.median,
            "name": run.name,
            "reused": run.reused,
            "repeats": len(run.measured),
            "total_range_ms": [run.total.low, run.total.high],
            "total_spread": run.total.spread,
            "aggregator_range_ms": [run.aggregator.low, run.aggregator.high],
            "speedup_aggregator_range": aggregator and [aggregator.low, aggregator.high],
            "speedup_total_range": total and [total.low, total.high],
            "speedup_total_spread": total and total.spread,
            "speedup_arithmetic": self.arithmetic_factor(run.name),
            "flops": {**self.flops(run.name), "total": sum(self.flops(run.name).values())},
            "reference_flops_per_second": list(run.speeds),
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values with the keys that every report of ours has; `rows` holds dense first."""
        content = {
            "machine": self.machine,
            "rows": [self.row(name) for name in self.runs],
            "difference": self.difference.to_json(),
            "differences": {name: one.to_json() for name, one in self.differences.items()},
            "dense_reused": self.runs[DENSE].reused,
            "busy": self.busy,
            "doubts": {name: doubt for name in self.differences if (doubt := self.doubt(name))},
            "seconds": dict(self.seconds),
            "consistency": {name: one.to_json() for name, one in self.consistency.items()},
        }
        if self.truth:
            content["truth"] = {name: scores.to_json() for name, scores in self.truth.items()}
        return content


def alignment(source: Reconstruction, target: Reconstruction) -> Similarity:
    """The similarity that brings one result of a clip into the world of another.

    Rotation and place come from the cameras, the scale from depth: both results see the same pixels, while a scale
    fitted to camera centres shrinks wherever the two paths disagree. Frames whose cameras are not finite are left
    out; the identity if none remains.
    """
    finite = np.isfinite(source.world_from_camera).all((1, 2)) & np.isfinite(target.world_from_camera).all((1, 2))
    if not finite.any():
        return Similarity()
    path, target_path = source.world_from_camera[finite], target.world_from_camera[finite]
    return align_cameras(path, target_path, depth_scale(source.depth, target.depth))


def difference(reduced: Reconstruction, dense: Reconstruction) -> Difference:
    """The scores of the reduced result as if the dense one were true."""
    scores = evaluate(reduced, Truth(dense.depth, dense.world_from_camera, dense.intrinsics))
    return Difference(*(getattr(scores, field.name) for field in fields(Difference)))
