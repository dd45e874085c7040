"""Half requests, silence and trickles end; what is merely slow to answer does not."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from viewer import patience

pytestmark = pytest.mark.slow  # what it waits for takes its time


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """An app with little patience: it echoes the length of what it is sent."""
    monkeypatch.setattr(patience, "HEAD_SECONDS", 0.6)
    monkeypatch.setattr(patience, "BODY_SECONDS", 0.6)
    monkeypatch.setattr(patience, "MEASURED_AFTER_SECONDS", 1.0)
    monkeypatch.setattr(patience, "CHECK_SECONDS", 0.1)

    async def page(request: Request) -> PlainTextResponse:
        body = await request.body()
        await asyncio.sleep(float(request.query_params.get("work", "0")))
        return PlainTextResponse(str(len(body)))

    app = Starlette(routes=[Route("/", page, methods=["GET", "POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", http=patience.PatientProtocol))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    yield server.servers[0].sockets[0].getsockname()
    server.should_exit = True
    thread.join()


def seconds_until_closed(address: tuple[str, int], *pieces: bytes, pause: float = 0.0) -> float:
    """How long the server bears a connection that sends these pieces and then nothing."""
    started = time.monotonic()
    with socket.create_connection(address, timeout=8.0) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
            connection.recv(1)
        except ConnectionError:
            pass
    return time.monotonic() - started


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"GET / HT",),
        (b"GET / HTTP/1.1\r\nHost: a\r\n",),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx",),
    ],
)
def test_silence_ends(address: tuple[str, int], pieces: tuple[bytes, ...]) -> None:
    assert seconds_until_closed(address, *pieces) < 6


def test_a_trickle_ends(address: tuple[str, int]) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n"
    assert seconds_until_closed(address, head, *[b"x"] * 60, pause=0.1) < 7


def test_slow_work_is_awaited(address: tuple[str, int]) -> None:
    url = f"http://{address[0]}:{address[1]}/?work=2"
    assert httpx.post(url, content=b"x" * 300_000, timeout=10).text == "300000"


def test_a_flood_leaves_others_served(address: tuple[str, int]) -> None:
    patience.be_patient()
    flood = []
    try:
        for _ in range(600):
            flood.append(socket.create_connection(address, timeout=5))
            flood[-1].sendall(b"GET / HTTP/1.1\r\nHost:")
        assert httpx.get(f"http://{address[0]}:{address[1]}/", timeout=10).text == "0"
        time.sleep(2.0)
        for connection in flood:
            connection.settimeout(5)
            assert connection.recv(1) == b""  # closed by the server
    finally:
        for connection in flood:
            connection.close()


def test_the_page_is_served_with_patience() -> None:
    patience.be_patient()
    config = uvicorn.Config(Starlette())
    config.load()
    assert config.http_protocol_class is patience.PatientProtocol
