"""One port for everything: each viser pane is reached through the app, under an unguessable id.

A viser server listens on 127.0.0.1 at an ephemeral port and answers only who sends the app's own secret
(`locked_viser`), which these routes do.  For a visitor the pane id is the key, so it is long and random, and a
page of another site is refused (the `Origin` of a WebSocket is checked, since browsers let any page open one).
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from viser import ViserServer
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from viewer.guard import POLICY_VIOLATION, same_origin
from viewer.locked_viser import KEY, KEY_HEADER

ServerOf = Callable[[str], ViserServer | None]  # pane id → its server, None for an id nobody holds

GOING_AWAY = 1001
PASSED_HEADERS = ("content-type", "content-encoding")
FETCH_SECONDS = 60.0  # one page of a megabyte on this machine; a busy one may need its time

log = logging.getLogger(__name__)


def pane_routes(server_of: ServerOf) -> list[BaseRoute]:
    """The routes of all panes; register them before any catch-all route."""

    async def page(request: Request) -> Response:
        server = server_of(request.path_params["pane_id"])
        if server is None:
            return PlainTextResponse("This view has ended; reload the page.", status_code=404)
        return await _fetch(server.get_port(), request)

    async def clients(request: Request) -> Response:
        """How many browsers are connected, for the page to notice a pane whose socket dropped."""
        server = server_of(request.path_params["pane_id"])
        if server is None:
            return JSONResponse({"connected": 0}, status_code=404)
        return JSONResponse({"connected": len(server.get_clients())}, headers={"cache-control": "no-store"})

    async def socket(websocket: WebSocket) -> None:
        server = server_of(websocket.path_params["pane_id"])
        if server is None or not same_origin(websocket.headers):
            await websocket.close(POLICY_VIOLATION)
            return
        await _bridge(server.get_port(), websocket)

    return [
        Route("/viewer/{pane_id}/clients", clients, methods=["GET"]),
        Route("/viewer/{pane_id}/{path:path}", page, methods=["GET"]),
        WebSocketRoute("/viewer/{pane_id}", socket),
        WebSocketRoute("/viewer/{pane_id}/", socket),
    ]


async def _fetch(port: int, request: Request) -> Response:
    """Pass one GET through, the body unchanged (compressed as viser sent it) and whole or not at all."""
    url = f"http://127.0.0.1:{port}/{request.path_params['path']}"
    asked = {"accept-encoding": request.headers.get("accept-encoding", "identity"), KEY_HEADER: KEY}
    try:
        async with (
            httpx.AsyncClient(trust_env=False, timeout=FETCH_SECONDS) as client,
            client.stream("GET", url, headers=asked) as answer,
        ):
            body = b"".join([chunk async for chunk in answer.aiter_raw()])
    except httpx.TransportError as error:
        log.info("pane on port %d did not answer: %s", port, error)
        return PlainTextResponse("This view has ended; reload the page.", status_code=502)
    headers = {name: answer.headers[name] for name in PASSED_HEADERS if name in answer.headers}
    headers |= {"referrer-policy": "no-referrer", "cache-control": "no-store"}
    return Response(body, status_code=answer.status_code, headers=headers)


async def _bridge(port: int, websocket: WebSocket) -> None:
    """Join the browser's socket to viser's; whichever side ends first ends both."""
    asked = [Subprotocol(name) for name in websocket.scope.get("subprotocols", [])]
    try:
        # A cloud is one message of any size, and compressing it costs more than sending it.
        upstream = await connect(
            f"ws://127.0.0.1:{port}",
            subprotocols=asked,
            additional_headers={KEY_HEADER: KEY},
            max_size=None,
            compression=None,
            proxy=None,
        )
    except (OSError, InvalidHandshake) as error:
        log.info("pane on port %d refused the socket: %s", port, error)
        await websocket.close(GOING_AWAY)
        return
    async with upstream:
        await websocket.accept(subprotocol=upstream.subprotocol)
        pumps = [asyncio.create_task(_up(websocket, upstream)), asyncio.create_task(_down(upstream, websocket))]
        _, unfinished = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in unfinished:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
    with suppress(RuntimeError, WebSocketDisconnect):  # the browser may have closed already
        await websocket.close(_sendable(upstream.close_code))


async def _up(browser: WebSocket, viser: ClientConnection) -> None:
    """Browser → viser until either side closes."""
    with suppress(ConnectionClosed):
        while (message := await browser.receive())["type"] == "websocket.receive":
            data = message.get("bytes")
            await viser.send(message["text"] if data is None else data)


async def _down(viser: ClientConnection, browser: WebSocket) -> None:
    """Viser → browser until either side closes."""
    with suppress(ConnectionClosed, WebSocketDisconnect):
        async for data in viser:
            await (browser.send_text(data) if isinstance(data, str) else browser.send_bytes(data))


def _sendable(code: int | None) -> int:
    """A close code that may be sent: 1005 and 1006 only describe how a connection ended."""
    return GOING_AWAY if code in (None, 1005, 1006) else code
