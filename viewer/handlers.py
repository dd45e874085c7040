"""Handlers of what a visitor sets: the clip, the frames, the model, the dials, the view."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from spark3r.errors import InputError
from viewer import charts, planning
from viewer.address import read_query
from viewer.calls import told
from viewer.dials import DialFace
from viewer.engine import Engine
from viewer.layout import Components
from viewer.parts import dial_view
from viewer.planning import Plan
from viewer.request import Clip, RunRequest
from viewer.session import Session
from viewer.sessions import Sessions
from viewer.showing import Showing, Updates, named
from viewer.state import SIDES, ExampleClip, ReductionSettings, SamplingSettings, ViewSettings

MOST_LETTERS = 200  # of what a page says it was told

Values = Mapping[Any, Any]  # {component: value}


def read_arrival(text: str) -> dict[str, str]:
    """What a page brought along; nothing of what is not text."""
    try:
        came = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return {name: value for name, value in came.items() if isinstance(value, str)} if isinstance(came, dict) else {}


def address_of(request: gr.Request) -> str:
    """Of the visitor's machine, by which visitors are told apart; a proxy on this machine names it."""
    return request.client.host if request.client else ""


class Handlers:
    """What is set, and what a run would therefore be."""

    def __init__(
        self,
        page: Components,
        sessions: Sessions,
        engine: Engine,
        clips: tuple[Clip, ...],
        cards: Sequence[ExampleClip],
        showing: Showing,
    ) -> None:
        self._page, self._sessions, self._engine = page, sessions, engine
        self._clips, self._cards, self._showing = clips, cards, showing

    @property
    def plan_parts(self) -> list[Any]:
        """What a plan updates."""
        page, dials = self._page, self._page.reduction
        return [
            page.frames_plan, page.frames_line, page.model_line, page.model_note, page.model_table, page.footage,
            dials.query_factor, dials.kv_factor, dials.file,
        ]  # fmt: skip

    def opened(self, arrival: str, request: gr.Request) -> Updates:
        """A page has loaded: give it panes, and the clip and settings of its address or of its earlier life."""
        came = read_arrival(arrival)
        session = self._sessions.open(
            str(request.session_hash), came.get("tab", ""), came.get("page", ""), address_of(request)
        )
        if came.get("tab") not in (None, "", session.key):
            gr.Info("The session of this page had ended; its settings were kept.", title="Begun anew")
        session.compares_models = False  # the page is as it was laid out
        frames = {
            getattr(self._page.panes, side).frame: charts.iframe(side, session.panes[side].key) for side in SIDES
        }  # fmt: skip
        example, wanted = read_query(came.get("query", ""))
        found = next((clip for clip in self._clips if clip.example == example), None)
        if found is not None or session.clip is None:
            self._choose(session, found or self._clips[0])
        return frames | self._clip_parts(session) | self._settings({**session.settings, **wanted})

    def example_picked(self, event: gr.EventData, request: gr.Request) -> Updates:
        """One of the example clips was clicked."""
        session = self._sessions.of(request.session_hash)
        (name,) = told(event, "value")
        picked = next((clip for clip in self._clips if clip.example == name), None)
        if picked is None:
            return gr.skip()
        self._choose(session, picked)
        return self._clip_parts(session) | {self._page.files: None}

    def files_changed(self, values: Values, request: gr.Request) -> Updates:
        """Files were dropped or taken away."""
        session = self._sessions.of(request.session_hash)
        paths = tuple(Path(path) for path in values[self._page.files] or ())
        session.use(paths)
        if paths:
            name = paths[0].name if len(paths) == 1 else f"{len(paths)} files"
            self._choose(session, Clip(name, paths))
        elif session.complaint or session.clip is None or not session.clip.bundled:
            self._choose(session, self._clips[0])
        return self._clip_parts(session)

    def upload_refused(self, event: gr.EventData, request: gr.Request) -> Updates:
        """The server would not take the files that were dropped, and said why."""
        session = self._sessions.of(request.session_hash)
        (why,) = told(event, "value")
        session.complaint = why[:MOST_LETTERS]
        return self._clip_parts(session)

    def clip_settled(self, values: Values, request: gr.Request) -> Updates:
        """A clip was chosen: say what a run would be, and show what was measured of it before."""
        session = self._sessions.of(request.session_hash)
        session.adopt()
        planned = self._planned(session, values)
        shown = session.runs.at("right")
        if session.planned and (shown is None or shown.input != session.planned[0]):
            before = session.runs.find(*session.planned) or session.runs.latest(session.planned[0])
            if before is not None and before.scene is not None and not session.is_working:
                session.show(before)
        return planned | self._showing.whole(session)

    def settings_changed(self, values: Values, request: gr.Request) -> Updates:
        """Frames, model or reduction moved: say what a run would be."""
        session = self._sessions.of(request.session_hash)
        return self._planned(session, values) | self._showing.whole(session)

    def models_unfolded(self, values: Values, request: gr.Request) -> Updates:
        """The table of all models was opened: what each asks for takes seconds, so nobody waits for it before."""
        session = self._sessions.of(request.session_hash)
        session.compares_models = True
        try:
            return {self._page.model_table: self._model_table(self.request(session, values))}
        except InputError as error:
            return {self._page.model_table: charts.message(str(error))}

    def models_folded(self, request: gr.Request) -> None:
        """It was closed."""
        self._sessions.of(request.session_hash).compares_models = False

    def dial_turned(self, values: Values, request: gr.Request) -> Any:
        """A dial was turned: that is by hand, whatever was chosen before."""
        return "manual" if values[self._page.reduction.mode] != "manual" else gr.skip()

    def view_changed(self, values: Values, request: gr.Request) -> None:
        """A view control moved: redraw both panes."""
        session = self._sessions.of(request.session_hash)
        try:
            session.apply_view(ViewSettings.from_values(named(self._page.panes.view, values)))
        except InputError as error:
            gr.Warning(escape(str(error)), title="Out of range")  # an error would lose the event of the snap back

    def request(self, session: Session, values: Values) -> RunRequest:
        """The run that the page asks for. Raises InputError for settings that make none."""
        if session.complaint:
            raise InputError(session.complaint)
        if session.clip is None or session.look is None:
            raise InputError("Choose a clip first: one of the examples, or drop a video or photos.")
        sampling = SamplingSettings.from_values(named(self._page.sampling, values))
        reduction = ReductionSettings.from_values(named(self._page.reduction, values))
        return RunRequest(session.clip, session.look.info, sampling, reduction)

    def _choose(self, session: Session, clip: Clip) -> None:
        """Take the clip if it can be read; else say why, and nothing runs until another one is chosen."""
        session.complaint = ""
        try:
            session.look, session.clip = planning.look_at(clip), clip
        except InputError as error:
            session.complaint = str(error)

    def _clip_parts(self, session: Session) -> Updates:
        page, look = self._page, session.look
        if session.complaint or session.clip is None or look is None:
            return {page.clip: charts.message(session.complaint), page.examples: charts.examples(self._cards, "")}
        return {
            page.clip: charts.clip_preview(session.clip.name, look.facts, look.thumbnails, look.notes),
            page.examples: charts.examples(self._cards, session.clip.example),
        }

    def _settings(self, wanted: Mapping[str, Any]) -> Updates:
        """The controls set to what an address or an earlier life of the page says."""
        parts = self._page.settings
        return {parts[name]: value for name, value in wanted.items() if name in parts and name != "file"}

    def _planned(self, session: Session, values: Values) -> Updates:
        page = self._page
        session.use(Path(file) for file in [values[page.reduction.file]] if file)
        session.settings = {name: values[part] for name, part in page.settings.items()}
        model, mode = values[page.sampling.model], values[page.reduction.mode]
        model = model if isinstance(model, str) else ""  # gradio takes "nothing chosen" for a choice
        card = planning.card(model)
        always = {
            page.model_note: charts.model_note(card),
            page.model_line: gr.update(label=f"Model: {card.title if card else Path(model).name}"),
            page.reduction.file: gr.update(visible=mode == "file"),
        }
        try:
            request = self.request(session, values)
            plan = planning.plan(request, self._engine.models)
        except InputError as error:
            session.planned = None
            return always | {page.frames_plan: "" if session.complaint else charts.message(str(error))}
        session.planned = request.input, plan.schedule
        session.sweep_seconds = partial(planning.sweep_seconds, request, self._engine.models)
        return always | self._plan_parts(session, request, plan)

    def _model_table(self, request: RunRequest) -> str:
        rows = [(row.card, row.needed_bytes, row.fits, row.is_chosen) for row in planning.overview(request)]
        return charts.model_table(rows)

    def _dial(self, request: RunRequest, face: DialFace) -> Any:
        """A dial redrawn; it is turned only where something else than the hand sets it."""
        if request.reduction.mode == "manual":
            return gr.update(view=dial_view(face))
        return gr.update(value=face.value, view=dial_view(face))

    def _plan_parts(self, session: Session, request: RunRequest, plan: Plan) -> Updates:
        page = self._page
        dials = zip((page.reduction.query_factor, page.reduction.kv_factor), plan.dials, strict=True)
        return {
            page.frames_line: gr.update(label=f"Frames: {plan.frames['Frames']}"),
            page.frames_plan: charts.plan(plan.frames, plan.warning),
            page.model_table: self._model_table(request) if session.compares_models else charts.reckoning(),
            page.footage: charts.footage(planning.footage(request, session.runs.flops_per_ms)),
            **{dial: self._dial(request, face) for dial, face in dials},
        }
