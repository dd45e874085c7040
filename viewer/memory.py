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


def give_back() -> None:
    """Hand what is no longer used back to the system, which the C library would keep for later."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
        if trim is not None:
            trim(0)
