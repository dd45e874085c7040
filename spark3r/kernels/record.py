"""Which kernels ran: whoever measures a run listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_listener: ContextVar[Callable[[str], None] | None] = ContextVar("kernel_listener", default=None)


@contextmanager
def recording(listener: Callable[[str], None]) -> Iterator[None]:
    """Within, `listener` hears the name of the kernel at every attention."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def note(kernel: str) -> None:
    """Tells who listens that this kernel runs now."""
    listener = _listener.get()
    if listener is not None:
        listener(kernel)
