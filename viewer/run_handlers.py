"""Handlers of runs: start, follow, stop, sweep, bring back, put side by side."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict

import gradio as gr

from spark3r.errors import InputError
from spark3r.models.checkpoints import named
from viewer import charts, planning, plot
from viewer.calls import ODD_CALL, told
from viewer.engine import Engine
from viewer.handlers import Handlers, Values
from viewer.layout import Components
from viewer.runs import KeptRun
from viewer.session import Session
from viewer.sessions import Sessions
from viewer.showing import Showing, Updates
from viewer.state import SIDES
from viewer.sweep import Grid

LOOK_SECONDS = 0.3  # the page hears of a run three times a second: each time takes some of the machine that is measured


class RunHandlers:
    """What runs, and which runs are looked at."""

    def __init__(
        self, page: Components, sessions: Sessions, engine: Engine, handlers: Handlers, showing: Showing
    ) -> None:
        self._page, self._sessions, self._engine = page, sessions, engine
        self._handlers, self._showing = handlers, showing

    async def run(self, values: Values, request: gr.Request) -> AsyncIterator[Updates]:
        """Run was pressed: measure the present settings, and the dense run too where these were measured before."""
        session = self._sessions.of(request.session_hash)
        try:
            again = session.planned is not None and session.runs.find(*session.planned) is not None
            self._start(session, values, both=again)
        except InputError as error:
            yield {self._page.progress: charts.message(str(error))}
            return
        async for update in self._followed(session):
            yield update

    async def run_again(self, values: Values, request: gr.Request) -> AsyncIterator[Updates]:
        """A dial was left somewhere else: show what was measured there, else measure it now."""
        session = self._sessions.of(request.session_hash)
        if not session.has_baseline or session.planned is None:
            yield gr.skip()
            return
        if not await self._stopped(session):
            yield self._showing.whole(session)
            return
        known = session.runs.find(*session.planned)
        if known is not None and known.scene is not None:
            session.show(known)
            yield self._showing.whole(session)
            return
        async for update in self.run(values, request):
            yield update

    async def follow(self, request: gr.Request) -> AsyncIterator[Updates]:
        """A page has loaded while something runs, its own run or the first example's."""
        session = self._sessions.of(request.session_hash)
        if not session.report.is_busy:
            yield gr.skip()
            return
        async for update in self._followed(session):
            yield update

    def stop(self, request: gr.Request) -> None:
        """Stop was pressed."""
        self._sessions.of(request.session_hash).stop()

    async def acted(self, values: Values, event: gr.EventData, request: gr.Request) -> AsyncIterator[Updates]:
        """Something in the plot or among the runs was clicked."""
        session = self._sessions.of(request.session_hash)
        try:
            action, value = told(event, "action", "value")
            if action == "sweep":
                queries, keys = told(event, "queries", "keys")
                session.grid = Grid.read(queries, keys, bool(event.others))
                session.sweep(self._handlers.request(session, values), session.grid)
                async for update in self._followed(session):
                    yield update
                return
            if action == "better":
                named(value)  # a path of this machine's is for who starts the app
                if not await self._stopped(session):
                    return
                self._start(session, {**values, self._page.sampling.model: value}, both=False)
                yield {self._page.sampling.model: gr.update(value=value)}
                async for update in self._followed(session):
                    yield update
                return
            yield self._act(session, action, value)
        except InputError as error:
            gr.Warning(str(error), title="Not done")
            yield gr.skip()

    def _act(self, session: Session, action: str, value: str) -> Updates:
        """An action that takes no time."""
        settings: Updates = {}
        if action in (*SIDES, "show") and value not in session.runs:
            raise InputError("There is no such run any more: reload the page.")
        if action == "measure":
            session.measure = value
        elif action == "stop-sweep":
            session.stop()
        elif action in SIDES:
            session.place(action, value)
            if action == "right":
                settings = self._dials(session.runs[value])
        elif action == "show":
            session.show(session.runs[value])
            settings = self._dials(session.runs[value])
        elif action == "within":
            found = plot.fastest_within(session.compared, session.measure, _percent(value) / 100)
            if found is None:
                raise InputError("No run is that good: sweep first, or allow more.")
            session.show(found)
            settings = self._dials(found)
        return settings | self._showing.whole(session)

    def _dials(self, run: KeptRun) -> Updates:
        """The controls as they were for a run."""
        wanted = {**asdict(run.input.sampling), **asdict(run.settings)}
        parts = self._page.settings
        return {parts[name]: value for name, value in wanted.items() if name != "file"}

    def _start(self, session: Session, values: Values, *, both: bool) -> None:
        request = self._handlers.request(session, values)
        plan = planning.plan(request, self._engine.models)
        if not plan.fits:  # better to hear that before a download than after it
            raise InputError(plan.warning)
        session.start(request, both=both)

    async def _stopped(self, session: Session) -> bool:
        """End what runs, and wait for that; False where the visitor wants something else again, or pressed Stop."""
        session.stop_run()
        wish = session.wishes
        while session.is_working:
            await asyncio.sleep(LOOK_SECONDS)
        return wish == session.wishes

    async def _followed(self, session: Session) -> AsyncIterator[Updates]:
        """What the page shows until the run has ended; a later follower of the same session takes over.

        Only what has changed is sent: what the page draws anew takes from the machine that is being measured.
        """
        session.followers += 1
        mine, version = session.followers, -1
        sent: Updates = {}
        while mine == session.followers:
            session.adopt()
            busy, now = session.report.is_busy, session.runs.version
            shown = self._showing.whole(session) if now != version or not busy else self._showing.moving(session)
            yield {part: value for part, value in shown.items() if not busy or sent.get(part) != value} or gr.skip()
            if not busy:
                return
            sent, version = sent | shown, now
            await asyncio.sleep(LOOK_SECONDS)


def _percent(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(ODD_CALL) from error
