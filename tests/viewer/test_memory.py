"""Memory before a run: asked for, waited for, refused with what to lower, and given back."""

import platform
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from spark3r.errors import Cancelled, InputError
from tests.viewer.conftest import Nobody
from viewer.engine import Engine, Models, RunQueue
from viewer.job import Job
from viewer.memory import POOLS, Memory
from viewer.request import RunRequest
from viewer.sessions import Sessions

ROOT = Path(__file__).parents[2]


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


THREADS = """
import ctypes, threading
from viewer.memory import share_pools
share_pools()
c, meeting = ctypes.CDLL(None), threading.Barrier(9)
c.malloc_info.argtypes = (ctypes.c_int, ctypes.c_void_p)
c.malloc.restype = ctypes.c_void_p
def work():
    c.malloc(5000)
    meeting.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]
meeting.wait()
c.malloc_info(0, ctypes.c_void_p.in_dll(c, "stdout"))
c.fflush(None)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_threads_share_few_pools_of_memory() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert 1 <= done.stdout.count("<heap nr=") <= POOLS, done.stdout + done.stderr
