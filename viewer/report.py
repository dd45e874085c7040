"""One comparison as one HTML file that needs no network: clouds, frames, times, scores, and the command behind it."""

import base64
import html
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import rich
from viser import ViserServer

from spark3r.compare import DENSE, Comparison, Difference, Factor, Samples
from spark3r.formatting import factor, factor_range, milliseconds
from spark3r.metrics import Consistency, Scores
from spark3r.reconstruction import Cost, Reconstruction
from spark3r.stages import STAGES
from spark3r.stages import TITLES as STAGE_NAMES
from spark3r.stopping import may_stop
from viewer.charts import STATIC, render
from viewer.locked_viser import open_viser
from viewer.scene import PaneScene
from viewer.state import SIDES, ViewSettings
from viewer.timeline import PER_SHEET, Timeline
from viewer.world import Baseline

THOUSAND_POINTS = 200  # in each cloud: two megabytes
PLOT = (560, 230)  # pixels, with the margins
MARGIN = (64, 16, 18, 44)  # left, right, top, bottom


@dataclass(frozen=True)
class Dot:
    """One run in the plot of error against time."""

    name: str
    seconds: float
    error: float  # mean relative depth error, or difference to dense where there is no truth
    kind: str = "reduced"  # or "dense"


class Row(NamedTuple):
    """One line of the quality table."""

    name: str
    meaning: str
    dense: str
    reduced: str
    change: str
    is_better: bool | None  # of the reduced run; None for no difference that is shown


# name, meaning, attribute, factor, decimals, unit, whether less is better
_SCORES = (
    ("Depth, AbsRel", "mean |depth - truth| / truth after one scale", "abs_rel", 100, 2, " %", True),
    ("Depth, δ < 1.25", "share of pixels within a factor of 1.25", "delta_1_25", 100, 1, " %", False),
    ("Path, ATE / length", "rmse of centres after Sim(3), share of the path", "ate_relative", 100, 2, " %", True),
    ("Rotation", "mean error of orientation", "rotation_deg", 1, 2, "°", True),
    ("Poses, AUC@3°", "relative poses of all pairs of frames, strict", "auc_3", 100, 1, " %", False),
    ("Poses, AUC@30°", "the same, loose", "auc_30", 100, 1, " %", False),
    ("Accuracy", "mean distance from the cloud to the truth, share of the diagonal", "accuracy", 100, 2, " %", True),
    ("Completeness", "mean distance from truth to cloud, share of the diagonal", "completeness", 100, 2, " %", True),
)  # fmt: skip
_FIT = (
    ("Epipolar distance", "median of matched features from their epipolar lines", "epipolar_px", 1, 2, " px", True),
    ("Reprojection", "median of matched features from where depth puts them", "reprojection_px", 1, 2, " px", True),
)
_MOVED = (
    ("Depth", "mean relative difference", "abs_rel", 100, 2, " %"),
    ("Path", "ATE / length of the dense path", "ate_relative", 100, 2, " %"),
    ("Rotation", "mean difference", "rotation_deg", 1, 2, "°"),
    ("Surface", "Chamfer distance, share of the diagonal", "chamfer", 100, 2, " %"),
)


@dataclass(frozen=True, eq=False)
class Compared:
    """One of the two runs of a report."""

    title: str
    scene: Reconstruction  # in the world of the baseline
    cost: Cost  # medians
    total: Samples  # milliseconds of the whole run
    truth: Scores | None = None  # where the clip has a truth
    fit: Consistency | None = None  # to what the pictures show


