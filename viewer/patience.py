"""Connections that send nothing, half a request or a trickle are closed, so that a flood of them holds nobody up.

Uvicorn closes connections that idle between requests; a request that is never finished it would await for ever.
"""

from __future__ import annotations

import asyncio
import sys
import time

import h11
import uvicorn.config
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0  # for the head of a request, from the connection or the answer before
BODY_SECONDS = 20.0  # without a byte of a body that is not complete
LEAST_BYTES_PER_SECOND = 1024.0  # of a body, on average,
MEASURED_AFTER_SECONDS = 30.0  # from so many seconds on
CHECK_SECONDS = 1.0
FILES_WANTED = 8192  # open at once; a connection is one


class PatientProtocol(H11Protocol):
    """Uvicorn's HTTP/1.1 with an end to its patience."""

    _check: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waits_since = self._last_data = time.monotonic()
        self._body_since, self._body_bytes = None, 0
        self._look_again()

    def data_received(self, data: bytes) -> None:
        self._last_data = time.monotonic()
        self._body_bytes += len(data)
        super().data_received(data)

    def on_response_complete(self) -> None:
        """The answer is out: the next request has its time from here."""
        super().on_response_complete()
        self._waits_since = time.monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """A live connection may be silent as long as it likes."""
        self._forget()
        super().handle_websocket_upgrade(event)

    def _look_again(self) -> None:
        self._check = self.loop.call_later(CHECK_SECONDS, self._look)

    def _forget(self) -> None:
        if self._check is not None:
            self._check.cancel()

    def _look(self) -> None:
        if self._is_too_slow(time.monotonic()):
            self.transport.close()
        else:
            self._look_again()

    def _is_too_slow(self, now: float) -> bool:
        state = self.conn.their_state
        if state is not h11.SEND_BODY:
            self._body_since, self._body_bytes = None, 0
        if state is h11.IDLE:
            return now - self._waits_since > HEAD_SECONDS
        if state is not h11.SEND_BODY or self.flow.read_paused:  # it is the app that is not done
            return False
        self._body_since = self._body_since or now
        took = now - self._body_since
        slow = took > MEASURED_AFTER_SECONDS and self._body_bytes < took * LEAST_BYTES_PER_SECOND
        return slow or now - self._last_data > BODY_SECONDS


def be_patient() -> None:
    """Servers that uvicorn starts from here on use this protocol; and the process may hold enough files open."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:PatientProtocol"
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
