"""3-D servers that answer the app alone.

A viser server listens on a port of this machine, without a key: any process, and any web page that finds the port,
could read the scene. Here it asks for a secret that only the app's own proxy sends. Viser offers no place for that, so
the secret is slipped into the one call with which it opens its port, while it does so.
"""

from __future__ import annotations

import hmac
import http
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import websockets.asyncio.server
from viser import ViserServer
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

KEY_HEADER = "x-spark3r-pane"
KEY = secrets.token_urlsafe(32)  # of this process; never leaves it but to its own servers

_opening = threading.Lock()


def open_viser() -> ViserServer:
    """A viser server at an ephemeral port of 127.0.0.1 that refuses every request without the secret."""
    with _opening, _asking_for_the_key() as asked:
        server = ViserServer(host="127.0.0.1", port=0, verbose=False)
    if not asked:  # a viser that opens its port in another way
        server.stop()
        raise RuntimeError("this version of viser cannot be locked: install the one that requirements.txt names")
    return server


@contextmanager
def _asking_for_the_key() -> Iterator[list[bool]]:
    original, asked = websockets.asyncio.server.serve, []

    def serve(*args: Any, process_request: Any = None, **options: Any) -> Any:
        async def checked(connection: ServerConnection, request: Request) -> Response | None:
            if not hmac.compare_digest(request.headers.get(KEY_HEADER, "").encode(), KEY.encode()):
                return connection.respond(http.HTTPStatus.FORBIDDEN, "Spark3R shows this scene on its own page only.\n")
            answer = process_request(connection, request) if process_request else None
            return await answer if hasattr(answer, "__await__") else answer  # pyright: ignore[reportGeneralTypeIssues]

        asked.append(True)
        return original(*args, process_request=checked, **options)

    websockets.asyncio.server.serve = serve  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield asked
    finally:
        websockets.asyncio.server.serve = original
