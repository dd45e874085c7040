"""Starting: the port, and what is said when there is none."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.viewer.conftest import wait_until
from viewer import launch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of this machine that somebody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_taken_port_gives_the_next_and_says_so(taken: int, capsys: pytest.CaptureFixture[str]) -> None:
    port = launch.free_port("127.0.0.1", taken)
    assert port is not None
    assert taken < port < taken + launch.PORTS_TO_TRY
    assert f"Port {taken} is taken; using {port}." in capsys.readouterr().out


def test_no_free_port_is_one_sentence(
    taken: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "PORTS_TO_TRY", 1)
    assert launch.main(launch.Arguments(port=taken), lambda: None) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--port" in said


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70_000), ("127.0.0.1", -40), ("no.such.host.invalid", 7860)])
def test_what_cannot_be_listened_at_is_one_sentence(host: str, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(launch.Arguments(host=host, port=port), lambda: None) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert host in said


def test_an_unknown_model_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(launch.Arguments(port=17860, model="no-such-model"), lambda: None) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no-such-model" in said


@pytest.mark.slow
@pytest.mark.checkout
@pytest.mark.parametrize("how", ["terminated", "interrupted", "rank 0 is killed"])
def test_a_page_on_ranks_comes_up_and_all_end_with_it(how: str, tmp_path: Path) -> None:
    port = launch.free_port("127.0.0.1", 17900)
    log = tmp_path / "log"
    with log.open("wb") as file:
        app = subprocess.Popen(
            [sys.executable, str(ROOT / "app.py"), "--gpus", "2", "--port", str(port)],
            cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    try:
        wait_until(lambda: "Spark3R is at" in log.read_text() or app.poll() is not None, 180)
        assert app.poll() is None, log.read_text()
        ranks = children(app.pid)
        assert len(ranks) == 2
        if how == "interrupted":
            os.killpg(app.pid, signal.SIGINT)  # as a terminal does
        else:
            os.kill(*((app.pid, signal.SIGTERM) if how == "terminated" else (min(ranks), signal.SIGKILL)))
        assert app.wait(timeout=60) == (1 if "killed" in how else 0), log.read_text()
        assert not [rank for rank in ranks if Path(f"/proc/{rank}").exists()]
        assert ("rank 0 failed: it is gone" in log.read_text()) == ("killed" in how)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(app.pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"PPid:\t{pid}\n" in (folder / "status").read_text():
                found.append(int(folder.name))
    return found


def test_what_may_be_taken_depends_on_who_can_come() -> None:
    alone, served = (launch.access_of(launch.Arguments(host=host), 7860) for host in ("127.0.0.1", "0.0.0.0"))
    assert (alone.limits.per_address, alone.may_download) == (alone.limits.total, True)
    assert (served.limits.per_address, served.may_download) == (served.limits.total // 4, False)


@pytest.mark.parametrize("odd", [{"max_sessions": 0}, {"upload_gib": (2.0, 1.0, 3.0)}, {"auth": "nobody"}])
def test_odd_flags_are_one_sentence(odd: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(launch.Arguments(port=17860, **odd), lambda: None) == 1  # type: ignore[arg-type]
    assert capsys.readouterr().err.count("\n") == 1
