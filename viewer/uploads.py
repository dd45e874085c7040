"""Visitors' files: how much each may bring, and when it goes.

Every upload stands in a folder of its own, which belongs to the session that uses it and goes with it. One that is
broken off goes at once, one that no session asks for after a while.
"""

import secrets
import shutil
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from spark3r.errors import InputError
from spark3r.formatting import byte_count

GIB = 1 << 30
LEFT_FREE_BYTES = GIB  # of the disk, for everything else
UNUSED_SECONDS = 600.0  # until an upload that no session uses is removed
DISK_FULL = "The disk of this machine is nearly full: bring a shorter video, or fewer photos."


@dataclass(frozen=True)
class Quota:
    """Bytes of visitors' files."""

    file: int = 4 * GIB
    visitor: int = 8 * GIB  # from one address
    total: int = 32 * GIB


@dataclass
class _Upload:
    """What came in one request."""

    address: str
    bytes: int  # as announced
    users: set[str] = field(default_factory=set)  # keys of sessions
    idle_since: float = field(default_factory=time.monotonic)  # while nobody uses it
    is_complete: bool = False


class Uploads:
    """What visitors brought, under one folder."""

    def __init__(self, folder: Path, quota: Quota | None = None) -> None:
        self.quota = quota or Quota()
        self._folder = folder
        self._kept: dict[str, _Upload] = {}  # by the name of its folder
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """What all of it takes, what is still on its way included."""
        with self._lock:
            return sum(each.bytes for each in self._kept.values())

    def ask(self, address: str, announced: int, largest: int) -> None:
        """Whether there is room for so many bytes, in files of `largest` at most. Raises InputError where not."""
        if largest > self.quota.file:
            raise InputError(self.too_large)
        with self._lock:
            self._ask(address, announced)

    @property
    def too_large(self) -> str:
        """What is said of a file beyond the quota."""
        return f"A file may take {byte_count(self.quota.file)} at most: bring a shorter or smaller one."

    def begin(self, address: str, announced: int) -> Path:
        """Room for so many bytes, and the folder for them. Raises InputError where there is none."""
        with self._lock:
            self._ask(address, announced)
            name = secrets.token_hex(16)
            self._kept[name] = _Upload(address, announced)
        folder = self._folder / name
        folder.mkdir()
        return folder

    def _ask(self, address: str, announced: int) -> None:
        held = sum(each.bytes for each in self._kept.values())
        here = sum(each.bytes for each in self._kept.values() if each.address == address)
        if here + announced > self.quota.visitor:
            most = byte_count(self.quota.visitor)
            raise InputError(
                f"Your files take more than {most}, the most of one visitor: close the page to begin anew."
            )
        if held + announced > self.quota.total:
            raise InputError("All visitors' files together take more than this app keeps: try again in a while.")
        coming = sum(each.bytes for each in self._kept.values() if not each.is_complete)
        if shutil.disk_usage(self._folder).free - coming - announced < LEFT_FREE_BYTES:
            raise InputError(DISK_FULL)

    def complete(self, folder: Path) -> None:
        """All of it has come."""
        with self._lock:
            self._kept[folder.name].is_complete = True

    def use(self, paths: Iterable[Path], user: str) -> None:
        """A session uses these files from now on; paths that are no uploads are passed over."""
        with self._lock:
            for name in self._names(paths):
                self._kept[name].users.add(user)

    def release(self, user: str) -> None:
        """A session has ended: what nobody else uses goes."""
        with self._lock:
            own = [name for name, each in self._kept.items() if user in each.users]
            for name in own:
                self._kept[name].users.discard(user)
            unused = [name for name in own if not self._kept[name].users]
        self._remove(unused)

    def discard(self, folder: Path) -> None:
        """An upload that was broken off goes."""
        self._remove([folder.name])

    def tidy(self) -> None:
        """Remove what nobody has used for a while; called now and then."""
        due = time.monotonic() - UNUSED_SECONDS
        with self._lock:
            kept = self._kept.items()
            old = [name for name, each in kept if each.is_complete and not each.users and each.idle_since < due]
        self._remove(old)
        for path in self._folder.iterdir():  # gradio makes an empty file each time it looks at one
            if path.is_file() and path.stat().st_size == 0:
                path.unlink(missing_ok=True)

    def _names(self, paths: Iterable[Path]) -> set[str]:
        inside = (path.relative_to(self._folder).parts[0] for path in paths if path.is_relative_to(self._folder))
        return self._kept.keys() & set(inside)

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            shutil.rmtree(self._folder / name, ignore_errors=True)
            with self._lock:
                self._kept.pop(name, None)
