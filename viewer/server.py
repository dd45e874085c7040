"""The page as a running server: everything is put together here, on one port."""

import base64
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import gradio as gr
import rich
from gradio.themes import Base
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware

from spark3r.examples import list_clips
from spark3r.models.checkpoints import list_models
from viewer.alive import alive_routes
from viewer.calls import OddCalls, Page
from viewer.charts import STATIC, model_label
from viewer.completed import Completed
from viewer.downloads import download_routes
from viewer.engine import Engine, Models, RunQueue
from viewer.events import wire
from viewer.forgetting import Forgetting
from viewer.guard import AccessPolicy, Guard
from viewer.handlers import Handlers
from viewer.health import health_routes
from viewer.layout import USUAL, Choices, build
from viewer.memory import set_apart, share_pools
from viewer.opening import Opening
from viewer.patience import be_patient
from viewer.proxy import pane_routes
from viewer.receiving import upload_routes
from viewer.request import Clip
from viewer.run_handlers import RunHandlers
from viewer.scripting import Scripting, offer
from viewer.sessions import MOST_PAGES, Lifetimes, Limits, Sessions
from viewer.showing import Showing
from viewer.state import ExampleClip, ReductionSettings, SamplingSettings
from viewer.timeline import timeline_routes
from viewer.uploads import Quota, Uploads

STYLES = ("style.css", "panes.css", "strip.css", "numbers.css")
SCRIPTS = ("alive.js", "upload.js", "page.js", "panes.js", "strip.js")
THEME = Base(
    primary_hue="orange", neutral_hue="slate", radius_size="md", spacing_size="sm", text_size="md",
    font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"], font_mono=["ui-monospace", "monospace"],
).set(
    button_primary_background_fill="#c2410c", button_primary_background_fill_hover="#9a3412",
    button_primary_background_fill_dark="#c2410c", button_primary_background_fill_hover_dark="#9a3412",
    button_primary_text_color="white", slider_color="#ea580c", block_label_text_weight="500",
    block_title_text_weight="500", block_title_text_size="13px", body_background_fill="#f8fafc",
    body_background_fill_dark="#0f1115", block_background_fill_dark="#171a20", background_fill_secondary_dark="#232730",
    border_color_primary_dark="#2b303a", input_background_fill_dark="#1d2128",
)  # fmt: skip

LOOKS_FOR_CALLS_SECONDS = 0.05  # gradio does a thousand times a second, which disturbs whatever is measured beside it

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Running:
    """A started page."""

    url: str
    demo: gr.Blocks
    sessions: Sessions


@dataclass(frozen=True)
class Access:
    """Where the page is served, and to whom."""

    host: str = "127.0.0.1"
    port: int = 7860
    share: bool = False  # through a public link of gradio's
    policy: AccessPolicy = field(default_factory=AccessPolicy)
    may_download: bool = True  # visitors may choose models that are not on this disk
    limits: Limits = field(default_factory=Limits)
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    quota: Quota = field(default_factory=Quota)
    health: bool = False  # answer /health and /metrics


def serve(access: Access, model: str, wait: Callable[[], None]) -> None:
    """Serve the page until `wait` returns. Raises InputError for a model that cannot be loaded."""
    with running(access, model) as page:
        print(f"Spark3R is at {page.url}  (Ctrl-C ends it)", flush=True)
        wait()


@contextmanager
def running(access: Access, model: str) -> Iterator[Running]:
    """The page, started in a background thread; everything it holds ends with the `with`."""
    rich.get_console().quiet = True  # viser prints the inner address of every pane, which nobody should open
    be_patient()
    share_pools()
    uploads = Uploads(Path(get_upload_folder()), access.quota)
    engine = Engine(RunQueue(), Models(access.may_download), uploads)
    if engine.models.at_hand(model) is None:
        engine.models.get(model)  # named on the command line: better to fail before the page is up
    opening = Opening(engine, *first_settings(model))
    sessions = Sessions(engine, access.lifetimes, access.limits, opening)
    demo = page(engine, sessions, model)
    set_apart()
    opening.start()
    try:
        _, local, public = demo.launch(
            server_name=access.host, server_port=access.port, share=access.share, prevent_thread_lock=True, quiet=True,
            inbrowser=False,
            theme=THEME, css_paths=[STATIC / name for name in STYLES],
            head="".join(f"<script>{(STATIC / name).read_text(encoding='utf-8')}</script>" for name in SCRIPTS),
            footer_links=[], run_history=False, enable_monitoring=False, ssr_mode=False,
            state_session_capacity=access.limits.total * MOST_PAGES,
            app_kwargs={
                "routes": [
                    *alive_routes(sessions),
                    *(health_routes(sessions, engine) if access.health else ()),
                    *upload_routes(uploads),
                    *pane_routes(sessions.server_of),
                    *download_routes(sessions.by_download_key),
                    *timeline_routes(sessions.timeline_of, sessions.choose_frame),
                ],
                "middleware": [Middleware(Guard, policy=access.policy), Middleware(Completed), Middleware(OddCalls)],
            },
        )  # fmt: skip
        sessions.tidy = Forgetting(demo, sessions.knows).tidy
        yield Running(public or local, demo, sessions)
    finally:
        opening.stop()
        sessions.close()
        _hang_up(demo)


def _hang_up(demo: gr.Blocks) -> None:
    """Close the port now, whatever pages still stream; what uvicorn would log of that is nobody's fault."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    if demo.server is not None:
        demo.server.force_exit = True
    demo.close(verbose=False)


def page(engine: Engine, sessions: Sessions, model: str) -> gr.Blocks:
    """The laid out and wired page."""
    ours = list_clips()
    clips = tuple(Clip(clip.title, (Path(clip.video),), clip.name) for clip in ours)
    models = [(model_label(card), card.name) for card in list_models()]
    if model not in [name for _, name in models]:
        models.append((Path(model).name, model))
    cards = [ExampleClip(clip.name, clip.title, f"{clip.frames} frames", _thumbnail(clip.thumbnail)) for clip in ours]
    choices = Choices(cards, models, model)
    with Page(
        title="Spark3R", analytics_enabled=False, fill_width=True,
    ) as demo:  # fmt: skip
        components = build(choices)
        showing = Showing(components)
        handlers = Handlers(components, sessions, engine, clips, cards, showing)
        offer(Scripting(engine, [name for _, name in models]))
        wire(demo, components, handlers, RunHandlers(components, sessions, engine, handlers, showing), showing)
    demo._queue.sleep_when_free = demo._queue.progress_update_sleep_when_free = LOOKS_FOR_CALLS_SECONDS
    return demo


def first_settings(model: str) -> tuple[SamplingSettings, ReductionSettings]:
    """What the first example is reconstructed with: everything as it stands on a fresh page."""
    usual = {**USUAL, "model": model}
    return SamplingSettings.from_values(usual), ReductionSettings.from_values(usual)


def _thumbnail(path: Path) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()
