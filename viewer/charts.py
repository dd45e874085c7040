"""Numbers as HTML: the live readout, progress, pane headings, plan and differences.

Every piece is a template in `static/`; values are escaped by the template engine, so file names and messages may
hold any characters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from spark3r.compare import Comparison
from spark3r.formatting import byte_count, count, degrees, factor, milliseconds, percent
from spark3r.models.checkpoints import ModelCard
from spark3r.reconstruction import Cost
from spark3r.stages import STAGES
from spark3r.stages import TITLES as STAGE_NAMES
from viewer.state import TITLES, ExampleClip, Kind, RunReport, Side, SideReport

STATIC = Path(__file__).parent / "static"
LEAST_FRACTION = 0.05  # below that, what is done says nothing about what is to come


@dataclass(frozen=True)
class Segment:
    """One stage of one run in the stacked bar."""

    key: str
    name: str
    percent: float  # of the width of the chart
    time: str


@dataclass(frozen=True)
class Bar:
    """One run as a stacked bar."""

    side: Kind
    title: str
    badge: str
    total: str
    segments: Sequence[Segment]


class DifferenceRow(NamedTuple):
    """One line of the table of differences."""

    what: str
    hint: str
    reduced_to_dense: str
    dense_to_truth: str
    reduced_to_truth: str


def readout(report: RunReport) -> str:
    """The live readout: speed-up, stacked bars per stage, memory and tokens."""
    sides: dict[Kind, SideReport] = {"dense": report.dense, "reduced": report.reduced}
    longest = max(_expected_ms(side) for side in sides.values()) or 1.0
    return render(
        "readout.html",
        report=report,
        bars=[_bar(name, side, longest) for name, side in sides.items()],
        stages=[(key, STAGE_NAMES[key]) for key in STAGES],
        speedup=_speedup(report),
        facts=_facts(report.dense.cost, report.reduced.cost),
    )


def progress(report: RunReport) -> str:
    """Which stage runs, how far it is, and what the visitor should read."""
    side = report.reduced if report.phase in ("reduced", "comparing", "done") else report.dense
    stage = STAGE_NAMES.get(side.stage, side.stage)
    return render("progress.html", report=report, percent=_percent(report), stage=stage)


def pane_heading(name: Kind, report: RunReport) -> str:
    """Title, time and badge of a pane, and what an empty pane says."""
    side = report.dense if name == "dense" else report.reduced
    return render(
        "pane_heading.html",
        name=name,
        title=TITLES[name],
        subtitle="every token attends" if name == "dense" else report.schedule or "merged queries, pruned keys/values",
        side=side,
        time=milliseconds(side.cost.total_ms) if side.cost else "",
        busy=report.is_busy,
    )


def differences(comparison: Comparison | None) -> str:
    """What the reduction moved: against the baseline, and both runs against the truth where there is one."""
    return render("differences.html", rows=difference_rows(comparison), comparison=comparison)


def plan(lines: Mapping[str, str], warning: str = "") -> str:
    """What a run with the present settings would be, as {what: value}."""
    return render("plan.html", lines=lines, warning=warning)


def model_note(card: ModelCard | None) -> str:
    """What the chosen model is and under which licences; nothing for a file of the visitor's own."""
    return render("model_note.html", card=card, **_model_words(card)) if card else ""


def model_table(rows: Sequence[tuple[ModelCard, int, bool, bool]]) -> str:
    """Every model: (card, memory in bytes, whether that fits, whether it is the chosen one)."""
    models = [
        {"card": card, "memory": byte_count(needed), "fits": fits, "chosen": chosen, **_model_words(card)}
        for card, needed, fits, chosen in rows
    ]
    return render("model_table.html", models=models)


def model_label(card: ModelCard) -> str:
    """A model in the picker: its title, and what decides first."""
    if card.bundled:
        return card.title
    device = "CPU, recommended" if card.is_step_up else "GPU"
    return f"{card.title} · {device}{', non-commercial' if card.is_non_commercial else ''}"


def _model_words(card: ModelCard) -> dict[str, str]:
    millions = card.parameters / 1e6
    return {
        "parameters": f"{millions:.1f} M" if millions < 100 else f"{millions:,.0f} M".replace(",", "\u202f"),
        "download": "none" if card.bundled else byte_count(card.download_bytes),
        "device": "CPU and GPU" if card.suits_cpu else "GPU",
    }


def clip_preview(name: str, facts: str, frames: Sequence[str], notes: Sequence[str]) -> str:
    """The chosen clip: its name, what it is, a few of its frames (data URLs)."""
    return render("clip.html", name=name, facts=facts, frames=frames, notes=notes)


