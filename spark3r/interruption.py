"""Ctrl-C while the program loads its packages ends it at once, without a word.

Loading torch takes seconds, nearly all of them inside foreign code, which makes of an exception that comes from without
a traceback, an error of another kind, or an abort. Nothing needs tidying by then. So this module stands first in the
package, and takes the signal itself until the program has begun; whoever only imports the library is left alone.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import PurePath
from types import FrameType

INTERRUPTED = 130  # the exit code that shells give to what Ctrl-C ended


def is_the_program() -> bool:
    """Whether this process is `python -m spark3r`, or the installed `spark3r`."""
    first = sys.argv[0] if sys.argv else ""
    if first == "-m":  # as long as Python looks for the module to run
        return ("-m", "spark3r") in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    return PurePath(first).stem == "spark3r"


def leaves_at_once() -> None:
    """From here on Ctrl-C ends the process, unless it is deaf to Ctrl-C or answers it in a way of its own."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def raises() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


if is_the_program():
    leaves_at_once()
