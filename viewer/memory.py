"""Memory is asked for before a run starts: it waits a little for what others are about to give back, or is refused."""

import ctypes
import gc
import sys
import time
from collections.abc import Callable

from spark3r.errors import Cancelled, InputError
from spark3r.estimate import free_memory
from spark3r.formatting import byte_count

PATIENCE_SECONDS = 30.0  # for memory that ending sessions and other programs give back
LOOK_SECONDS = 0.2
M_ARENA_MAX, POOLS = -8, 2  # of mallopt(3)


class Memory:
    """What a run may take of this machine's memory."""

    def __init__(self, free: Callable[[], int] = free_memory, patience_s: float = PATIENCE_SECONDS) -> None:
        self.held: Callable[[], int] = lambda: 0  # bytes of the results that open pages keep
        self._free, self._patience_s = free, patience_s

    def ask(self, needed: int, cancelled: Callable[[], bool], tell: Callable[[str], None]) -> None:
        """Return once so many bytes are free; `tell` hears what is waited for. Raises Cancelled, and InputError where
        they do not become free."""
        end = time.monotonic() + self._patience_s
        if needed > self._free():
            give_back()
        while needed > self._free():
            if cancelled():
                raise Cancelled
            if time.monotonic() > end:
                raise InputError(self._refusal(needed))
            tell(f"Waiting for memory: {byte_count(needed)} needed, {byte_count(self._free())} free")
            time.sleep(LOOK_SECONDS)

    def _refusal(self, needed: int) -> str:
        held = self.held()
        pages = f" (open pages hold {byte_count(held)})" if held else ""
        return (
            f"This run needs about {byte_count(needed)} of memory and {byte_count(self._free())} are free{pages}: "
            "take fewer frames, a lower resolution, or a smaller model."
        )


def share_pools() -> None:
    """Let threads that start from here on share few pools of memory, which the C library would else make for nearly
    each of them: every visitor brings threads, and each pool keeps pages of which a little is still in use."""
    _of_glibc("mallopt", M_ARENA_MAX, POOLS)


def set_apart() -> None:
    """What is loaded by now stays: every run collects garbage before it measures its memory, and need not look there,
    which takes some tenths of a second."""
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Hand what is no longer used back to the system, which the C library would keep for later."""
    gc.collect()
    _of_glibc("malloc_trim", 0)


def _of_glibc(function: str, *arguments: int) -> None:
    """Calls it where it is; other C libraries have no such thing."""
    found = getattr(ctypes.CDLL(None), function, None) if sys.platform == "linux" else None
    if found is not None:
        found(*arguments)
