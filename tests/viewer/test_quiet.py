"""What is measured has the machine to itself: an app that waits does nothing, and leaves nothing that disturbs."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from spark3r.compare import turns
from tests.viewer.conftest import finish
from viewer.request import RunRequest
from viewer.server import LOOKS_FOR_CALLS_SECONDS, Running
from viewer.sessions import Sessions

ROOT = Path(__file__).parents[2]
THREADS = """
import json, os, time, torch
from viewer.engine import Models
before = len(os.listdir("/proc/self/task"))
Models().get("mini")
time.sleep(1)
loaded = len(os.listdir("/proc/self/task"))
torch.ones(1 << 22).mul(2)
print(json.dumps([before, loaded, len(os.listdir("/proc/self/task"))]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_loaded_model_leaves_no_workers_of_torch_behind() -> None:
    """As every thread that has computed does: with more of them than processors, none waits awake."""
    run = subprocess.run(
        [sys.executable, "-c", THREADS], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "2"}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    before, loaded, computed = json.loads(run.stdout)
    assert loaded == before
    assert computed == before + 1  # so it does tell


@pytest.mark.slow
def test_the_event_loop_of_an_idle_page_rests(page: Running) -> None:
    assert page.demo._queue.sleep_when_free == LOOKS_FOR_CALLS_SECONDS
    assert page.demo._queue.progress_update_sleep_when_free == LOOKS_FOR_CALLS_SECONDS


@pytest.mark.slow
def test_a_run_measured_again_sends_nothing_anew(
    sessions: Sessions, request_for: Callable[..., RunRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "reference_speed", lambda *about: 1e9)  # tests that run beside it change the machine's
    session = sessions.open("a")
    session.start(request_for())
    finish(session)
    seen = session.display.address
    measured = {run.name: len(run.measured) for run in session.runs.values()}
    session.start(request_for(), both=True)
    finish(session)
    assert session.display.address == seen
    assert all(len(run.measured) > measured[name] for name, run in session.runs.items())
    assert all(run.turns < len(run.measured) for run in session.runs.values())
