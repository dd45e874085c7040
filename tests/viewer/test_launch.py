"""Starting: the port, and what is said when there is none."""

import socket
from collections.abc import Iterator

import pytest

from viewer import launch


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
