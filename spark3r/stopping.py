"""Stopping long work that has no network to ask: who starts it says what to ask, the work asks between its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from spark3r.errors import Cancelled

_asked: ContextVar[Callable[[], bool] | None] = ContextVar("asked", default=None)


@contextmanager
def stoppable(cancel: Callable[[], bool] | None) -> Iterator[None]:
    """Within, in this thread, `may_stop` asks `cancel`; None: there is nobody to ask."""
    token = _asked.set(cancel)
    try:
        yield
    finally:
        _asked.reset(token)


def may_stop() -> None:
    """Called between the steps of long work: raises Cancelled once its caller wants to stop."""
    cancel = _asked.get()
    if cancel is not None and cancel():
        raise Cancelled("the work was stopped")
