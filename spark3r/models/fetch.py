"""One file over HTTP into the hub's cache: resumed after any break, also of the process, and checked when whole.

The cache is laid out as `huggingface_hub` does it, so that it is shared with other tools. Its own download keeps
nothing of a file that was interrupted, which for gigabytes is too little.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from spark3r.errors import Cancelled
from spark3r.models.family import Source

Progress = Callable[[int, int], None]  # (bytes so far, bytes in all)

_CHUNK = 1 << 20  # bytes
_FRUITLESS_TRIES = 5  # in a row, before giving up
_LOCK_SECONDS = 0.5  # between looks at whether to go on waiting for another process
_LONGEST_PAUSE = 8.0  # seconds between tries


class BrokeOff(Exception):
    """The transfer failed for good; what has arrived is kept."""

    def __init__(self, done: int, whole: int):
        super().__init__(f"{done / 1e9:.2f} of {whole / 1e9:.2f} GB have arrived")


def fetch(source: Source, endpoint: str, progress: Progress, cancel: Callable[[], bool]) -> Path:
    """The file's place in the cache. Raises the hub library's errors for refusals, BrokeOff, OSError, Cancelled."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(source.repository, source.file, endpoint=endpoint)
    about = get_hf_file_metadata(url, endpoint=endpoint)
    if not about.etag or not about.size or not about.commit_hash:
        raise OSError(f"{endpoint} does not answer as a hub does")
    folder = Path(constants.HF_HUB_CACHE) / source.folder
    blob = folder / "blobs" / about.etag
    blob.parent.mkdir(parents=True, exist_ok=True)
    with _alone(blob.with_name(f"{about.etag}.lock"), cancel):
        if not blob.is_file():
            partial = blob.with_name(f"{about.etag}.partial")
            _complete(url, partial, about.size, progress, cancel)
            _check_sum(partial, about.etag)
            partial.replace(blob)
    return _listed(folder, blob, about.commit_hash, source.file)


@contextmanager
def _alone(lock: Path, cancel: Callable[[], bool]) -> Iterator[None]:
    """Within, no other process fetches the same file; the wait for one that does can be cancelled."""
    from filelock import FileLock, Timeout

    turn = FileLock(lock)
    while True:
        try:
            turn.acquire(timeout=_LOCK_SECONDS)
            break
        except Timeout:
            if cancel():
                raise Cancelled from None
    try:
        yield
    finally:
        turn.release()


def arrived_bytes(folder: Path) -> int:
    """What earlier, interrupted downloads have left in a repository's folder of the cache."""
    return sum(part.stat().st_size for part in (folder / "blobs").glob("*.partial"))


def _complete(url: str, partial: Path, whole: int, progress: Progress, cancel: Callable[[], bool]) -> None:
    """Appends what is missing of a file, again and again as long as something arrives."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.errors import HTTPError as TransportError  # pyright: ignore[reportPrivateImportUsage]

    fruitless = 0
    while (done := partial.stat().st_size if partial.exists() else 0) < whole:
        try:
            _append(url, partial, done, whole, progress, cancel)
        except HfHubHTTPError:
            raise
        except TransportError as error:
            fruitless = 0 if partial.stat().st_size > done else fruitless + 1
            if fruitless >= _FRUITLESS_TRIES:
                raise BrokeOff(done, whole) from error
            _pause(min(_LONGEST_PAUSE, 0.5 * 2**fruitless), cancel)
    if done > whole:
        partial.unlink()
        raise BrokeOff(0, whole)


def _append(url: str, partial: Path, done: int, whole: int, progress: Progress, cancel: Callable[[], bool]) -> None:
    """One request for the rest of the file."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
        hf_raise_for_status(response)
        if done and response.status_code != 206:  # a server that knows no ranges begins anew
            done = 0
        with partial.open("ab" if done else "wb") as file:
            for chunk in response.iter_bytes(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress(done, whole)
                _stop_if(cancel)


def _stop_if(cancel: Callable[[], bool]) -> None:
    if cancel():
        raise Cancelled("the download was stopped; it goes on where it stopped")


def _pause(seconds: float, cancel: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        _stop_if(cancel)
        time.sleep(min(0.1, seconds))


def _check_sum(path: Path, etag: str) -> None:
    """Large files are named by the SHA-256 of their content; a damaged one is removed."""
    if not re.fullmatch(r"[0-9a-f]{64}", etag):
        return
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    if digest.hexdigest() != etag:
        path.unlink()
        raise OSError("what arrived is not what the hub has: its checksum differs")


def _listed(folder: Path, blob: Path, commit: str, name: str) -> Path:
    """The snapshot's entry for a blob, as the hub's library finds it again."""
    pointer = folder / "snapshots" / commit / name
    pointer.parent.mkdir(parents=True, exist_ok=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    if not pointer.exists():
        pointer.unlink(missing_ok=True)
        try:
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:  # a file system without symbolic links
            shutil.move(blob, pointer)
    return pointer
