"""What a session looks like on the page: its state as updates of components, whole or only what moves."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from spark3r.formatting import milliseconds
from viewer import address, charts, downloads, plot, readout
from viewer.charts import Heading
from viewer.layout import USUAL, Components
from viewer.panes import Pane
from viewer.runs import KeptRun
from viewer.session import Session
from viewer.state import SIDES, Side

Updates = dict[Any, Any]  # {component: new value}


class Showing:
    """Draws sessions on the page."""

    def __init__(self, page: Components) -> None:
        self._page = page

    @property
    def moving_parts(self) -> list[Any]:
        """What `moving` updates."""
        page = self._page
        return [page.progress, page.readout, page.run, page.stop, *(self._pane(side).heading for side in SIDES)]

    @property
    def parts(self) -> list[Any]:
        """What `whole` updates."""
        page = self._page
        return [*self.moving_parts, page.curve, page.runs, page.downloads, page.quality, page.address, page.panes.strip]

    def moving(self, session: Session) -> Updates:
        """What changes many times a second while a run works."""
        report, page = session.report, self._page
        left, right = (session.runs.at(side) for side in SIDES)
        headings = {self._pane(side).heading: charts.pane_heading(side, self._heading(session, side)) for side in SIDES}
        return headings | {
            page.progress: charts.progress(report),
            page.readout: readout.readout(left, right, report),
            page.run: gr.update(
                value=self._run_word(session), interactive=not session.is_working and not session.complaint
            ),
            page.stop: gr.update(interactive=session.is_working),
        }

    def whole(self, session: Session) -> Updates:
        """Everything that follows from the session's runs."""
        page = self._page
        left, right = (session.runs.at(side) for side in SIDES)
        return self.moving(session) | {
            page.curve: self._curve(session),
            page.runs: plot.chips(session.runs),
            page.downloads: charts.downloads(downloads.links(session), address.command(right) if right else ""),
            page.quality: readout.quality(left, right),
            page.address: self._address(session),
            page.panes.strip: charts.strip(session.display.address),
        }

    def _address(self, session: Session) -> str:
        query = address.query(session.clip, session.settings, USUAL) if session.settings else ""
        return charts.render("address.html", query=query, tab=session.key)

    def _curve(self, session: Session) -> str:
        source = session.planned[0] if session.planned else None
        dense = session.runs.dense(source) if source else None
        about = session.sweep_seconds
        seconds = about(session.grid, dense.cost.milliseconds) if about is not None and dense is not None else None
        estimate = f"about {charts.coarse(seconds)}" if seconds else ""
        return plot.curve(session.runs, source, session.measure, session.report, estimate, session.grid)

    def _run_word(self, session: Session) -> str:
        known = session.planned and session.runs.find(*session.planned)
        return "Measure again" if known else "Run"

    def _heading(self, session: Session, side: Side) -> Heading:
        run, report = session.runs.at(side), session.report
        if run is None:
            words = report.doing if report.is_busy else "Press Run: this clip was not reconstructed yet."
            return Heading("Dense" if side == "left" else "Spark3R", note=words or "Starting")
        title, subtitle = readout.title(run), f"{_settings(run)} · {run.input.clip.name}"
        times = len(run.measured)
        badge = "at app start" if run.at_start else f"median of {times}" if times > 1 else "measured once"
        time = milliseconds(run.cost.total_ms)
        if report.is_working and not report.is_sweep:
            return Heading(title, subtitle, time, badge, "working", report.doing)
        if session.is_stale(side):
            return Heading(title, subtitle, time, badge, "stale", "Settings changed: not yet run")
        return Heading(title, subtitle, time, badge, "fresh")

    def _pane(self, side: Side) -> Pane:
        return getattr(self._page.panes, side)


def _settings(run: KeptRun) -> str:
    return "every token attends" if run.is_dense else str(run.schedule)


def named(group: Any, values: Mapping[Any, Any]) -> dict[str, Any]:
    """{field name: value} of one group of components."""
    return {name: values[component] for name, component in group.members().items()}
