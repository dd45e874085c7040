"""One comparison as one HTML file that needs no network: clouds, frames, times, scores, and the command behind it all."""

import base64
import html
import math
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from viser import ViserServer

from spark3r.compare import Comparison
from spark3r.reconstruction import STAGES, Reconstruction
from viewer.charts import STAGE_NAMES, STATIC, milliseconds, render
from viewer.scene import PaneScene
from viewer.state import SIDES, Side, ViewSettings
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
    ("Path, ATE / length", "rmse of camera centres after Sim(3), as share of the path", "ate_relative", 100, 2, " %", True),
    ("Rotation", "mean error of orientation", "rotation_deg", 1, 2, "°", True),
    ("Poses, AUC@3°", "relative poses of all pairs of frames, strict", "auc_3", 100, 1, " %", False),
    ("Poses, AUC@30°", "the same, loose", "auc_30", 100, 1, " %", False),
    ("Accuracy", "mean distance from the cloud to the truth, share of the diagonal", "accuracy", 100, 2, " %", True),
    ("Completeness", "mean distance from the truth to the cloud, share of the diagonal", "completeness", 100, 2, " %", True),
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


def comparison_report(comparison: Comparison, *, clip: str, command: str, dots: Sequence[Dot] = ()) -> str:
    """The report as HTML, a few megabytes to some tens of them.

    clip     its name, for a person
    command  that measures the same again
    dots     further runs of the clip for the plot; the two compared are always in it
    """
    dense, reduced = comparison.dense, comparison.reduced
    baseline = Baseline(dense)
    runs: dict[Side, Reconstruction] = {"left": dense, "right": reduced}
    titles: dict[Side, str] = {"left": "Dense", "right": "Spark3R"}
    timeline = Timeline(baseline, runs, titles, key="report")
    row = comparison.to_json()["rows"][1]
    return render(
        "report.html",
        clip=clip, command=command, schedule=str(reduced.schedule), titles=titles,
        views={side: _view(runs[side], baseline) for side in SIDES},
        world=timeline.description | {"sheets": _sheets(timeline)},
        total=_factor(comparison.speedup_total), aggregator=_factor(comparison.speedup_aggregator),
        bars=_bars(comparison), stages=STAGE_NAMES, scores=_quality(comparison), moved=_moved(comparison),
        has_truth=comparison.dense_truth is not None, plot=_plot([*_own_dots(comparison), *dots]),
        row=row, machine=comparison.machine, reused=comparison.dense_reused,
        styles=[(STATIC / name).read_text(encoding="utf-8") for name in ("report.css", "panes.css", "strip.css")],
        scripts=[(STATIC / name).read_text(encoding="utf-8") for name in ("panes.js", "strip.js")],
        buttons=(STATIC / "view_buttons.html").read_text(encoding="utf-8"),
    )  # fmt: skip


@contextmanager
def drawn(run: Reconstruction, baseline: Baseline, view: ViewSettings):
    """A viser server that nobody is connected to, with one run drawn and looked at as a pane first does."""
    server = ViserServer(host="127.0.0.1", port=0, verbose=False)
    try:
        pane = PaneScene(server, view)
        pane.show(run, baseline)
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
    return {
        f"{kind}-{number}": f"data:image/{'jpeg' if kind == 'input' else 'png'};base64,"
        + base64.b64encode(timeline.sheet(kind, number)).decode()
        for kind in timeline.description["kinds"]
        for number in range(count)
    }


def _bars(comparison: Comparison) -> list[dict[str, Any]]:
    costs = {"Dense": comparison.dense.cost, "Spark3R": comparison.reduced.cost}
    longest = max(cost.total_ms for cost in costs.values()) or 1.0
    return [
        {
            "title": title,
            "total": milliseconds(cost.total_ms),
            "stages": [
                (stage, STAGE_NAMES[stage], 100 * spent / longest, milliseconds(spent))
                for stage in STAGES
                if (spent := cost.milliseconds.get(stage, 0.0)) > 0
            ],
        }
        for title, cost in costs.items()
    ]


def _quality(comparison: Comparison) -> list[Row]:
    """Both runs against the truth, where there is one, and against what the footage shows."""
    rows = [_row(comparison.dense_consistency, comparison.reduced_consistency, *fit) for fit in _FIT]
    if comparison.dense_truth is not None:
        rows = [_row(comparison.dense_truth, comparison.reduced_truth, *score) for score in _SCORES] + rows
    return rows


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
    return Row(name, meaning + (", less is better" if less_is_better else ", more is better"), *cells, is_better)


def _moved(comparison: Comparison) -> list[tuple[str, str, str]]:
    """(what, meaning, how far the reduced run is from the dense one)."""
    return [
        (name, meaning, _number(factor * getattr(comparison.difference, attribute), decimals, unit))
        for name, meaning, attribute, factor, decimals, unit in _MOVED
    ]


def _number(value: float, decimals: int, unit: str, sign: str = "") -> str:
    return f"{value:{sign}.{decimals}f}{unit}" if math.isfinite(value) else "–"


def _factor(value: float) -> str:
    return f"{value:.2f}×" if math.isfinite(value) else "–"


def _own_dots(comparison: Comparison) -> list[Dot]:
    truth = comparison.dense_truth, comparison.reduced_truth
    errors = [
        comparison_error if scores is None else scores.abs_rel
        for scores, comparison_error in zip(truth, (0.0, comparison.difference.abs_rel), strict=True)
    ]
    costs = comparison.dense.cost, comparison.reduced.cost
    names = ("dense", str(comparison.reduced.schedule))
    kinds = ("dense", "reduced")
    return [
        Dot(name, cost.total_ms / 1000, error, kind)
        for name, cost, error, kind in zip(names, costs, errors, kinds, strict=True)
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
        "dots": [(dot, left + width * dot.seconds / most_s, top + height * (1 - dot.error / most_error)) for dot in dots],
        "across": [(left + width * i / 4, f"{most_s * i / 4:.3g}") for i in range(5)],
        "up": [(top + height * (1 - i / 4), f"{100 * most_error * i / 4:.2g}") for i in range(5)],
    }  # fmt: skip
