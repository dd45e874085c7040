"""The wires: which component calls what. A handler reads the page's values, calls the session, shows what came."""

import inspect
from collections.abc import Callable
from contextlib import aclosing
from functools import wraps
from html import escape
from typing import Any, TypeVar, cast

import gradio as gr

from spark3r.errors import InputError
from viewer.handlers import Handlers
from viewer.layout import Components
from viewer.run_handlers import RunHandlers
from viewer.showing import Showing

Told = TypeVar("Told")

PRIVATE: dict[str, Any] = {"api_visibility": "private"}  # scripts have entrances of their own (scripting.py)
QUIET: dict[str, Any] = {**PRIVATE, "show_progress": "hidden"}
AT_ONCE: dict[str, Any] = {**QUIET, "concurrency_limit": None}  # the line that runs stand in is ours
# Plans are answered in the order in which they were asked for: one made before a change must not replace the one after.
PLAN: dict[str, Any] = {**QUIET, "concurrency_id": "plans"}
EVERY: dict[str, Any] = {"trigger_mode": "multiple"}  # clicks, those that come before the last one was answered too

# What a page brings along: its own name, the session's key after a reload, and the settings in the address.
ARRIVAL = """() => [JSON.stringify({
  page: window.spark3rPage, tab: sessionStorage.getItem('spark3r') ?? '', query: location.search,
})]"""


def wire(demo: gr.Blocks, page: Components, handlers: Handlers, runs: RunHandlers, showing: Showing) -> None:
    """Join the components to the handlers."""
    settings = set(page.settings.values())
    told = [page.clip, page.examples, page.files]
    panes = [page.panes.left.frame, page.panes.right.frame]
    opened = demo.load(
        plainly(handlers.opened), page.tab, [*told, *panes, *page.settings.values()], js=ARRIVAL, **QUIET
    )
    points = page.panes.view.thousand_points
    demo.load(None, points, points, js=f"(chosen) => window.spark3r.points(chosen, {points.value})", **PRIVATE)
    picked = page.examples.click(plainly(handlers.example_picked), None, told, **EVERY, **QUIET)
    # One after the other: a refusal comes right after the field was emptied for what was refused.
    in_turn: dict[str, Any] = {**QUIET, "concurrency_id": "files"}
    dropped = page.files.change(plainly(handlers.files_changed), {page.files}, told, **in_turn)
    refused = page.clip.click(plainly(handlers.upload_refused), None, told, **EVERY, **in_turn)
    planned = [*handlers.plan_parts, *showing.parts]
    for event in (opened, picked, dropped, refused):
        event.then(plainly(handlers.clip_settled), settings, planned, **PLAN)
    opened.then(plainly(runs.follow), None, showing.parts, **AT_ONCE)
    # What is set by hand; what the page sets itself is followed by a plan of its own, made of all values together.
    sampling = page.sampling
    # `change` of the one with a range: a number out of it is brought back after Gradio has told of its release.
    by_hand = [
        sampling.max_frames.input, sampling.max_frames.change, sampling.fps.input, sampling.model.input,
        sampling.resolution.input,
    ]  # fmt: skip
    gr.on(by_hand, plainly(handlers.settings_changed), settings, planned, trigger_mode="always_last", **PLAN)
    page.all_models.expand(plainly(handlers.models_unfolded), settings, page.model_table, **QUIET)
    page.all_models.collapse(plainly(handlers.models_folded), None, None, **QUIET)
    _wire_runs(page, handlers, runs, showing, settings)
    _wire_view(page, handlers)


def _wire_runs(page: Components, handlers: Handlers, runs: RunHandlers, showing: Showing, settings: set[Any]) -> None:
    dials, planned = page.reduction, [*handlers.plan_parts, *showing.parts]
    page.run.click(plainly(runs.run), settings, showing.parts, **AT_ONCE)
    page.stop.click(plainly(runs.stop), None, None, queue=False, **PRIVATE)
    turned = gr.on(
        [dials.query_factor.release, dials.kv_factor.release], plainly(handlers.dial_turned), settings, dials.mode,
        trigger_mode="always_last", **QUIET,
    )  # fmt: skip
    moved = [dials.group_size.release, dials.kv_boost.release, dials.mode.input, dials.policy.input, dials.file.upload]
    for event in (turned, gr.on(moved, None, None, None, queue=False, **PRIVATE)):
        event.then(plainly(handlers.settings_changed), settings, planned, **PLAN).then(
            plainly(runs.run_again), settings, showing.parts, trigger_mode="always_last", **AT_ONCE
        )
    acted = [*page.settings.values(), *showing.parts]
    for block in (page.curve, page.runs, page.footage):
        block.click(plainly(runs.acted), settings, acted, **EVERY, **AT_ONCE).then(
            plainly(handlers.settings_changed), settings, planned, **PLAN
        )


def _wire_view(page: Components, handlers: Handlers) -> None:
    drawn = page.panes.view.members()
    gr.on(
        [item.change for item in drawn.values()], plainly(handlers.view_changed), set(drawn.values()), None,
        trigger_mode="always_last", **QUIET,
    )  # fmt: skip


def plainly(handler: Callable[..., Told]) -> Callable[..., Told]:
    """The handler, with what the visitor should read shown as a notice."""
    if inspect.isasyncgenfunction(handler):

        @wraps(handler)
        async def streamed(*arguments: Any) -> Any:
            try:
                async with aclosing(handler(*arguments)) as updates:
                    async for update in updates:
                        yield update
            except InputError as error:
                raise gr.Error(escape(str(error)), print_exception=False) from error

        return cast(Callable[..., Told], streamed)

    @wraps(handler)
    def told(*arguments: Any) -> Told:
        try:
            return handler(*arguments)
        except InputError as error:
            raise gr.Error(escape(str(error)), print_exception=False) from error

    return told
