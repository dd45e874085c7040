"""The end of the process: at a signal soon, its files removed; at a second one at once; after a kill, by the next."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from viewer import scratch as scratch_module
from viewer.scratch import FRESH_SECONDS, LOCK, PREFIX, open_scratch, sweep

ROOT = Path(__file__).parents[2]
PATIENCE = 20  # seconds, on a machine that does other things

START = """
import sys, threading
from viewer.ending import Ending
from viewer.scratch import open_scratch
ending = Ending()
ending.listen()
scratch = open_scratch()
ending.tidy = scratch.remove
(scratch.uploads / "clip.mp4").write_bytes(b"x")
print("up", flush=True)
"""
HELD = "ending.wait()\nprint('asked', flush=True)\nthreading.Event().wait()\n"  # a run that does not end
WILLING = "ending.wait()\nending.leave(0)\n"
STARTING = "threading.Event().wait()\n"


@contextmanager
def started(code: str, place: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that runs START and this, at the place where it waits."""
    with subprocess.Popen(
        [sys.executable, "-c", START + code], cwd=ROOT, env={**os.environ, "TMPDIR": str(place)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            time.sleep(0.2)
            yield process
        finally:
            process.kill()


def folders(place: Path) -> list[Path]:
    return list(place.glob(f"{PREFIX}*"))


@pytest.mark.slow
@pytest.mark.parametrize("code", [WILLING, HELD])
def test_sigterm_ends_the_process_and_removes_its_files(code: str, tmp_path: Path) -> None:
    with started(code, tmp_path) as process:
        assert len(folders(tmp_path)) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert folders(tmp_path) == []


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    patient = "import viewer.ending\nviewer.ending.PATIENCE_SECONDS = 600\n"  # far longer than this test waits
    with started(patient + HELD, tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert folders(tmp_path) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_start_that_is_broken_off_says_nothing(number: signal.Signals, code: int, tmp_path: Path) -> None:
    with started(STARTING, tmp_path) as process:
        process.send_signal(number)
        assert process.wait(PATIENCE) == code
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert folders(tmp_path) == []


def test_the_next_start_sweeps_what_a_killed_one_left(tmp_path: Path) -> None:
    with started(STARTING, tmp_path):
        with started(STARTING, tmp_path) as process:
            process.kill()
        assert len(folders(tmp_path)) == 2
        sweep(tmp_path)
        assert len(folders(tmp_path)) == 1  # that of the one which lives
    sweep(tmp_path)
    assert folders(tmp_path) == []


def test_the_sweep_follows_no_link_and_spares_what_is_just_being_made(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / LOCK).touch()
    (tmp_path / f"{PREFIX}link").symlink_to(mine)
    fresh = tmp_path / f"{PREFIX}fresh"
    fresh.mkdir()
    sweep(tmp_path)
    assert (mine / LOCK).exists()
    assert fresh.exists()
    old = time.time() - 2 * FRESH_SECONDS
    os.utime(fresh, (old, old))
    sweep(tmp_path)
    assert not fresh.exists()


def test_everything_temporary_stands_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch_module.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "elsewhere")
    scratch = open_scratch()
    assert Path(scratch_module.tempfile.mkdtemp()).parent == scratch.path
    assert Path(os.environ["GRADIO_TEMP_DIR"]) == scratch.uploads
    scratch.remove()
    assert folders(tmp_path) == []
