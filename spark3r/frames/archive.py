"""Zip members in memory, one at a time: nothing is unpacked to disk, every size is checked while reading."""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from spark3r.errors import InputError

MAX_ENTRIES = 20_000
MAX_MEMBER_BYTES = 512 * 2**20
MAX_TOTAL_BYTES = 16 * 2**30
MAX_RATIO = 200  # pictures are compressed already: real ones stay below 10
RATIO_FREE_BYTES = 4 * 2**20  # below this a member may shrink as it likes (a flat test picture)


class ZipMembers:
    """The files of one zip by name, with sizes that cannot run away. Close it, or use it in a `with`."""

    def __init__(self, path: Path, name: str) -> None:
        """Open and check the table of contents; InputError says what is wrong with it."""
        self.name = name
        self.bytes_read = 0
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
            raise InputError(f"{name} is not a complete zip file: pack or upload it again.") from error
        try:
            self._members = self._checked_members()
        except InputError:
            self._zip.close()
            raise

    def __enter__(self) -> ZipMembers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._zip.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Every regular file inside, with forward slashes, in the zip's own order."""
        return tuple(self._members)

    def read(self, member: str) -> bytes:
        """One member's bytes; InputError where it is damaged or larger than it may be."""
        info = self._members[member]
        chunks: list[bytes] = []
        size = 0
        try:
            with self._zip.open(info) as stream:
                while chunk := stream.read(2**20):
                    size += len(chunk)
                    self.bytes_read += len(chunk)
                    self._check_size(member, size, info.compress_size, self.bytes_read)
                    chunks.append(chunk)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            raise InputError(f"{member} in {self.name} is damaged: pack it again.") from error
        return b"".join(chunks)

    def _checked_members(self) -> dict[str, zipfile.ZipInfo]:
        entries = self._zip.infolist()
        if len(entries) > MAX_ENTRIES:
            raise InputError(f"{self.name} has {len(entries)} entries: at most {MAX_ENTRIES} are read; split it.")
        members: dict[str, zipfile.ZipInfo] = {}
        total = 0
        for info in entries:
            member = info.filename.replace("\\", "/")
            self._check_entry(member, info)
            if info.is_dir():
                continue
            total += info.file_size
            self._check_size(member, info.file_size, info.compress_size, total)
            members[member] = info
        return members

    def _check_entry(self, member: str, info: zipfile.ZipInfo) -> None:
        path = PurePosixPath(member)
        if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
            raise InputError(f"{self.name} has an entry that leads out of it ({member!r}): pack a plain folder.")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise InputError(f"{self.name} has a symbolic link ({member!r}): pack the files themselves.")
        if info.flag_bits & 0x1:
            raise InputError(f"{self.name} is protected by a password: pack it again without one.")

    def _check_size(self, member: str, size: int, compressed: int, total: int) -> None:
        if size > MAX_MEMBER_BYTES:
            raise InputError(f"{member!r} in {self.name} unpacks to over {MAX_MEMBER_BYTES // 2**20} MB: leave it out.")
        if total > MAX_TOTAL_BYTES:
            raise InputError(f"{self.name} unpacks to over {MAX_TOTAL_BYTES // 2**30} GB: split it.")
        if size > RATIO_FREE_BYTES and size > MAX_RATIO * max(compressed, 1):
            raise InputError(
                f"{member!r} in {self.name} unpacks to more than {MAX_RATIO} times its size: "
                "that is no picture; leave it out."
            )
