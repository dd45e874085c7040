"""Ctrl-C while packages are still being loaded: no word, exit code 130."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spark3r import interruption

ROOT = Path(__file__).parents[1]
LOADED_BY_THEN = ["_multiarray_umath", "libtorch_cpu"]  # of numpy; of torch, which has most of its import before it
PATIENCE_SECONDS = 60.0
SCRIPT = "from spark3r.__main__ import main\nraise SystemExit(main(['models']))\n"  # as pip writes it


@pytest.fixture(autouse=True)
def _hearing() -> Iterator[None]:
    """A process takes over whether its parent is deaf to Ctrl-C, as what a shell starts in the background is."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def has_loaded(process: subprocess.Popen[str], library: str) -> bool:
    return library in Path(f"/proc/{process.pid}/maps").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.checkout
@pytest.mark.parametrize("library", LOADED_BY_THEN)
@pytest.mark.parametrize("program", ["the module", "the script", "the page"])
def test_a_start_that_is_interrupted_says_nothing(program: str, library: str, tmp_path: Path) -> None:
    (tmp_path / "spark3r").write_text(SCRIPT)
    command = {
        "the module": ["-m", "spark3r", "models"],
        "the script": [str(tmp_path / "spark3r")],
        "the page": [str(ROOT / "app.py"), "--port", "17860"],
    }[program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        end = time.monotonic() + PATIENCE_SECONDS
        while not has_loaded(process, library):
            assert process.poll() is None, "it has ended without loading that"
            assert time.monotonic() < end
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, said, complained) == (interruption.INTERRUPTED, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["spark3r"]


@pytest.mark.parametrize(
    ("argv", "orig_argv", "is_it"),
    [
        (["-m", "models"], ["python", "-m", "spark3r", "models"], True),
        (["/usr/bin/spark3r", "models"], ["python", "/usr/bin/spark3r", "models"], True),
        (["-m"], ["python", "-m", "theirs"], False),
        (["theirs.py"], ["python", "theirs.py", "-m", "spark3r"], False),
        ([], ["python"], False),
    ],
)
def test_only_the_program_takes_the_signal(
    argv: list[str], orig_argv: list[str], is_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", orig_argv)
    assert interruption.is_the_program() is is_it


def test_the_signal_raises_again_once_the_program_works() -> None:
    interruption.leaves_at_once()
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    interruption.raises()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_is_deaf_to_it_or_has_a_way_of_its_own_keeps_that() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interruption.leaves_at_once()
    interruption.raises()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.skipif(sys.platform != "linux", reason="pipes as there")
@pytest.mark.parametrize("arguments", [["train", "--help"], ["models"]])
def test_a_reader_that_leaves_is_no_failure_of_ours(arguments: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "spark3r", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(PATIENCE_SECONDS) == 1
