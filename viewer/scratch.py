"""The one folder that a running app writes into: uploads, exports, what is spooled. It goes with the process.

A process that is killed leaves its folder behind. Each holds a lock for as long as it lives, and the system lets go of
a lock however its process ends, so the next start removes the folders that nobody holds.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PREFIX = "spark3r-page-"
LOCK = "lock"
FRESH_SECONDS = 60.0  # a folder without a lock may be one that is just being made


@dataclass(frozen=True)
class Scratch:
    """A folder of this process."""

    path: Path
    lock: IO[bytes]  # open for as long as the process lives

    @property
    def uploads(self) -> Path:
        """Where visitors' files stand, and nothing else."""
        return self.path / "uploads"

    def remove(self) -> None:
        """Take the folder away with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.lock.close()


def open_scratch() -> Scratch:
    """A new folder under the system's temporary one (TMPDIR), where this process puts all temporary files from here
    on, gradio's too; folders that killed processes left there are removed."""
    place = Path(tempfile.gettempdir())
    sweep(place)
    path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    lock = (path / LOCK).open("wb")
    _hold(lock)
    scratch = Scratch(path, lock)
    scratch.uploads.mkdir()
    os.environ["GRADIO_TEMP_DIR"] = str(scratch.uploads)
    tempfile.tempdir = str(path)
    return scratch


def sweep(place: Path) -> None:
    """Remove the folders in `place` that processes of this user left behind."""
    if sys.platform == "win32":
        return
    for folder in place.glob(f"{PREFIX}*"):
        about = folder.lstat()
        if folder.is_symlink() or not folder.is_dir() or about.st_uid != os.getuid():
            continue
        if _is_left(folder, time.time() - about.st_mtime):
            shutil.rmtree(folder, ignore_errors=True)


def _is_left(folder: Path, age_s: float) -> bool:
    try:
        with (folder / LOCK).open("r+b") as lock:
            return _hold(lock)
    except FileNotFoundError:
        return age_s > FRESH_SECONDS
    except OSError:
        return False


def _hold(lock: IO[bytes]) -> bool:
    """Whether the lock was free; it is then held until the file is closed."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