def message(text: str, kind: str = "error") -> str:
    """One sentence the visitor should read; nothing for an empty one."""
    return render("message.html", text=text, kind=kind) if text else ""


def downloads(links: Sequence[tuple[str, Sequence[tuple[str, str, str]]]]) -> str:
    """Take-away links: (title, ((label, what it holds, url), …)) per run."""
    return render("downloads.html", links=links)


def iframe(side: Side, pane_id: str) -> str:
    """The viser pane, through the app's own port."""
    return render("pane.html", side=side, title=f"3-D view, {side}", pane_id=pane_id)


def examples(clips: Sequence[ExampleClip], chosen: str) -> str:
    """The example clips as cards; none is marked while `chosen` names none of them."""
    return render("examples.html", clips=clips, chosen=chosen)


def strip(address: str) -> str:
    """Where the browser finds the frames that are shown; it draws the strip itself."""
    return render("strip.html", address=address) if address else ""


def static_page(name: str) -> str:
    """A template without values, such as the page header."""
    return render(name)


def difference_rows(comparison: Comparison | None) -> list[DifferenceRow]:
    """How far the runs are from each other and from the truth; "–" where that is unknown."""
    if comparison is None:
        return []
    moved, dense, reduced = comparison.difference, comparison.truth.get("dense"), comparison.truth.get("reduced")
    return [
        DifferenceRow(what, hint, *(write(getattr(scores, name, None)) for scores in (moved, dense, reduced)))
        for what, hint, name, write in (
            ("Depth", "mean relative error", "abs_rel", percent),
            ("Trajectory", "ATE, share of the path", "ate_relative", percent),
            ("Rotation", "mean angle", "rotation_deg", degrees),
            ("Surface", "Chamfer, share of the scene diagonal", "chamfer", percent),
        )
    ]


def _bar(name: Kind, side: SideReport, longest_ms: float) -> Bar:
    cost = side.cost
    segments = [
        Segment(key, STAGE_NAMES[key], 100 * spent / longest_ms, milliseconds(spent))
        for key in STAGES
        if (spent := _stages(side).get(key, 0.0)) > 0
    ]
    return Bar(
        side=name,
        title=TITLES[name],
        badge={"measured": "measured now", "reused": "reused"}.get(side.state, side.state),
        total=milliseconds(_total_ms(side)) if segments or cost else "–",
        segments=segments,
    )


def _facts(dense: Cost | None, reduced: Cost | None) -> list[tuple[str, str, str]]:
    """(what, of the dense run, of the reduced run)."""
    return [
        ("Attention, queries × keys", _tokens(dense), _tokens(reduced)),
        ("Peak memory", _peak(dense), _peak(reduced)),
    ]


def _peak(cost: Cost | None) -> str:
    return byte_count(cost.peak_bytes) if cost else "–"


def _tokens(cost: Cost | None) -> str:
    return f"{count(cost.query_tokens)} × {count(cost.kv_tokens)}" if cost else "–"


def _stages(side: SideReport) -> Mapping[str, float]:
    return side.cost.milliseconds if side.cost else side.milliseconds


def _total_ms(side: SideReport) -> float:
    return side.cost.total_ms if side.cost else side.elapsed_ms


def _expected_ms(side: SideReport) -> float:
    """How long the run will have taken, so that a growing bar has room to grow."""
    if side.cost is not None or side.state != "running":
        return _total_ms(side)
    return max(_total_ms(side), sum(side.milliseconds.values())) / max(side.fraction, LEAST_FRACTION)


def _speedup(report: RunReport) -> tuple[str, str] | None:
    """(aggregator, whole) as "4.2×", once both runs are done."""
    dense, reduced = report.dense.cost, report.reduced.cost
    if dense is None or reduced is None or reduced.aggregator_ms <= 0 or reduced.total_ms <= 0:
        return None
    return factor(dense.aggregator_ms / reduced.aggregator_ms), factor(dense.total_ms / reduced.total_ms)


def _percent(report: RunReport) -> float:
    """How far the whole run is: each side counts half, or the reduced side counts all when the dense is reused."""
    if report.phase == "done":
        return 100.0
    if report.dense.state == "reused":
        return 100 * report.reduced.fraction
    return 50 * (report.dense.fraction + report.reduced.fraction)


@cache
def _templates() -> Environment:
    return Environment(loader=FileSystemLoader(STATIC), autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def render(template: str, **values: object) -> str:
    return _templates().get_template(template).render(**values)
