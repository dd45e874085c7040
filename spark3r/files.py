"""Writing files so that a reader never meets half of one, and a person reads one sentence when it fails."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from spark3r.errors import InputError

# What we write says so within its first bytes; numpy stores words in four bytes a letter.
_MARKS = (b"Spark3R", "Spark3R".encode("utf-32-le"))
_HEAD_BYTES = 1 << 16
MARKER = "spark3r.json"  # the file by which a folder is known as ours

_half_written: set[Path] = set()


def check_target(path: str | Path, is_folder: bool = False) -> None:
    """Raises InputError where writing would hit a device or a socket, a folder instead of a file (or the reverse),
    or replace something that Spark3R did not make. Symbolic links are followed."""
    path = Path(path).resolve()
    try:
        path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise InputError(_sentence(path, error)) from error
    if is_folder:
        if not path.is_dir():
            raise InputError(f"{path} is a file where a folder is asked for: choose another path.")
        if any(path.iterdir()) and not (path / MARKER).is_file():
            raise InputError(f"The folder {path} holds something else: name a new or empty folder.")
    elif path.is_dir():
        raise InputError(f"{path} is a folder, so no file can be written there: name a file inside it.")
    elif not path.is_file():
        raise InputError(f"{path} is a device or a pipe, not a file: name a file.")
    elif not _is_ours(path):
        raise InputError(f"{path} exists and was not written by Spark3R: remove it, or name another file.")


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path` to write into; it takes the place of `path` when the block ends well.

    Parent folders are made, and symbolic links written through. Raises InputError for a folder that cannot be made
    or written, for a device, and for a full disk; the old file, if any, then stays as it was.
    """
    path = Path(path).resolve()
    if path.is_dir():
        raise InputError(f"{path} is a folder, so no file can be written there: name a file inside it.")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a device or a pipe, not a file: name a file.")
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:60]}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        _half_written.add(temporary)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise InputError(_sentence(path, error)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
            _half_written.discard(temporary)


@contextlib.contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """As `replacing`, for a folder of files: whole or not at all. What it replaces must have passed `check_target`."""
    path = Path(path).resolve()
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:60]}-", dir=path.parent))
        _half_written.add(temporary)
        inside = temporary / "new"
        inside.mkdir()
        yield inside
        check_target(path, is_folder=True)
        if path.exists():
            path.replace(temporary / "old")
        inside.replace(path)
    except OSError as error:
        raise InputError(_sentence(path, error)) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
            _half_written.discard(temporary)


def remove_half_written() -> None:
    """For a process that ends at once, in the middle of writing."""
    for temporary in list(_half_written):
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def _is_ours(path: Path) -> bool:
    """Whether a file is empty, or says that Spark3R wrote it."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return False
    return not head or any(mark in head for mark in _MARKS)


def _sentence(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full, so {path} was not written: free some space or choose another folder."
    if error.errno == errno.ENAMETOOLONG:
        return f"The name {path.name[:40]}… is too long for this disk: choose a shorter one."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"The folder {path.parent} may not be written to: choose another folder for {path.name}."
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"{path} has a file where a folder is needed: choose another path."
    return f"{path} cannot be written: {error.strerror or error}."


def _umask() -> int:
    """The process's file mode mask, which mkstemp (always 0600) does not apply."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
