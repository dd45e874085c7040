"""The page's smaller pieces of HTML: clips, models, plans, headings, progress, messages.

Every piece is a template in `static/`; values are escaped by the template engine, so file names and messages may
hold any characters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from spark3r.formatting import byte_count
from spark3r.models.checkpoints import ModelCard
from spark3r.stages import TITLES
from viewer.state import ExampleClip, RunReport, Side

STATIC = Path(__file__).parent / "static"


def progress(report: RunReport) -> str:
    """What happens right now, how far it is, and what the visitor should read."""
    percent = None if report.fraction is None else 100 * report.fraction
    running = next((run for run in report.live.values() if run.state == "running"), None)
    stage = TITLES.get(running.stage, running.stage) if running else ""
    return render("progress.html", report=report, percent=_percent(report) if percent is None else percent, stage=stage)


def _percent(report: RunReport) -> float:
    """How far the turn under way is."""
    running = next((run for run in report.live.values() if run.state == "running"), None)
    return 100 * running.fraction if running else 0.0


@dataclass(frozen=True)
class Heading:
    """What stands over a pane, and in it while there is nothing to see."""

    title: str
    subtitle: str = ""
    time: str = ""
    badge: str = ""
    state: Literal["empty", "fresh", "stale", "working"] = "empty"
    note: str = ""  # laid over the pane


def pane_heading(side: Side, heading: Heading) -> str:
    """Which run a pane shows, and what is to be known about it."""
    return render("pane_heading.html", side=side, heading=heading)


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


def reckoning() -> str:
    """What stands where the models will, while their memory is found out."""
    return '<p class="hint" role="status">Reckoning what each model asks for …</p>'


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


def footage(told: object | None) -> str:
    """The strip over the panes when a bundled model meets real footage; `told`: a planning.Footage."""
    return render("footage.html", told=told, byte_count=byte_count, coarse=coarse) if told else ""


def coarse(seconds: float) -> str:
    """A duration that is only guessed: "40 s", "3 min"."""
    return f"{max(5, 5 * round(seconds / 5))} s" if seconds < 90 else f"{round(seconds / 60)} min"


def message(text: str, kind: str = "error") -> str:
    """One sentence the visitor should read; nothing for an empty one."""
    return render("message.html", text=text, kind=kind) if text else ""


def downloads(links: Sequence[tuple[str, Sequence[tuple[str, str, str]]]], command: str) -> str:
    """Take-away links: (title, ((label, what it holds, url), …)) per run; and the command that makes the comparison."""
    return render("downloads.html", links=links, command=command)


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


@cache
def _templates() -> Environment:
    return Environment(loader=FileSystemLoader(STATIC), autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def render(template: str, **values: object) -> str:
    """A template of viewer/static filled in."""
    return _templates().get_template(template).render(**values)
