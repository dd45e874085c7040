"""Stopping long work that has no network to ask: who starts it says what to ask, the work asks between its steps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from spark3r.errors import Cancelled

LOOK_SECONDS = 0.1  # between looks whether to go on waiting

Result = TypeVar("Result")
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


def aside(work: Callable[[], Result], cancel: Callable[[], bool] | None) -> Result:
    """What `work` returns or raises; Cancelled as soon as `cancel` says so, whatever `work` is waiting for.

    For work that waits where nobody can wake it, a silent network say: it goes on in a thread of its own, whose result
    nobody hears, until it asks itself or the process ends. cancel: None where nobody will stop it.
    """
    if cancel is None:
        return work()
    outcome: Future[Result] = Future()
    threading.Thread(target=_work_out, args=(work, outcome), name="spark3r-aside", daemon=True).start()
    while not wait([outcome], timeout=LOOK_SECONDS).done:
        if cancel():
            raise Cancelled("the work was stopped")
    return outcome.result()


def _work_out(work: Callable[[], Result], outcome: Future[Result]) -> None:
    try:
        outcome.set_result(work())
    except BaseException as error:  # noqa: BLE001 told to whoever waits
        outcome.set_exception(error)
