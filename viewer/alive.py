"""Where pages give their signs of life and say goodbye."""

import json

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from viewer.sessions import Sessions

MOST_BYTES = 500  # of one sign


def alive_routes(sessions: Sessions) -> list[BaseRoute]:
    """POST /alive/<page> (204, or 404 where its session has ended) and /alive/<page>/bye, as `alive.js` sends them."""

    async def alive(request: Request) -> Response:
        beat, key = await _sign(request)
        known = sessions.alive(request.path_params["page"], beat, key)
        return Response(status_code=204 if known else 404, headers={"cache-control": "no-store"})

    async def bye(request: Request) -> Response:
        beat, _ = await _sign(request)
        sessions.leave(request.path_params["page"], beat)
        return Response(status_code=204)

    return [Route("/alive/{page}", alive, methods=["POST"]), Route("/alive/{page}/bye", bye, methods=["POST"])]


async def _sign(request: Request) -> tuple[int, str]:
    """(number of the sign, key of the session); (-1, "") for what is none."""
    text = b""
    async for chunk in request.stream():
        text += chunk
        if len(text) > MOST_BYTES:
            return -1, ""
    try:
        sign = json.loads(text)
        return int(sign["beat"]), str(sign["key"])
    except (ValueError, OverflowError, TypeError, LookupError, RecursionError):
        return -1, ""
