"""Answers that break off end as they should.

Asked for the news of a session that it does not know, as every page does that outlives the app, gradio sends a message
that says so and then raises a 404. By then the answer has begun, so nobody can send that; the server would cut the
connection and log a traceback, as often as anybody likes to ask.
"""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send


class Completed:
    """ASGI middleware around everything that answers."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except RuntimeError as error:
            if not isinstance(error.__cause__, HTTPException):  # Starlette's word for "the answer has begun"
                raise
            await send({"type": "http.response.body", "body": b"", "more_body": False})
