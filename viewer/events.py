"""The wires: which component calls what. A handler reads the page's values, calls the session, shows what came."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from spark3r.errors import InputError
from viewer import charts, downloads, planning
from viewer.engine import Engine
from viewer.layout import Components
from viewer.panes import Pane
from viewer.parts import Group, dial_view
from viewer.run import Clip, RunRequest
from viewer.session import Session, Sessions
from viewer.state import (
    SIDES,
    ExampleClip,
    Kind,
    ReductionSettings,
    RunReport,
    SamplingSettings,
    Side,
    ViewSettings,
)

LOOK_SECONDS = 0.2  # the page hears of a run five times a second

Updates = dict[Any, Any]  # {component: new value}
Values = Mapping[Any, Any]  # {component: value}
Told = TypeVar("Told")


class Handlers:
    """Every handler of the page; `wire` joins them to its components."""

    def __init__(
        self,
        page: Components,
        sessions: Sessions,
        engine: Engine,
        clips: tuple[Clip, ...],
        cards: Sequence[ExampleClip],
    ) -> None:
        self._page, self._sessions, self._engine, self._clips, self._cards = page, sessions, engine, clips, cards

    def opened(self, request: gr.Request) -> Updates:
        """A tab has loaded: give it panes, and a clip to start with."""
        session = self._sessions.open(str(request.session_hash))
        frames = {self._pane(side).frame: charts.iframe(side, session.panes[side].key) for side in SIDES}
        return frames | self._headings(session.report) | self._choose(session, self._clips[0])

    def closed(self, request: gr.Request) -> None:
        """A tab has gone, or its connection hiccups."""
        self._sessions.leave(request.session_hash)

    def example_picked(self, event: gr.EventData, request: gr.Request) -> Updates:
        """One of the example clips was clicked."""
        session = self._sessions.of(request.session_hash)
        picked = next((clip for clip in self._clips if clip.example == event.value), None)
        if picked is None:
            return gr.skip()
        return self._choose(session, picked) | {self._page.files: None}

    def files_changed(self, values: Values, request: gr.Request) -> Updates:
        """Files were dropped or taken away."""
        session = self._sessions.of(request.session_hash)
        paths = tuple(Path(path) for path in values[self._page.files] or ())
        if not paths:
            return gr.skip() if session.clip and session.clip.bundled else self._choose(session, self._clips[0])
        name = paths[0].name if len(paths) == 1 else f"{len(paths)} files"
        return self._choose(session, Clip(name, paths))

    def settings_changed(self, values: Values, request: gr.Request) -> Updates:
        """Frames, model or reduction moved: say what a run would be."""
        session = self._sessions.of(request.session_hash)
        mode = values[self._page.reduction.mode]
        model = values[self._page.sampling.model]
        card = planning.card(model)
        return self._plan(session, values) | {
            self._page.model_note: charts.model_note(card),
            self._page.model_line: gr.update(label=f"Model: {card.title if card else Path(model).name}"),
            self._page.reduction.file: gr.update(visible=mode == "file"),
        }

    async def run(self, values: Values, request: gr.Request) -> AsyncIterator[Updates]:
        """Start a run and follow it to its end."""
        try:
            session = self._sessions.of(request.session_hash)
            session.start(self._fitting(self._request(session, values)))
        except InputError as error:
            yield {self._page.progress: charts.message(str(error))}
            return
        while session.report.is_busy:
            yield self._while_running(session)
            await asyncio.sleep(LOOK_SECONDS)
        yield self._at_end(session)

    async def run_again(self, values: Values, request: gr.Request) -> AsyncIterator[Updates]:
        """A reduction slider was released: run anew if the visitor wants that and there is a baseline to compare to."""
        session = self._sessions.of(request.session_hash)
        dials = self._page.reduction
        file_is_missing = values[dials.mode] == "file" and not values[dials.file]
        if file_is_missing or not session.has_baseline:
            yield gr.skip()
            return
        while session.report.is_busy:
            await asyncio.sleep(LOOK_SECONDS)
        async for update in self.run(values, request):
            yield update

    def stop(self, request: gr.Request) -> None:
        """Stop was pressed."""
        self._sessions.of(request.session_hash).stop()

    def view_changed(self, values: Values, request: gr.Request) -> None:
        """A view control moved: redraw both panes."""
        session = self._sessions.of(request.session_hash)
        try:
            session.apply_view(ViewSettings.from_values(_named(self._page.panes.view, values)))
        except InputError as error:
            gr.Warning(escape(str(error)), title="Out of range")  # an error would lose the event of the snap back

    def _pane(self, side: Side) -> Pane:
        return getattr(self._page.panes, side)

    def _choose(self, session: Session, clip: Clip) -> Updates:
        """Take the clip if it can be read; otherwise say why and keep the one before."""
        complaint = ""
        try:
            session.look = planning.look_at(clip)
            session.clip = clip
        except InputError as error:
            complaint = charts.message(str(error))
        if session.clip is None or session.look is None:
            return {self._page.clip: complaint}
        look = session.look
        return {
            self._page.clip: complaint
            + charts.clip_preview(session.clip.name, look.facts, look.thumbnails, look.notes),
            self._page.examples: charts.examples(self._cards, session.clip.example),
        }

    def _request(self, session: Session, values: Values) -> RunRequest:
        if session.clip is None or session.look is None:
            raise InputError("Choose a clip first: one of the bundled ones, or drop a video or photos.")
        sampling = SamplingSettings.from_values(_named(self._page.sampling, values))
        reduction = ReductionSettings.from_values(_named(self._page.reduction, values))
        return RunRequest(session.clip, session.look.info, sampling, reduction)

    def _fitting(self, request: RunRequest) -> RunRequest:
        """The request, if memory will do: better to hear that before a download than after it."""
        plan = planning.plan(request, self._engine.models)
        if not plan.fits:
            raise InputError(plan.warning)
        return request

    def _plan(self, session: Session, values: Values) -> Updates:
        page, models = self._page, self._engine.models
        try:
            request = self._request(session, values)
            plan = planning.plan(request, models)
        except InputError as error:
            return {page.frames_plan: charts.message(str(error))}
        rows = [(row.card, row.needed_bytes, row.fits, row.is_chosen) for row in planning.overview(request)]
        dials = zip((page.reduction.query_factor, page.reduction.kv_factor), plan.dials, strict=True)
        return {
            page.frames_line: gr.update(label=f"Frames: {plan.frames['Frames']}"),
            page.frames_plan: charts.plan(plan.frames, plan.warning),
            page.model_table: charts.model_table(rows),
            **{dial: gr.update(value=face.value, view=dial_view(face)) for dial, face in dials},
        }

    def _headings(self, report: RunReport) -> Updates:
        kinds: tuple[Kind, Kind] = ("dense", "reduced")
        return {
            self._pane(side).heading: charts.pane_heading(kind, report) for side, kind in zip(SIDES, kinds, strict=True)
        }

    def _while_running(self, session: Session) -> Updates:
        report, page = session.report, self._page
        return self._headings(report) | {
            page.progress: charts.progress(report),
            page.readout: charts.readout(report),
            page.run: gr.update(interactive=False),
            page.stop: gr.update(interactive=True),
            page.differences: charts.differences(report.comparison),
            page.panes.strip: charts.strip(session.display.address),
        }

    def _at_end(self, session: Session) -> Updates:
        page = self._page
        return self._while_running(session) | {
            page.run: gr.update(interactive=True),
            page.stop: gr.update(interactive=False),
            page.downloads: charts.downloads(downloads.links(session)),
        }


def wire(demo: gr.Blocks, page: Components, handlers: Handlers) -> None:
    """Join the components to the handlers."""
    quiet: dict[str, Any] = {"show_progress": "hidden"}
    chosen = {*page.sampling.members().values(), *page.reduction.members().values()}
    panes = [page.panes.left, page.panes.right]
    told = [page.clip, page.examples]
    opened = demo.load(
        handlers.opened, None, [*told, *(part for pane in panes for part in (pane.frame, pane.heading))], **quiet
    )
    picked = page.examples.click(_plainly(handlers.example_picked), None, [*told, page.files], **quiet)
    dropped = page.files.change(_plainly(handlers.files_changed), {page.files}, told, **quiet)
    planned_anew = _plainly(handlers.settings_changed)
    dials = page.reduction
    planned = [
        page.frames_plan, page.frames_line, page.model_line, page.model_note, page.model_table,
        dials.query_factor, dials.kv_factor, dials.file,
    ]  # fmt: skip
    for event in (opened, picked, dropped):
        event.then(planned_anew, chosen, planned, **quiet)
    changes = [item.change for item in chosen if not isinstance(item, gr.HTML)]
    turned = [dials.query_factor.release, dials.kv_factor.release]
    gr.on([*changes, *turned], planned_anew, chosen, planned, trigger_mode="always_last", **quiet)
    demo.unload(handlers.closed)
    _wire_run(page, handlers, chosen)
    _wire_view(page, handlers)


def _wire_run(page: Components, handlers: Handlers, chosen: set[Any]) -> None:
    shown = [
        page.progress, page.readout, page.run, page.stop, page.differences, page.downloads,
        page.panes.left.heading, page.panes.right.heading, page.panes.strip,
    ]  # fmt: skip
    options: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None}  # the run queue is ours
    page.run.click(handlers.run, chosen, shown, **options)
    dials = page.reduction
    released = [dial.release for dial in (dials.query_factor, dials.kv_factor, dials.group_size, dials.kv_boost)]
    moved = [*released, dials.mode.input, dials.policy.input, dials.file.upload]
    gr.on(moved, handlers.run_again, chosen, shown, trigger_mode="always_last", **options)
    page.stop.click(_plainly(handlers.stop), None, None, queue=False)


def _wire_view(page: Components, handlers: Handlers) -> None:
    drawn = page.panes.view.members()
    gr.on(
        [item.change for item in drawn.values()], _plainly(handlers.view_changed), set(drawn.values()), None,
        show_progress="hidden", trigger_mode="always_last",
    )  # fmt: skip


def _plainly(handler: Callable[..., Told]) -> Callable[..., Told]:
    """The handler, with what the visitor should read shown as a notice."""

    @wraps(handler)
    def told(*arguments: Any) -> Told:
        try:
            return handler(*arguments)
        except InputError as error:
            raise gr.Error(escape(str(error)), print_exception=False) from error

    return told


def _named(group: Group, values: Values) -> dict[str, Any]:
    """{field name: value} of one group."""
    return {name: values[component] for name, component in group.members().items()}
