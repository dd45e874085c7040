"""Real footage meets the bundled model: one button fetches a better one, from a stand-in for the hub, and runs it."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from safetensors.torch import save

from spark3r.models.registry import ENTRIES
from tests.models.hub_server import Hub, serving
from tests.models.test_checkpoints import FILE, NAME, small
from tests.viewer.conftest import in_own_loop, wait_until
from viewer import planning
from viewer.engine import Engine, Models, RunQueue, outline
from viewer.handlers import Handlers
from viewer.layout import USUAL, Choices, build
from viewer.request import Clip
from viewer.run_handlers import RunHandlers
from viewer.session import Session
from viewer.sessions import Lifetimes, Sessions
from viewer.showing import Showing

VISITOR: Any = SimpleNamespace(session_hash="tab")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Has Depth Anything 3 Small in the official layout, at the size of its small oracle."""
    from huggingface_hub import constants

    entry, state = small("da3")
    monkeypatch.setitem(ENTRIES, NAME, entry)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for remembered in (outline, planning._needed):
        remembered.cache_clear()
    with serving(Hub({FILE: save(state)})) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running
    for remembered in (outline, planning._needed):
        remembered.cache_clear()


class Visit:
    """A visitor who has dropped photos, with the bundled model chosen."""

    def __init__(self, sessions: Sessions, engine: Engine, clip: Clip) -> None:
        with gr.Blocks():
            self.page = build(Choices((), [("mini", "mini"), ("da3", NAME)], "mini"))
        self.session: Session = sessions.open("tab")
        showing = Showing(self.page)
        self.handlers = Handlers(self.page, sessions, engine, (), (), showing)
        self.runs = RunHandlers(self.page, sessions, engine, self.handlers, showing)
        self.handlers._choose(self.session, clip)
        small_settings = {**USUAL, "resolution": 56, "kv_factor": 2}
        self.values = {part: small_settings[name] for name, part in self.page.settings.items()}

    def press(self, action: str, value: str) -> list[dict[Any, Any]]:
        """Everything the page hears until the action has ended."""
        event: Any = SimpleNamespace(action=action, value=value)

        async def heard() -> list[dict[Any, Any]]:
            return [update async for update in self.runs.acted(self.values, event, VISITOR)]

        return in_own_loop(heard())


@pytest.fixture
def visit(clip: Clip) -> Iterator[Visit]:
    """On an app of its own, which has no other model in memory yet."""
    engine = Engine(RunQueue(), Models())
    registry = Sessions(engine, Lifetimes(0.1, 60.0, 60.0))
    yield Visit(registry, engine, clip)
    registry.close()


@pytest.mark.slow
def test_the_button_says_what_it_costs_fetches_the_model_and_runs_it(hub: Hub, visit: Visit) -> None:
    told = visit.handlers.clip_settled(visit.values, VISITOR)[visit.page.footage]
    assert "Rough shape at best" in told
    assert "Use Depth Anything 3 Small" in told
    assert "Apache-2.0" in told
    updates = visit.press("better", NAME)
    assert updates[0][visit.page.sampling.model]["value"] == NAME
    assert visit.session.report.phase == "done", visit.session.report.message
    dense, reduced = visit.session.runs.values()
    assert {run.input.sampling.model for run in (dense, reduced)} == {NAME}
    assert reduced.scene is not None
    assert reduced.difference is not None
    assert any(FILE.rpartition("/")[2] in path for _, path, _ in hub.requests)
    (back,) = visit.press("show", reduced.name)
    assert back[visit.page.sampling.max_frames] == reduced.input.sampling.max_frames


def test_without_a_network_the_button_says_how_to_place_the_file(
    hub: Hub, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    visit.press("better", NAME)
    wait_until(lambda: not visit.session.report.is_busy)
    assert visit.session.report.phase == "failed"
    assert "no connection to the hub" in visit.session.report.message
    assert "--model PATH" in visit.session.report.message
    assert len(visit.session.runs) == 0
