"""Writing files so that a reader never meets half of one, and a person reads one sentence when it fails."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from spark3r.errors import InputError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path` to write into; it takes the place of `path` when the block ends well.

    Parent folders are made. Raises InputError for a folder that cannot be made or written and for a full
    disk; the old file, if any, then stays as it was.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder, so no file can be written there: name a file inside it.")
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise InputError(_sentence(path, error)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _sentence(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full, so {path} was not written: free some space or choose another folder."
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
