"""The curve: every run as a dot in error against time, with the front that nothing beats; and the chips of all runs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from spark3r.formatting import NOTHING, degrees, factor, milliseconds, percent
from viewer.charts import render
from viewer.readout import title
from viewer.request import Input
from viewer.runs import KeptRun, Runs
from viewer.state import RunReport

HEADROOM = 1.12  # of the largest value, so that no dot stands on the edge
TICKS = 4


@dataclass(frozen=True)
class Measure:
    """An error that the plot can show: against the truth where there is one, else against the dense run."""

    key: str
    title: str
    field: str
    write: Callable[[float], str]


MEASURES = (
    Measure("depth", "Depth error (AbsRel)", "abs_rel", lambda value: percent(value, 1)),
    Measure("path", "Camera path error (ATE)", "ate_relative", lambda value: percent(value, 1)),
    Measure("rotation", "Rotation error", "rotation_deg", degrees),
    Measure("surface", "Surface error (Chamfer)", "chamfer", lambda value: percent(value, 1)),
)


@dataclass(frozen=True)
class Dot:
    """A run where it stands in the plot, in percent of its sides."""

    run: KeptRun
    label: str
    left: float
    bottom: float
    is_on_front: bool
    side: str  # the pane that shows it, or ""


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: its place and what is written there."""

    place: float  # percent
    text: str


def curve(runs: Runs, source: Input | None, measure_key: str, report: RunReport, estimate: str, grid: object) -> str:
    """The plot of every run of these frames, and the sweep's controls."""
    measure = next((each for each in MEASURES if each.key == measure_key), MEASURES[0])
    placed = [(run, run.total.median, _error(run, measure)) for run in (runs.of(source) if source else [])]
    known = [(run, spent, error) for run, spent, error in placed if math.isfinite(error)]
    width = HEADROOM * max([spent for _, spent, _ in known], default=1000.0)
    height = HEADROOM * max([error for _, _, error in known], default=0.01) or 0.01
    front = pareto([(spent, error) for _, spent, error in known])
    dots = [
        Dot(
            run, _label(run, measure, error), 100 * spent / width, 100 * error / height, index in front,
            side_of(runs, run),
        )
        for index, (run, spent, error) in enumerate(known)
    ]  # fmt: skip
    return render(
        "curve.html", dots=dots, front=_steps([dots[index] for index in front]), measures=MEASURES, measure=measure,
        across=[Tick(100 * at / width, f"{at / 1000:g} s") for at in ticks(width)],
        up=[Tick(100 * at / height, measure.write(at)) for at in ticks(height)],
        truth=any(run.truth is not None for run, _, _ in known), report=report, estimate=estimate, grid=grid,
        kinds=list(dict.fromkeys((run.policy, title(run)) for run, _, _ in known)),
    )  # fmt: skip


def chips(runs: Runs) -> str:
    """Every run as a chip: settings, factor, error, and into which pane to put it."""
    rows = [
        {
            "run": run, "name": short_name(run), "side": side_of(runs, run),
            "factor": "1×" if run.is_dense else factor(run.against.total.median if run.against.total else None),
            "error": percent(error, 1) if math.isfinite(error := _error(run, MEASURES[0])) else NOTHING,
        }
        for run in reversed(list(runs.values()))
    ]  # fmt: skip
    return render("chips.html", rows=rows)


def short_name(run: KeptRun) -> str:
    """A run in a few characters."""
    if run.is_dense:
        return "Dense"
    schedule = run.schedule
    words = f"q {schedule.query_factor} · kv {schedule.kv_factor}"
    if run.policy == "spark3r":
        return f"auto · {words}" if run.settings.mode == "auto" else words
    return schedule.word.replace(":", " ").capitalize()  # "Uniform 4", "Chunked 12+4"


def fastest_within(runs: Sequence[KeptRun], measure_key: str, tolerance: float) -> KeptRun | None:
    """The fastest run whose error is at most so much (0.05: 5 %) above that of the dense one."""
    measure = next((each for each in MEASURES if each.key == measure_key), MEASURES[0])
    dense = next((run for run in runs if run.is_dense), None)
    if dense is None:
        return None
    limit = _error(dense, measure) * (1 + tolerance) if dense.truth is not None else tolerance
    fitting = [run for run in runs if run.scene is not None and _error(run, measure) <= limit]
    return min(fitting, key=lambda run: run.total.median, default=None)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of the (time, error) points no other one beats in both, by rising time."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda each: points[each]):
        if not front or points[index][1] < points[front[-1]][1]:
            front.append(index)
    return front


def ticks(largest: float) -> list[float]:
    """Round values from 0 up to `largest`, about four."""
    step = 10.0 ** math.floor(math.log10(largest / TICKS))
    step *= next(times for times in (1, 2, 5, 10) if largest / (times * step) <= TICKS + 1)
    return [step * index for index in range(int(largest / step) + 1)]


def side_of(runs: Runs, run: KeptRun) -> str:
    """The panes that show a run: "left", "right", "left right" or ""."""
    return " ".join(side for side, name in runs.shown.items() if name == run.name)


def _error(run: KeptRun, measure: Measure) -> float:
    """Against the truth; without one, against the dense run, whose own error is then 0."""
    if run.truth is not None:
        return float(getattr(run.truth, measure.field))
    if run.is_dense:
        return 0.0
    return float(getattr(run.difference, measure.field)) if run.difference is not None else math.nan


def _label(run: KeptRun, measure: Measure, error: float) -> str:
    return f"{short_name(run)}: {milliseconds(run.total.median)}, {measure.title.lower()} {measure.write(error)}"


def _steps(dots: Sequence[Dot]) -> str:
    """The front as the points of a polyline, in percent, y down: level until the next run takes over."""
    places = []
    for dot, after in zip_longest(dots, dots[1:]):
        places.append(f"{dot.left:.2f},{100 - dot.bottom:.2f}")
        if after is not None:
            places.append(f"{after.left:.2f},{100 - dot.bottom:.2f}")
    return " ".join(places)
