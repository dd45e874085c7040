"""Memory before a run: asked for, waited for, refused with what to lower, and given back."""

import threading
from collections.abc import Callable

import pytest

from spark3r.errors import Cancelled, InputError
from tests.viewer.conftest import Nobody
from viewer.engine import Engine, Models, RunQueue
from viewer.job import Job
from viewer.memory import Memory
from viewer.request import RunRequest
from viewer.sessions import Sessions


def test_what_does_not_fit_is_refused_with_what_to_lower(request_for: Callable[..., RunRequest]) -> None:
    memory = Memory(free=lambda: 1000, patience_s=0.1)
    job = Job(request_for(), Engine(RunQueue(), Models(), memory=memory), Nobody())
    memory.held = lambda: 3 << 30
    job.work()
    assert job.report.phase == "failed"
    assert "fewer frames, a lower resolution, or a smaller model" in job.report.message
    assert "open pages hold 3" in job.report.message


def test_a_run_waits_for_memory_that_comes_free() -> None:
    free, told = [10], []

    def hear(words: str) -> None:
        told.append(words)
        free[0] = 1000

    Memory(free=lambda: free[0], patience_s=60).ask(500, lambda: False, hear)
    assert len(told) == 1
    assert "Waiting for memory" in told[0]


def test_stop_works_while_waiting_for_memory() -> None:
    stop = threading.Event()
    with pytest.raises(Cancelled):
        Memory(free=lambda: 10, patience_s=600).ask(500, stop.is_set, lambda _: stop.set())


def test_what_fits_does_not_wait() -> None:
    Memory(free=lambda: 1000, patience_s=600).ask(1000, lambda: False, lambda _: pytest.fail("waited"))
    with pytest.raises(InputError):
        Memory(free=lambda: 1000, patience_s=0.0).ask(1001, lambda: False, lambda _: None)


def test_what_sessions_hold_is_counted(engine: Engine, sessions: Sessions) -> None:
    session = sessions.open("a")
    assert engine.memory.held() == 0
    session.runs._kept["run"] = type("Kept", (), {"bytes": 123})()  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
    assert engine.memory.held() == 123
