"""Fetching weights from the Hugging Face hub: cached, resumed after a break, and every failure one clear sentence."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from spark3r.errors import CheckpointError
from spark3r.installation import require
from spark3r.models.family import Entry, Source
from spark3r.models.fetch import BrokeOff, Progress, arrived_bytes, fetch
from spark3r.stopping import aside


def download(entry: Entry, progress: Progress | None = None, cancel: Callable[[], bool] | None = None) -> Path:
    """The local file with a model's official weights, from the cache or from the hub.

    What was fetched before a break, a cancel (which raises Cancelled) or a restart is kept and continued.
    HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are honoured. Without `progress` a bar is drawn on terminals.
    Raises CheckpointError.
    """
    require(f"Fetching {entry.card.name} from the Hugging Face hub", "huggingface_hub")
    if found := cached(entry):
        return found
    with _shown(entry, progress) as tell:
        return aside(lambda: _fetched(entry, tell, cancel or (lambda: False)), cancel)


def _fetched(entry: Entry, progress: Progress, cancel: Callable[[], bool]) -> Path:
    """The first of its files that the hub has."""
    _check_ready(entry)
    for source in entry.sources:
        found = _try(entry, source, progress, cancel, may_lack=source is not entry.sources[-1])
        if found is not None:
            return found
    raise AssertionError("the last source is found or raises")


def cached(entry: Entry) -> Path | None:
    """The local file with a model's official weights, if it is here already. Needs the package huggingface_hub."""
    from huggingface_hub import try_to_load_from_cache

    for source in entry.sources:
        found = try_to_load_from_cache(source.repository, source.file)
        if isinstance(found, str):
            return Path(found)
    return None


@contextmanager
def _shown(entry: Entry, progress: Progress | None) -> Iterator[Progress]:
    """Tells `progress`, or without one draws a bar on the terminal."""
    if progress is not None:
        yield progress
        return
    from huggingface_hub.utils import tqdm

    with ExitStack() as shown:
        bars: list[tqdm] = []

        def draw(done: int, whole: int) -> None:
            if not bars:
                bars.append(shown.enter_context(tqdm(total=whole, unit="B", unit_scale=True, desc=entry.card.name)))
            bars[0].update(done - bars[0].n)

        yield draw


def _try(entry: Entry, source: Source, progress: Progress, cancel: Callable[[], bool], may_lack: bool) -> Path | None:
    """One file; None where the hub lacks it and it `may_lack` it."""
    from huggingface_hub.errors import HTTPError as TransportError  # pyright: ignore[reportPrivateImportUsage]

    try:
        return fetch(source, _endpoint(), progress, cancel)
    except (TransportError, BrokeOff, OSError) as error:
        if may_lack and _lacks_file(error):
            return None
        raise CheckpointError(f"{entry.card.name}: {_sentence(entry, source, error)}") from error


def _check_ready(entry: Entry) -> None:
    """Says at once what would otherwise come out after minutes: no network, or too small a disk."""
    from huggingface_hub import constants

    source, size = entry.sources[0], f"{entry.card.download_bytes / 1e9:.1f} GB"
    if constants.HF_HUB_OFFLINE:
        raise CheckpointError(
            f"{entry.card.name}: {source.file} of {source.repository} is not in the cache and HF_HUB_OFFLINE is set: "
            f"unset it to download {size}, or give the path of a local copy"
        )
    if not _is_reachable(_endpoint()):
        raise CheckpointError(f"{entry.card.name}: {_NO_CONNECTION.format(file=source.file, page=source.page)}")
    cache = Path(constants.HF_HUB_CACHE)
    begun = arrived_bytes(cache / source.folder)
    if shutil.disk_usage(_existing(cache)).free + begun < entry.card.download_bytes:
        raise CheckpointError(f"{entry.card.name}: {_full_disk(entry)}")


_NO_CONNECTION = (
    "no connection to the hub, or it broke off, while fetching {file} from {page}: check the network and try again, "
    "it goes on where it stopped; or give the path of a local copy (--model PATH)"
)


def _full_disk(entry: Entry) -> str:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(_existing(cache)).free
    return (
        f"the disk is full: the weights need {entry.card.download_bytes / 1e9:.1f} GB in {cache} and "
        f"{free / 1e9:.1f} GB are free; free some, or set HF_HOME to a folder on a larger disk"
    )


def _sentence(entry: Entry, source: Source, error: Exception) -> str:
    """What happened and what to do."""
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

    status = _status(error)
    if isinstance(error, GatedRepoError) or (source.gated and status in (401, 403)):
        return (
            f"{source.repository} is gated: accept its licence at {source.page}, then set HF_TOKEN to a token of your "
            "account (or run `hf auth login`)"
        )
    if _lacks_file(error):
        return f"the hub has no {source.file} in {source.repository} any more: give the path of a local copy"
    if status in (401, 403, 404):
        return (
            f"the hub refuses {source.file} of {source.repository} (HTTP {status}): check HF_TOKEN and HF_ENDPOINT, "
            f"or download the file from {source.page} and give its path"
        )
    if _is_full_disk(error):
        return _full_disk(entry)
    if isinstance(error, LocalEntryNotFoundError) or _broke_off(error):
        return _NO_CONNECTION.format(file=source.file, page=source.page)
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"the download of {source.file} failed ({reason}): try again, it goes on where it stopped"


def _lacks_file(error: Exception) -> bool:
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    is_about_file = isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)
    return is_about_file and _status(error) in (None, 404)


def _status(error: Exception) -> int | None:
    """The HTTP status behind an error, if there is one."""
    response = getattr(error, "response", None)
    cause = error.__cause__
    if response is None and isinstance(cause, Exception):
        return _status(cause)
    return getattr(response, "status_code", None)


def _is_full_disk(error: BaseException | None) -> bool:
    return error is not None and (
        getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or _is_full_disk(error.__cause__)
    )


def _broke_off(error: Exception) -> bool:
    """Whether the transport failed, as opposed to the hub's answer."""
    return isinstance(error, BrokeOff) or (_status(error) is None and not isinstance(error, OSError))


def _endpoint() -> str:
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def _is_reachable(endpoint: str) -> bool:
    """Whether something listens there; behind a proxy that cannot be known, and is left to the download to find out."""
    if getproxies():
        return True
    parts = urlsplit(endpoint)
    try:
        port = parts.port or _PORTS.get(parts.scheme, 443)
        socket.create_connection((parts.hostname or "", port), timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


_CONNECT_SECONDS = 10
_PORTS = {"http": 80, "https": 443}


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
