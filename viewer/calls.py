"""Calls that the page never makes: a script may send anything to a handler, and is answered in one sentence.

Gradio itself looks at the values before a handler is called; where they are not what it expects it breaks off with an
error of its own, a traceback in the log and no word for the caller.
"""

from __future__ import annotations

import logging
from typing import Any

import gradio as gr
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spark3r.errors import InputError

CALLS = "/gradio_api/"
UPLOAD = "/gradio_api/upload"  # ours, and its troubles are
ODD_CALL = "A value of this call is none that the page sends: reload the page."

log = logging.getLogger(__name__)


class Page(gr.Blocks):
    """Gradio's page, with a sentence for values that are none."""

    async def preprocess_data(self, *given: Any, **named: Any) -> Any:
        """As gradio's; raises gr.Error without a traceback where gradio would break off."""
        try:
            return await super().preprocess_data(*given, **named)
        except gr.Error as error:  # a choice or a number that is out of its range, which gradio says
            error.print_exception = False
            raise
        except Exception as error:
            log.info("values of a call were refused: %s", type(error).__name__)
            raise gr.Error(ODD_CALL, print_exception=False) from error


class OddCalls:
    """ASGI middleware around gradio: what its own readers break off over, before any handler is called, is answered.

    Handlers work in the queue, which hears of their faults; so what arrives here is the caller's.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except Exception as error:
            path = scope.get("path", "")
            if begun or not path.startswith(CALLS) or path.startswith(UPLOAD):
                raise
            log.info("a call was refused: %s", type(error).__name__)
            log.debug("where", exc_info=True)
            await JSONResponse({"error": ODD_CALL}, status_code=400)(scope, receive, send)


def told(event: gr.EventData, *names: str) -> list[str]:
    """What an event of the page says under these names. Raises InputError where it says nothing, or no words."""
    try:
        words = [getattr(event, name) for name in names]
    except (AttributeError, TypeError) as error:
        raise InputError(ODD_CALL) from error
    if not all(isinstance(word, str) for word in words):
        raise InputError(ODD_CALL)
    return words
