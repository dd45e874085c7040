"""The door to a pane: viser's page and socket through the app's port, and nobody else's."""

import asyncio
import threading
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from viser import ViserServer
from viser import __version__ as viser_version
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.viewer.conftest import in_own_loop
from viewer.guard import same_origin
from viewer.locked_viser import KEY as PANE_KEY
from viewer.locked_viser import KEY_HEADER, open_viser
from viewer.proxy import pane_routes

KEY = "a-key-nobody-guesses"
PROTOCOL = f"viser-v{viser_version}"
POINTS = 200_000  # 9 bytes each: more than the 1 MiB at which a socket gives up by default


@pytest.fixture(scope="module")
def pane() -> Iterator[ViserServer]:
    server = open_viser()
    cloud = np.zeros((POINTS, 3), np.float32)
    server.scene.add_point_cloud("/cloud", cloud, np.zeros((POINTS, 3), np.uint8))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def address(pane: ViserServer) -> Iterator[str]:
    """host:port of an app that has nothing but panes."""
    app = Starlette(routes=pane_routes({KEY: pane}.get))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_page_comes_through_as_viser_sent_it(address: str, pane: ViserServer) -> None:
    direct = httpx.get(f"http://127.0.0.1:{pane.get_port()}/", headers={KEY_HEADER: PANE_KEY})
    through = httpx.get(f"http://{address}/viewer/{KEY}/")
    assert through.status_code == 200
    assert through.content == direct.content
    assert through.headers.get("content-encoding") == direct.headers.get("content-encoding")
    assert through.headers["referrer-policy"] == "no-referrer"  # the address is the key


@pytest.mark.parametrize(
    "key", [None, "", "x", PANE_KEY[:-1], PANE_KEY + "x"], ids=["none", "empty", "x", "cut", "longer"]
)
def test_the_inner_port_answers_the_app_alone(pane: ViserServer, key: str | None) -> None:
    headers = {} if key is None else {KEY_HEADER: key}
    for path in ("/", "/index.html", "/none"):
        answer = httpx.get(f"http://127.0.0.1:{pane.get_port()}{path}", headers=headers)
        assert answer.status_code == 403

    async def socket() -> None:
        url = f"ws://127.0.0.1:{pane.get_port()}"
        async with connect(url, subprotocols=[PROTOCOL], additional_headers=headers):  # pyright: ignore[reportArgumentType]
            pass

    with pytest.raises(InvalidStatus, match="403"):
        in_own_loop(socket())


@pytest.mark.parametrize("path", ["/viewer/other/", "/viewer/other/clients", f"/viewer/{KEY}x/", "/viewer/%C3%A9/"])
def test_an_unknown_key_opens_nothing(address: str, path: str) -> None:
    assert httpx.get(f"http://{address}{path}").status_code == 404


async def _largest_message(url: str, **options: object) -> tuple[str | None, int]:
    async with connect(url, max_size=None, **options) as socket:  # pyright: ignore[reportArgumentType]
        largest = 0
        while largest < 9 * POINTS:
            async with asyncio.timeout(10):
                largest = max(largest, len(await socket.recv()))
        return socket.subprotocol, largest


@pytest.mark.parametrize("slash", ["", "/"])
def test_socket_keeps_the_protocol_and_carries_a_large_cloud(address: str, slash: str) -> None:
    url = f"ws://{address}/viewer/{KEY}{slash}"
    protocol, largest = in_own_loop(_largest_message(url, subprotocols=[PROTOCOL], origin=f"http://{address}"))
    assert protocol == PROTOCOL
    assert largest > 2**20


def test_a_page_of_another_site_gets_no_socket(address: str) -> None:
    with pytest.raises((InvalidStatus, ConnectionClosed)):
        in_own_loop(
            _largest_message(f"ws://{address}/viewer/{KEY}", subprotocols=[PROTOCOL], origin="http://elsewhere.example")
        )


def test_a_client_of_another_version_is_turned_away(address: str) -> None:
    with pytest.raises((InvalidStatus, ConnectionClosed)):
        in_own_loop(_largest_message(f"ws://{address}/viewer/{KEY}", subprotocols=["viser-v0.0.1"]))


def test_the_browser_leaving_frees_the_pane(address: str, pane: ViserServer) -> None:
    async def come_and_go() -> None:
        async with connect(f"ws://{address}/viewer/{KEY}", subprotocols=[PROTOCOL], max_size=None):  # pyright: ignore[reportArgumentType]
            pass

    in_own_loop(come_and_go())
    assert httpx.get(f"http://{address}/viewer/{KEY}/clients").json() == {"connected": 0}


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"host": "a:1"}, True),  # no browser
        ({"host": "a:1", "origin": "http://a:1"}, True),
        ({"host": "inner:1", "x-forwarded-host": "a.example", "origin": "https://a.example"}, True),
        ({"host": "a:1", "origin": "http://a:2"}, False),
        ({"host": "a:1", "origin": "null"}, False),
        ({"host": "", "origin": "null"}, False),
    ],
)
def test_origin_must_be_the_host(headers: dict[str, str], allowed: bool) -> None:
    assert same_origin(Headers(headers)) is allowed
