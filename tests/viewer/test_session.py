"""A tab's belongings: they come with the tab, end with it, and are nobody else's."""

import socket
import threading
from collections.abc import Callable

import pytest

from spark3r.errors import InputError
from tests.viewer.conftest import finish, wait_until
from viewer.engine import Engine
from viewer.request import RunRequest
from viewer.session import Session
from viewer.sessions import Sessions
from viewer.state import ViewSettings

RequestFor = Callable[..., RunRequest]


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_closed_session_leaves_no_server_thread_or_file(engine: Engine) -> None:
    Session(engine).close()  # what is made once per process is made here
    before = threading.active_count()
    session = Session(engine)
    ports, folder = [pane.server.get_port() for pane in session.panes.values()], session.folder
    assert all(answers(port) for port in ports)
    session.close()
    assert not any(answers(port) for port in ports)
    assert not folder.exists()
    wait_until(lambda: threading.active_count() <= before)


def test_panes_listen_on_this_machine_only(sessions: Sessions) -> None:
    for pane in sessions.open("a").panes.values():
        assert pane.server.get_host() == "127.0.0.1"


def test_keys_open_only_what_they_belong_to(sessions: Sessions) -> None:
    first, second = sessions.open("a"), sessions.open("b")
    keys = {pane.key for one in (first, second) for pane in one.panes.values()}
    keys |= {first.download_key, second.download_key}
    assert len(keys) == 6
    assert min(len(key) for key in keys) >= 22  # 16 random bytes
    assert sessions.by_download_key(first.download_key) is first
    assert sessions.by_download_key("") is None
    assert sessions.server_of(first.download_key) is None
    assert sessions.server_of("a") is None


@pytest.mark.usefixtures("once")
def test_a_second_run_has_to_wait_for_the_first(engine: Engine, sessions: Sessions, request_for: RequestFor) -> None:
    session = sessions.open("a")
    with engine.queue.turn(lambda: False, lambda _: None):
        session.start(request_for())
        with pytest.raises(InputError, match="A run is going"):
            session.start(request_for())
        session.stop()
        wait_until(lambda: not session.report.is_busy)
    session.start(request_for())  # and afterwards the button works again
    finish(session)


def test_a_press_that_arrives_after_the_end_starts_nothing(engine: Engine, request_for: RequestFor) -> None:
    session = Session(engine)
    session.close()
    with pytest.raises(InputError, match="ended"):
        session.start(request_for())
    assert not session.is_working
    assert session._threads == {}


def test_a_machine_without_threads_left_wedges_no_tab(
    sessions: Sessions, request_for: RequestFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = sessions.open("a")

    def no_more(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_more)
        with pytest.raises(InputError, match="too busy"):
            session.start(request_for())
    assert not session.is_working


@pytest.mark.usefixtures("once")
def test_both_panes_hold_what_was_run_and_follow_the_view(sessions: Sessions, request_for: RequestFor) -> None:
    session = sessions.open("a")
    session.start(request_for())
    finish(session)
    clouds = [pane.scene._cloud for pane in session.panes.values()]
    assert all(cloud is not None and len(cloud.points) > 1000 for cloud in clouds)
    session.apply_view(ViewSettings(thousand_points=1, cameras=False))
    sizes = [pane.scene._cloud.point_size for pane in session.panes.values() if pane.scene._cloud is not None]
    session.apply_view(ViewSettings(thousand_points=1, point_size=200, cameras=False))
    for pane, size in zip(session.panes.values(), sizes, strict=True):
        assert pane.scene._cloud is not None
        assert len(pane.scene._cloud.points) == 1000
        assert pane.scene._cloud.point_size == pytest.approx(2 * size)
        assert pane.scene._cameras is not None
        assert not pane.scene._cameras.visible


@pytest.mark.usefixtures("once")
def test_another_clip_clears_the_old_reduced_cloud(sessions: Sessions, request_for: RequestFor) -> None:
    session = sessions.open("a")
    session.start(request_for())
    finish(session)
    session.start(request_for(max_frames=3))
    finish(session)
    assert len(session.scenes["left"]) == len(session.scenes["right"]) == 3
