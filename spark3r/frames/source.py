"""What the user handed in: one video, one folder, one zip, or a list of pictures."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from spark3r.errors import InputError
from spark3r.frames.archive import ZipMembers
from spark3r.frames.clip import SourceKind
from spark3r.frames.image import IMAGE_SUFFIXES
from spark3r.frames.photos import Photos
from spark3r.frames.sampling import Watch, natural_key
from spark3r.frames.video import Video, is_video, open_video

Source = str | Path | Sequence[str | Path]
LEGAL = "a video (mp4, mov, webm, avi), pictures (JPEG, PNG, WebP, HEIC), a folder or a zip of pictures"
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".gif"})
PICTURE_FOLDERS = ("rgb", "images")  # where a clip folder keeps its frames


@dataclass(frozen=True)
class Opened:
    """A source that has been found and recognised."""

    kind: SourceKind
    name: str
    content: Video | Photos
    notes: tuple[str, ...] = ()

    @property
    def frame_count(self) -> int:
        """How many frames there are, None where only decoding would tell."""
        return self.content.frame_count if isinstance(self.content, Video) else len(self.content.names)


@contextmanager
def opened(source: Source, watch: Watch) -> Iterator[Opened]:
    """Recognise `source` by what it holds; InputError where it is nothing we read. Open inside the `with`."""
    paths = _paths(source)
    path = paths[0]
    if len(paths) > 1:
        yield Opened("images", f"{len(paths)} pictures", _picture_list(paths))
    elif path.is_dir():
        yield _open_folder(path, watch)
    elif (head := _head(path)).startswith(b"PK"):
        with ZipMembers(path, shown(path)) as members:
            yield _zip_pictures(members, shown(path))
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        yield Opened("images", shown(path), _picture_list(paths))
    elif is_video(head):
        yield Opened("video", shown(path), open_video(path, shown(path), watch))
    else:
        raise InputError(f"{shown(path)} is neither a video nor a picture nor a zip: choose {LEGAL}.")


def shown(path: Path | str) -> str:
    """A file's name fit for one printed line: no line breaks, nothing unprintable, 120 characters at most."""
    name = path.name if isinstance(path, Path) else path
    text = "".join(letter if letter.isprintable() else "?" for letter in name)
    return text if len(text) <= 120 else f"{text[:80]}…{text[-39:]}"


def _paths(source: Source) -> list[Path]:
    """Absolute paths, each of which exists and may be read."""
    items = [source] if isinstance(source, (str, Path)) else list(source)
    if not items or not all(str(item).strip() for item in items):
        raise InputError(f"Nothing was chosen: choose {LEGAL}.")
    return [_existing(item) for item in items]


def _existing(item: str | Path) -> Path:
    path = Path(os.path.abspath(Path(item).expanduser()))
    try:
        path.stat()
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise InputError(f"{shown(path)} may not be read: change its permissions.") from error
        raise InputError(f"{shown(str(item))} does not exist: check the path, or choose {LEGAL}.") from error
    return path


def _head(path: Path) -> bytes:
    if not path.is_file():
        raise InputError(f"{shown(path)} is no regular file: choose {LEGAL}.")
    head = read_file(path, 512)
    if not head:
        raise InputError(f"{shown(path)} is an empty file: copy or upload it again.")
    return head


def read_file(path: Path, limit: int = -1) -> bytes:
    """The first `limit` bytes (-1: all); InputError where the system refuses."""
    try:
        with path.open("rb") as stream:
            return stream.read(limit)
    except OSError as error:
        reason = "may not be read" if error.errno in (errno.EACCES, errno.EPERM) else "cannot be read"
        raise InputError(f"{shown(path)} {reason} ({error.strerror}): check the file and its disk.") from error


def _picture_list(paths: list[Path]) -> Photos:
    """A list keeps the caller's order."""
    for path in paths:
        if path.is_dir() or path.suffix.lower() not in IMAGE_SUFFIXES:
            what = "a folder" if path.is_dir() else "no picture"
            raise InputError(
                f"{shown(path)} is {what}: several files at once must all be pictures "
                "(JPEG, PNG, WebP, HEIC); give a video, folder or zip alone."
            )
    names = [shown(path) for path in paths]
    if len(set(names)) < len(names):
        names = [f"{i:06d}_{name}" for i, name in enumerate(names)]
    return Photos(tuple(names), lambda i: read_file(paths[i]))


def _open_folder(folder: Path, watch: Watch) -> Opened:
    """The first there is: rgb/ or images/ of a clip folder, its video.*, its own pictures, its only video."""
    name = shown(folder)
    for inner in PICTURE_FOLDERS:
        pictures = _pictures_in(folder / inner) if (folder / inner).is_dir() else []
        if pictures:
            return _folder_pictures(name, pictures)
    videos = [path for path in _visible(folder) if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES]
    pictures = _pictures_in(folder)
    chosen = [path for path in videos if path.stem == "video"] or ([] if pictures else videos)
    if len(chosen) == 1 and is_video(_head(chosen[0])):
        return Opened("video", name, open_video(chosen[0], shown(chosen[0]), watch))
    if pictures:
        return _folder_pictures(name, pictures)
    raise InputError(f"{name} is a folder without pictures{_hint(folder, videos)}: choose {LEGAL}.")


def _folder_pictures(name: str, pictures: list[Path]) -> Opened:
    return Opened("folder", name, Photos(tuple(shown(path) for path in pictures), lambda i: read_file(pictures[i])))


def _hint(folder: Path, videos: list[Path]) -> str:
    if videos:
        return f" and with {len(videos)} videos (name one of them)" if len(videos) > 1 else ""
    inner = [shown(path) for path in _visible(folder) if path.is_dir()]
    if inner:
        return f" of its own (it has {', '.join(inner[:3])}{', …' if len(inner) > 3 else ''}: name one of them)"
    return "" if _visible(folder) else " or anything else"


def _visible(folder: Path) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{shown(folder)} may not be listed ({error.strerror}): change its permissions.") from error
    return sorted(found, key=lambda path: natural_key(path.name))


def _pictures_in(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]


def _zip_pictures(members: ZipMembers, name: str) -> Opened:
    """Every picture in the zip by natural order of its path; nested archives are named, not opened."""
    visible = [member for member in members.names if not _hidden(member)]
    pictures = sorted((m for m in visible if _suffix(m) in IMAGE_SUFFIXES), key=natural_key)
    nested = [shown(m) for m in visible if _suffix(m) in {".zip", ".7z", ".rar", ".tar", ".gz"}]
    videos = [shown(m) for m in visible if _suffix(m) in VIDEO_SUFFIXES]
    if not pictures:
        found = f": it holds {(nested + videos)[0]}; unpack it and choose that" if nested or videos else ""
        remedy = found or ": put JPEG, PNG, WebP or HEIC files into it"
        raise InputError(f"{name} is a zip without pictures{remedy}.")
    unread = nested + videos
    notes = (f"{', '.join(unread[:3])} in {name} not opened: a zip is read for pictures only.",) if unread else ()
    return Opened("zip", name, Photos(tuple(shown(m) for m in pictures), lambda i: members.read(pictures[i])), notes)


def _suffix(member: str) -> str:
    return PurePosixPath(member).suffix.lower()


def _hidden(member: str) -> bool:
    parts = PurePosixPath(member).parts
    return "__MACOSX" in parts or any(part.startswith(".") for part in parts)
