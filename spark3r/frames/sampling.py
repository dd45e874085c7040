"""Which frames are taken: even over the whole source, first and last included."""

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from spark3r.errors import Cancelled, DoesNotFit, InputError
from spark3r.frames.clip import SourceInfo

MIN_RESOLUTION = 64  # pixels; the longer side asked for
MIN_SIDE_PX = 16  # the shorter side of a stored frame: one patch of the smallest model
MEMORY_SHARE = 0.7  # of the machine's memory that frames may take


def planned_frames(info: SourceInfo, max_frames: int | None = None, fps: float | None = None) -> int:
    """How many frames `read_frames` takes from this source: the smallest of what there is and both limits.

    `max_frames` is 1 or more. `fps` is frames per second of a video, above 0; photos have no rate, so it does
    nothing to them. At least the first and the last frame are kept, so that there is motion to see.
    """
    check_limits(max_frames, fps)
    count = info.frame_count
    if fps is not None and info.fps:
        at_rate = math.ceil(info.frame_count * fps / info.fps - 1e-6)
        count = min(count, max(at_rate, 2))
    return count if max_frames is None else min(count, max_frames)


def even_positions(available: int, wanted: int) -> np.ndarray:
    """`wanted` rising positions in 0..available-1 ([wanted] int64), first and last included from two on."""
    return np.rint(np.linspace(0, available - 1, min(wanted, available))).astype(np.int64)


def fitted_size(width: int, height: int, resolution: int) -> tuple[int, int]:
    """(width, height) with the longer side at most `resolution` pixels; never larger than it came."""
    scale = min(1.0, resolution / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def stored_size(name: str, width: int, height: int, resolution: int) -> tuple[int, int]:
    """`fitted_size`, or InputError where no model could look at the result."""
    fitted = fitted_size(width, height, resolution)
    if min(fitted) < MIN_SIDE_PX:
        reason = "too small" if min(width, height) < MIN_SIDE_PX else f"too narrow at resolution {resolution}"
        raise InputError(
            f"{name} is {width}x{height} pixels, {reason}: both sides need {MIN_SIDE_PX} pixels or more; "
            "use a larger or less elongated picture."
        )
    return fitted


def check_limits(max_frames: int | None = None, fps: float | None = None, resolution: int = MIN_RESOLUTION) -> None:
    """Raise InputError for a limit that means nothing."""
    if max_frames is not None and max_frames < 1:
        raise InputError(f"max_frames={max_frames}: must be 1 or more; leave it out to take every frame.")
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise InputError(f"fps={fps}: must be above 0; 2 takes two frames of each second, leave it out for all.")
    if resolution < MIN_RESOLUTION:
        raise InputError(f"resolution={resolution}: must be {MIN_RESOLUTION} or more pixels; 1024 is the default.")


def check_memory(count: int, width: int, height: int) -> None:
    """Raise DoesNotFit where `count` frames of that many pixels alone would fill the machine."""
    if not hasattr(os, "sysconf"):
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed = count * width * height * 3
    if needed > MEMORY_SHARE * memory:
        raise DoesNotFit(
            f"{count} frames of {width}x{height} pixels need {needed / 2**30:.1f} GB and this machine has "
            f"{memory / 2**30:.1f} GB: set max_frames or fps, or lower the resolution."
        )


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key in which frame2 stands before frame10, whatever the letters' case."""
    parts = re.split(r"([0-9]+)", name)
    return [(1, int(part), "") if i % 2 else (0, 0, part.casefold()) for i, part in enumerate(parts)]


@dataclass
class Watch:
    """Tells the caller how far reading is, and hears whether to stop."""

    progress: Callable[[int, int], None] | None = None  # (frames done, frames in all)
    cancel: Callable[[], bool] | None = None

    def check(self) -> None:
        """Raise Cancelled once the caller wants to stop."""
        if self.cancel is not None and self.cancel():
            raise Cancelled("Reading the frames was stopped.")

    def advance(self, done: int, total: int) -> None:
        """Report, then `check`."""
        if self.progress is not None:
            self.progress(done, total)
        self.check()
