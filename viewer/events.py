"""The wires: which component calls what. A handler reads the page's values, calls the session, shows what came."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from spark3r.errors import InputError
from viewer import charts, downloads, planning
from viewer.engine import Engine
from viewer.layout import Components, Group
from viewer.run import Clip, RunRequest
from viewer.session import Session, Sessions
from viewer.state import SIDES, ReductionSettings, SamplingSettings, ViewSettings

LOOK_SECONDS = 0.2  # the page hears of a run five times a second

Updates = dict[Any, Any]  # {component: new value}
Values = Mapping[Any, Any]  # {component: value}
Told = TypeVar("Told")


class Handlers:
    """Every handler of the page; `wire` joins them to its components."""

    def __init__(self, page: Components, sessions: Sessions, engine: Engine, clips: tuple[Clip, ...]) -> None:
        self._page, self._sessions, self._engine, self._clips = page, sessions, engine, clips

    def opened(self, request: gr.Request) -> Updates:
        """A tab has loaded: give it panes, and a clip to start with."""
        session = self._sessions.open(str(request.session_hash))
        frames = {self._pane(side).frame: charts.iframe(side, session.panes[side].key) for side in SIDES}
        if self._clips:
            frames |= self._choose(session, self._clips[0]) | {self._page.gallery: gr.update(selected_index=0)}
        return frames

    def closed(self, request: gr.Request) -> None:
        """A tab has gone, or its connection hiccups."""
        self._sessions.leave(request.session_hash)

    def clip_picked(self, event: gr.SelectData, request: gr.Request) -> Updates:
        """One of the bundled clips was clicked."""
        session = self._sessions.of(request.session_hash)
        return self._choose(session, self._clips[event.index]) | {self._page.files: None}

    def files_changed(self, values: Values, request: gr.Request) -> Updates:
        """Files were dropped or taken away."""
        session = self._sessions.of(request.session_hash)
        paths = tuple(Path(path) for path in values[self._page.files] or ())
        if not paths:
            return gr.skip() if session.clip and session.clip.bundled else self._choose(session, self._clips[0])
        name = paths[0].name if len(paths) == 1 else f"{len(paths)} files"
        update = self._choose(session, Clip(name, paths))
        ours = self._clips.index(session.clip) if session.clip in self._clips else None
        return update | {self._page.gallery: gr.update(selected_index=ours)}

    def settings_changed(self, values: Values, request: gr.Request) -> Updates:
        """Frames, model or reduction moved: say what a run would be."""
        session = self._sessions.of(request.session_hash)
        mode = values[self._page.reduction.mode]
        return self._plan(session, values) | {
            self._page.model_note: charts.model_note(planning.card(values[self._page.sampling.model])),
            self._page.by_hand: gr.update(visible=mode == "manual"),
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
        if file_is_missing or not (values[self._page.rerun] and session.has_baseline):
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
            session.apply_view(ViewSettings.from_values(_named(self._page.view, values)))
        except InputError as error:
            gr.Warning(escape(str(error)), title="Out of range")  # an error would lose the event of the snap back

    def link_changed(self, linked: bool, request: gr.Request) -> None:
        """Linked cameras were switched."""
        self._sessions.of(request.session_hash).link_cameras(linked)

    def reset_view(self, request: gr.Request) -> None:
        """Both cameras go back to where a run first put them."""
        self._sessions.of(request.session_hash).reset_view()

    def _pane(self, side: str) -> Any:
        return getattr(self._page, side)

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
            self._page.clip: complaint + charts.clip_preview(session.clip.name, look.facts, look.thumbnails, look.notes)
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
            return {page.frames_plan: charts.message(str(error)), page.tokens_plan: ""}
        rows = [(row.card, row.needed_bytes, row.fits, row.is_chosen) for row in planning.overview(request)]
        return {
            page.frames_plan: charts.plan(plan.frames, plan.warning),
            page.tokens_plan: charts.plan(plan.tokens),
            page.model_table: charts.model_table(rows),
        }

    def _while_running(self, session: Session) -> Updates:
        report, page = session.report, self._page
        headings = {self._pane(side).heading: charts.pane_heading(side, report) for side in SIDES}
        return headings | {
            page.progress: charts.progress(report),
            page.readout: charts.readout(report),
            page.run: gr.update(interactive=False),
            page.stop: gr.update(interactive=True),
            page.differences: charts.differences(report.comparison),
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
    opened = demo.load(
        handlers.opened, None, [page.clip, page.gallery, page.dense.frame, page.reduced.frame], **quiet
    )  # fmt: skip
    picked = page.gallery.select(_plainly(handlers.clip_picked), None, [page.clip, page.files], **quiet)
    dropped = page.files.change(_plainly(handlers.files_changed), {page.files}, [page.clip, page.gallery], **quiet)
    planned_anew = _plainly(handlers.settings_changed)
    planned = [
        page.frames_plan, page.tokens_plan, page.model_note, page.model_table, page.by_hand, page.reduction.file,
    ]  # fmt: skip
    for event in (opened, picked, dropped):
        event.then(planned_anew, chosen, planned, **quiet)
    changes = [item.change for item in chosen]
    gr.on(changes, planned_anew, chosen, planned, trigger_mode="always_last", **quiet)
    demo.unload(handlers.closed)
    _wire_run(page, handlers, chosen)
    _wire_view(page, handlers)


def _wire_run(page: Components, handlers: Handlers, chosen: set[Any]) -> None:
    shown = [
        page.progress, page.readout, page.run, page.stop, page.differences, page.downloads,
        page.dense.heading, page.reduced.heading,
    ]  # fmt: skip
    options: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None}  # the run queue is ours
    page.run.click(handlers.run, chosen, shown, **options)
    dials = page.reduction
    released = [dial.release for dial in (dials.query_factor, dials.kv_factor, dials.group_size, dials.kv_boost)]
    moved = [*released, dials.mode.input, dials.policy.input, dials.file.upload]
    gr.on(moved, handlers.run_again, {*chosen, page.rerun}, shown, trigger_mode="always_last", **options)
    page.stop.click(_plainly(handlers.stop), None, None, queue=False)


def _wire_view(page: Components, handlers: Handlers) -> None:
    drawn = page.view.members()
    gr.on(
        [item.change for item in drawn.values()], _plainly(handlers.view_changed), set(drawn.values()), None,
        show_progress="hidden", trigger_mode="always_last",
    )  # fmt: skip
    page.reset.click(_plainly(handlers.reset_view), None, None, queue=False)
    page.linked.change(_plainly(handlers.link_changed), page.linked, None, show_progress="hidden")


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
