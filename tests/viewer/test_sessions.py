"""Sessions live by the signs of their page and end soon after them, whatever else arrives."""

import time
from collections.abc import Callable, Iterator

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from spark3r.errors import InputError
from tests.viewer.conftest import wait_until
from viewer import sessions as sessions_module
from viewer.alive import MOST_BYTES, alive_routes
from viewer.engine import Engine
from viewer.request import RunRequest
from viewer.sessions import MOST_PAGES, Lifetimes, Limits, Sessions

RequestFor = Callable[..., RunRequest]
LONG = 600.0


@pytest.fixture
def opened(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Sessions]]:
    """Makes registries that look ten times a second whose session is due, and ends them."""
    made: list[Sessions] = []
    monkeypatch.setattr(sessions_module, "REAP_SECONDS", 0.1)

    def make(lifetimes: Lifetimes, limits: Limits | None = None) -> Sessions:
        made.append(Sessions(engine, lifetimes, limits))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.slow
def test_a_lost_connection_ends_after_the_last_sign_of_life(opened: Callable[..., Sessions]) -> None:
    """It says no goodbye; and what its pane or a late call asks for is no sign of life."""
    sessions = opened(Lifetimes(closed_s=LONG, unseen_s=LONG, lost_s=0.4))
    session = sessions.open("hash", page="page")
    pane = session.panes["left"].key
    for beat in range(8):
        assert sessions.alive("page", beat)
        time.sleep(0.1)
    assert sessions.of("hash") is session  # longer than a silent one would have lived
    end = time.monotonic() + 5
    while len(sessions):
        sessions.server_of(pane)
        assert time.monotonic() < end, "asking for a session kept it alive"
        time.sleep(0.02)
    assert not sessions.alive("page", 99)
    with pytest.raises(InputError, match="reload"):
        sessions.of("hash")


def test_a_tab_closed_right_after_a_press_ends_with_its_run(
    opened: Callable[..., Sessions], engine: Engine, request_for: RequestFor
) -> None:
    """The press and a late sign of life arrive after the goodbye, and its run stood in line."""
    sessions = opened(Lifetimes(closed_s=0.3, unseen_s=LONG, lost_s=LONG))
    session = sessions.open("hash", page="page")
    assert sessions.alive("page", 1)
    with engine.queue.turn(lambda: False, lambda _: None):
        sessions.leave("page", 3)
        assert sessions.of("hash") is session  # the press …
        session.start(request_for())
        sessions.alive("page", 2)  # … and a sign that the goodbye overtook
        wait_until(lambda: engine.queue.length == 1)
        wait_until(lambda: not len(sessions), 5)
        wait_until(lambda: engine.queue.length == 0, 5)
    wait_until(lambda: session.report.phase == "stopped", 5)
    wait_until(lambda: not session.folder.exists(), 5)


def test_what_opens_a_session_and_is_no_page_keeps_none(opened: Callable[..., Sessions]) -> None:
    sessions = opened(Lifetimes(closed_s=LONG, unseen_s=0.3, lost_s=LONG))
    sessions.open("a script's hash")
    wait_until(lambda: not len(sessions), 5)
    assert not sessions._hashes
    assert not sessions._pages


def test_a_reloaded_page_finds_its_session(opened: Callable[..., Sessions]) -> None:
    """Its first sign of life may come seconds before it opens the session."""
    sessions = opened(Lifetimes(closed_s=0.3, unseen_s=LONG, lost_s=LONG))
    session = sessions.open("first", page="first page")
    sessions.leave("first page", 1)
    assert sessions.alive("second page", 1, session.key)
    time.sleep(0.8)
    assert sessions.open("second", session.key, "second page") is session
    assert not sessions.alive("third page", 1, "a key of nobody")


def test_a_session_stays_while_one_of_its_tabs_does(opened: Callable[..., Sessions]) -> None:
    sessions = opened(Lifetimes(closed_s=0.2, unseen_s=LONG, lost_s=LONG))
    session = sessions.open("tab", page="tab")
    sessions.open("copy", session.key, "copy")
    assert sessions.alive("copy", 1)
    sessions.leave("tab", 1)
    time.sleep(0.6)
    assert sessions.of("copy") is session


def test_what_cannot_be_tidied_keeps_no_session(
    opened: Callable[..., Sessions], caplog: pytest.LogCaptureFixture
) -> None:
    def full() -> None:
        raise OSError("no space left")

    sessions = opened(Lifetimes(closed_s=0.1, unseen_s=0.5, lost_s=LONG))
    sessions.tidy = full
    wait_until(lambda: "no space left" in caplog.text)
    sessions.open("hash")
    wait_until(lambda: not len(sessions))


def test_sessions_are_limited_by_address_and_in_all(opened: Callable[..., Sessions]) -> None:
    sessions = opened(Lifetimes(), Limits(total=2, per_address=1))
    first = sessions.open("a", address="10.0.0.1")
    with pytest.raises(InputError, match="from your machine"):
        sessions.open("b", address="10.0.0.1")
    assert sessions.open("a again", first.key, address="10.0.0.1") is first  # a reload is no further session
    sessions.open("c", address="10.0.0.2")
    with pytest.raises(InputError, match="As many visitors"):
        sessions.open("d", address="10.0.0.3")


def test_loading_one_session_again_and_again_fills_no_memory(opened: Callable[..., Sessions]) -> None:
    sessions = opened(Lifetimes())
    session = sessions.open("a", page="a")
    for number in range(3 * MOST_PAGES):
        sessions.open(f"hash {number}", session.key, f"page {number}")
    assert len(sessions._hashes) == len(sessions._pages) == MOST_PAGES
    assert sessions.of(f"hash {3 * MOST_PAGES - 1}") is session


def test_signs_of_life_come_over_http(opened: Callable[..., Sessions]) -> None:
    sessions = opened(Lifetimes(closed_s=0.2, unseen_s=LONG, lost_s=LONG))
    session = sessions.open("hash", page="page")
    client = TestClient(Starlette(routes=alive_routes(sessions)))
    sign = {"beat": 1, "key": session.key}
    assert client.post("/alive/page", json=sign).status_code == 204
    assert client.post("/alive/nobody", json=sign | {"key": ""}).status_code == 404
    for odd in (b"", b"[]", b'{"beat": "x"}', b'{"beat": 1e999, "key": ""}', b"[" * MOST_BYTES, b"x" * 100_000):
        assert client.post("/alive/nobody", content=odd).status_code == 404
    assert client.get("/alive/page").status_code == 405  # a link or an image of another site is no sign
    assert client.post("/alive/page/bye", json=sign | {"beat": 2}).status_code == 204
    wait_until(lambda: not len(sessions), 5)