@dataclass(frozen=True, eq=False)
class Content:
    """Everything a report tells; `html()` writes it."""

    clip: str
    command: str  # measures the same again
    baseline: Baseline
    left: Compared  # as a rule the dense run
    right: Compared
    difference: Difference | None  # of the right run from the dense one
    total: Factor | None  # left ÷ right, of the whole run; None where it must not be divided
    aggregator: Factor | None
    arithmetic: float | None
    machine: Mapping[str, Any]
    dots: tuple[Dot, ...] = ()  # further runs of the clip, for the plot
    doubt: str = ""  # what to know before believing the times

    @classmethod
    def of(cls, comparison: Comparison, *, clip: str, command: str) -> "Content":
        """The dense run and the first other of a comparison."""
        names = (DENSE, comparison.run().name)
        left, right = (
            Compared(title, run.scene, run.cost, run.total, comparison.truth.get(name), comparison.consistency[name])
            for title, name in zip(("Dense", "Spark3R"), names, strict=True)
            for run in (comparison.runs[name],)
        )
        doubt = comparison.doubt() or ("The machine was busy meanwhile." if comparison.busy else "")
        return cls(
            clip, command, Baseline(comparison.dense), left, right, comparison.difference, comparison.total_factor(),
            comparison.aggregator_factor(), comparison.arithmetic_factor(), comparison.machine, doubt=doubt,
        )  # fmt: skip

    def html(self) -> str:
        """The report, a few megabytes to some tens of them."""
        sides = dict(zip(SIDES, (self.left, self.right), strict=True))
        runs = {side: one.scene for side, one in sides.items()}
        timeline = Timeline(self.baseline, runs, {side: one.title for side, one in sides.items()}, key="report")  # pyright: ignore[reportArgumentType]
        return render(
            "report.html", content=self, sides=sides,
            views={side: _view(run, self.baseline) for side, run in runs.items()},
            world=timeline.description | {"sheets": _sheets(timeline)},
            factors=_factors(self), bars=_bars(self), stages=STAGE_NAMES, scores=_quality(self), moved=_moved(self),
            plot=_plot([*_own_dots(self), *self.dots]),
            styles=[_static(name) for name in ("report.css", "panes.css", "strip.css")],
            scripts=[_static(name) for name in ("panes.js", "strip.js")], buttons=_static("view_buttons.html"),
        )  # fmt: skip


def _static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


@contextmanager
def drawn(run: Reconstruction, baseline: Baseline, view: ViewSettings) -> Iterator[ViserServer]:
    """A viser server that nobody is connected to, with one run drawn and looked at as a pane first does."""
    rich.get_console().quiet = True  # viser prints the address of every server, this one's into the answer
    server = open_viser()
    try:
        pane = PaneScene(server, view)
        may_stop()
        pane.show(run, baseline)
        may_stop()
        pane.look(baseline.framing.fit())
        yield server
    finally:
        server.stop()


def recording(run: Reconstruction, baseline: Baseline, view: ViewSettings) -> bytes:
    """A run as it is drawn in a pane, in viser's own `.viser` format."""
    with drawn(run, baseline, view) as server:
        return server.get_scene_serializer().serialize()


def _view(run: Reconstruction, baseline: Baseline) -> str:
    """viser's own page with one cloud, as the content of a frame."""
    with drawn(run, baseline, ViewSettings(thousand_points=THOUSAND_POINTS)) as server:
        return html.escape(server.scene.as_html(dark_mode=True), quote=True)


def _sheets(timeline: Timeline) -> dict[str, str]:
    """Every sheet of the strip as a data URL, by "<kind>-<number>"."""
    count = math.ceil(len(timeline.baseline.scene) / PER_SHEET)
    kinds = timeline.description["kinds"]
    return {f"{kind}-{number}": _sheet(timeline, kind, number) for kind in kinds for number in range(count)}


def _sheet(timeline: Timeline, kind: str, number: int) -> str:
    may_stop()
    picture = base64.b64encode(timeline.sheet(kind, number)).decode()
    return f"data:image/{'jpeg' if kind == 'input' else 'png'};base64,{picture}"


def _factors(content: Content) -> list[tuple[str, str, str]]:
    """(factor, its range, what it covers)"""
    ranged = (
        (content.total, "whole run, dense ÷ reduced"),
        (content.aggregator, "frame attention, global attention and matching alone"),
    )
    rows = [
        (factor(one and one.median), factor_range(one.low, one.high) if one else "", words) for one, words in ranged
    ]
    return [*rows, (factor(content.arithmetic), "", "in arithmetic (FLOP), which no noise touches")]


