"""Fetching weights from the Hugging Face hub: cached, resumed after a break, and every failure one clear sentence."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spark3r.errors import Cancelled, CheckpointError
from spark3r.models.registry import Entry, Source

DownloadProgress = Callable[[int, int], None]  # (bytes so far, bytes in all)


def download(
    entry: Entry, progress: DownloadProgress | None = None, cancel: Callable[[], bool] | None = None
) -> Path:
    """The local file with a model's official weights, from the cache or from the hub.

    What was fetched before a break, a cancel (which raises Cancelled) or a restart is kept and continued.
    HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are honoured. Without `progress` a bar is drawn on terminals.
    Raises CheckpointError.
    """
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError as error:
        raise CheckpointError(
            f"{entry.card.name} comes from the Hugging Face hub, which needs `pip install huggingface_hub`; "
            "or give the path of its weights"
        ) from error
    for source in entry.sources:
        cached = try_to_load_from_cache(source.repository, source.file)
        if isinstance(cached, str):
            return Path(cached)
    bar = None if progress is None and cancel is None else _bar(progress, cancel)
    for source in entry.sources[:-1]:
        found = _fetch(entry, source, bar, may_lack=True)
        if found is not None:
            return found
    found = _fetch(entry, entry.sources[-1], bar, may_lack=False)
    assert found is not None
    return found


def _fetch(entry: Entry, source: Source, bar: type[Any] | None, may_lack: bool) -> Path | None:
    """One file; None where the hub lacks it and it `may_lack` it."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.errors import HTTPError as TransportError  # pyright: ignore[reportPrivateImportUsage]

    try:
        return Path(hf_hub_download(source.repository, source.file, tqdm_class=bar))
    except (TransportError, OfflineModeIsEnabled, EntryNotFoundError, OSError) as error:
        lacks_file = isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)
        if may_lack and lacks_file:
            return None
        raise CheckpointError(_sentence(entry, source, error)) from error


def _sentence(entry: Entry, source: Source, error: Exception) -> str:
    """What happened and what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, LocalEntryNotFoundError

    name, place = entry.card.name, f"{source.file} of {source.repository}"
    status = _status(error)
    if isinstance(error, GatedRepoError) or (source.gated and status in (401, 403)):
        return (
            f"{name}: {source.repository} is gated: accept its licence at {source.page}, then set HF_TOKEN to a token "
            "of your account (or run `hf auth login`)"
        )
    if status in (401, 403, 404) and not isinstance(error, EntryNotFoundError):
        return (
            f"{name}: the hub refuses {place} (HTTP {status}): check HF_TOKEN and HF_ENDPOINT, or download the file "
            f"from {source.page} and give its path"
        )
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return f"{name}: the hub has no {place} any more: give the path of a local copy"
    if constants.HF_HUB_OFFLINE:
        return (
            f"{name}: {place} is not in the cache and HF_HUB_OFFLINE is set: unset it to download "
            f"{entry.card.download_bytes / 1e9:.1f} GB, or give the path of a local copy"
        )
    if _is_full_disk(error):
        free = shutil.disk_usage(_existing(Path(constants.HF_HUB_CACHE))).free
        return (
            f"{name}: the disk is full: {place} needs {entry.card.download_bytes / 1e9:.1f} GB in "
            f"{constants.HF_HUB_CACHE} and {free / 1e9:.1f} GB are free; free some, or set HF_HOME to a larger disk"
        )
    if isinstance(error, LocalEntryNotFoundError) or _is_connection(error):
        return (
            f"{name}: no connection to the hub, or it broke off, while fetching {place}: try again when you are "
            "online, it goes on where it stopped; or give the path of a local copy"
        )
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{name}: the download of {place} failed ({reason}): try again, it goes on where it stopped"


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


def _is_connection(error: Exception) -> bool:
    """Whether the transport failed, as opposed to the hub's answer."""
    broke_off = "Consistency check failed" in str(error)
    return broke_off or (getattr(error, "response", None) is None and not isinstance(error, OSError))


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _bar(progress: DownloadProgress | None, cancel: Callable[[], bool] | None) -> type[Any]:
    """A progress bar as the hub's library wants it, that tells `progress` and asks `cancel`."""
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any):
            self.done = int(kwargs.get("initial") or 0)
            self.whole = int(kwargs.get("total") or 0)
            super().__init__(*args, **{**kwargs, "disable": progress is not None})

        def update(self, n: float | None = 1) -> bool | None:
            if cancel is not None and cancel():
                raise Cancelled("the download was stopped; it goes on where it stopped")
            self.done += int(n or 0)
            if progress is not None:
                progress(self.done, max(self.whole, self.done))
            return super().update(n)

    return Bar


def cache_folder() -> str:
    """Where downloads are kept."""
    from huggingface_hub import constants

    return os.fspath(constants.HF_HUB_CACHE)
