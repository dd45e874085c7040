"""How the process ends: at a signal, within three seconds, with its files removed; at a second signal at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

PATIENCE_SECONDS = 2.0  # for runs to stop and sessions to close; a block of a large network may take longer
INTERRUPTED = 130  # exit code of a start that was broken off by Ctrl-C


class Ending:
    """Waits for Ctrl-C or SIGTERM."""

    def __init__(self) -> None:
        self.asked = threading.Event()  # set by the first signal
        self.tidy: Callable[[], None] = lambda: None  # the least that must happen before the process is gone
        self._is_serving = False

    def listen(self) -> None:
        """Take both signals from here on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._hear)

    def wait(self) -> None:
        """Until a signal comes."""
        self._is_serving = True
        self.asked.wait()

    def leave(self, code: int) -> None:
        """End the process without waiting for threads: one that is inside a network would abort the interpreter."""
        self.tidy()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked.is_set():
            self.tidy()
            os._exit(0)
        self.asked.set()
        if not self._is_serving:  # nothing runs yet, and whatever is being imported need not hear of it
            self.tidy()
            os._exit(INTERRUPTED if number == signal.SIGINT else 0)
        threading.Thread(target=self._watch, name="spark3r-ending", daemon=True).start()

    def _watch(self) -> None:
        threading.Event().wait(PATIENCE_SECONDS)
        self.leave(0)