def _bars(content: Content) -> list[dict[str, Any]]:
    both = (content.left, content.right)
    longest = max(sum(one.cost.milliseconds.get(stage, 0.0) for stage in STAGES) for one in both) or 1.0
    return [
        {
            "title": one.title,
            "total": milliseconds(one.total.median) + (f", median of {len(one.total)}" if len(one.total) > 1 else ""),
            "stages": [
                (stage, STAGE_NAMES[stage], 100 * spent / longest, milliseconds(spent))
                for stage in STAGES
                if (spent := one.cost.milliseconds.get(stage, 0.0)) > 0
            ],
        }
        for one in both
    ]


def _quality(content: Content) -> list[Row]:
    """Both runs against the truth, where there is one, and against what the footage shows."""
    left, right = content.left, content.right
    rows = [_row(left.truth, right.truth, *score) for score in _SCORES] if left.truth and right.truth else []
    return rows + ([_row(left.fit, right.fit, *fit) for fit in _FIT] if left.fit and right.fit else [])


def _row(
    dense: Any, reduced: Any, name: str, meaning: str, attribute: str,
    factor: float, decimals: int, unit: str, less_is_better: bool,
) -> Row:  # fmt: skip
    before, after = (factor * getattr(scores, attribute) for scores in (dense, reduced))
    change = after - before
    is_better = None
    if math.isfinite(change) and round(change, decimals):
        is_better = (change < 0) == less_is_better
    cells = [_number(before, decimals, unit), _number(after, decimals, unit), _number(change, decimals, unit, "+")]
    return Row(name, meaning + (", less is better" if less_is_better else ", more is better"), *cells, is_better)  # pyright: ignore[reportCallIssue]


def _moved(content: Content) -> list[tuple[str, str, str]]:
    """(what, meaning, how far the right run is from the dense one)."""
    if content.difference is None:
        return []
    return [
        (name, meaning, _number(times * getattr(content.difference, attribute), decimals, unit))
        for name, meaning, attribute, times, decimals, unit in _MOVED
    ]


def _number(value: float, decimals: int, unit: str, sign: str = "") -> str:
    return f"{value:{sign}.{decimals}f}{unit}" if math.isfinite(value) else "–"


def _own_dots(content: Content) -> list[Dot]:
    moved = content.difference.abs_rel if content.difference else math.nan
    return [
        Dot(
            str(one.scene.schedule),
            one.total.median / 1000,
            one.truth.abs_rel if one.truth else 0.0 if one.scene.schedule.is_off else moved,
            "dense" if one.scene.schedule.is_off else "reduced",
        )
        for one in (content.left, content.right)
    ]


def _plot(dots: Sequence[Dot]) -> dict[str, Any]:
    """Places of the dots and of the ticks, both axes from 0."""
    dots = [dot for dot in dots if math.isfinite(dot.seconds) and math.isfinite(dot.error)]
    left, right, top, bottom = MARGIN
    width, height = PLOT[0] - left - right, PLOT[1] - top - bottom
    most_s = max((dot.seconds for dot in dots), default=0) * 1.12 or 1.0
    most_error = max((dot.error for dot in dots), default=0) * 1.2 or 0.01
    return {
        "width": PLOT[0], "height": PLOT[1], "left": left, "top": top, "right": left + width, "bottom": top + height,
        "dots": [
            (dot, left + width * dot.seconds / most_s, top + height * (1 - dot.error / most_error)) for dot in dots
        ],
        "across": [(left + width * i / 4, f"{most_s * i / 4:.3g}") for i in range(5)],
        "up": [(top + height * (1 - i / 4), f"{100 * most_error * i / 4:.2g}") for i in range(5)],
    }  # fmt: skip
