"""The public verbs: describe a source, read its frames, read what a network needs of them."""

import time
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from spark3r.errors import InputError
from spark3r.frames.clip import Frames, SourceInfo
from spark3r.frames.image import decode_image
from spark3r.frames.photos import Decoded, Photos, read_photos
from spark3r.frames.sampling import (
    MIN_RESOLUTION,
    Watch,
    check_limits,
    check_memory,
    even_positions,
    fitted_size,
    planned_frames,
)
from spark3r.frames.source import Opened, Source, opened
from spark3r.frames.video import Video, each_frame, read_video

DEFAULT_RESOLUTION = 1024  # pixels on the longer side, as stored; models resize further
UNBOUNDED = 2**31 - 1  # pixels


def describe_source(source: Source) -> SourceInfo:
    """What `source` holds: kind, frames, rate, size. Reads packets or names, and decodes one frame at most.

    Raises InputError exactly where `read_frames` would, except for damage further inside.
    """
    with opened(source, Watch()) as found:
        return _described(found)


def read_frames(
    source: Source,
    *,
    max_frames: int | None = None,
    fps: float | None = None,
    resolution: int = DEFAULT_RESOLUTION,
    part: slice | None = None,
    progress: Callable[[int, int], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> Frames:
    """Read a video, a folder, a list or a zip of pictures, evenly sampled over its whole length.

    max_frames  1 or more; None takes all (of what `fps` leaves)
    fps         frames taken per second of video, above 0; None takes all; does nothing to photos
    resolution  bound on the longer stored side in pixels, 64 or more; nothing is ever enlarged
    part        of the frames that would be read, those to read; None: all
    progress    called with (frames done, frames planned)
    cancel      asked before every frame; True raises Cancelled

    Frames stay on the CPU and are shrunk as they are decoded. What was skipped, cropped or cut off stands in
    `notes`. A folder is read in natural order (frame2 before frame10), a list in the order given.
    Raises InputError with one sentence and its remedy; DoesNotFit before decoding more than memory holds.
    """
    check_limits(max_frames, fps, resolution)
    started = time.perf_counter()
    watch = Watch(progress, cancel)
    watch.check()
    with opened(source, watch) as found:
        info = _described(found) if isinstance(found.content, Video) else _counted(found)
        positions = even_positions(info.frame_count, planned_frames(info, max_frames, fps))
        positions = positions if part is None else positions[part]
        if isinstance(found.content, Video):
            check_memory(len(positions), *fitted_size(info.width, info.height, resolution))
            decoded = read_video(found.content, positions, resolution, watch)
        else:
            decoded = read_photos(found.content, positions, resolution, watch)
    return _frames(found, decoded, info.fps, (time.perf_counter() - started) * 1000)


class SeesFrames(Protocol):
    """What `frames_for` has to know of a network."""

    def needed_side(self, height: int, width: int, resolution: int | None = None) -> int:
        """Longer side in pixels at which frames of this size have to be kept."""
        ...


def frames_for(
    source: Source,
    network: SeesFrames,
    *,
    max_frames: int | None = None,
    fps: float | None = None,
    resolution: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> Frames:
    """The frames of a source as a network needs them: as small as they may be kept without losing what it would see.

    resolution  of the network's input, as in `reconstruct`; None: the model's own
    The rest, and what is raised, as in `read_frames`. Page and commands read by this function alone, so that the same
    settings mean the same pixels everywhere.
    """
    info = describe_source(source)
    side = max(MIN_RESOLUTION, network.needed_side(info.height, info.width, resolution))
    return _reader(source, max_frames=max_frames, fps=fps, resolution=side, progress=progress, cancel=cancel)


_reader: Callable[..., Frames] = read_frames


def read_by(reader: Callable[..., Frames]) -> None:
    """From here on `frames_for` leaves the reading to this, called as `read_frames` (team.py, where ranks share it)."""
    global _reader
    _reader = reader


def original_frames(source: Source, indices: np.ndarray) -> Iterator[np.ndarray]:
    """The frames at `indices` ([S] int64, rising, as in `Frames`) in their own size [H, W, 3] uint8 RGB, upright.

    One is in memory at a time. Photos may differ in size. Ends early where a frame can no longer be read.
    """
    with opened(source, Watch()) as found:
        if isinstance(found.content, Video):
            yield from each_frame(found.content, indices, Watch())
            return
        for position in indices.tolist():
            if position >= found.frame_count:
                return
            yield decode_image(found.content.load(position), found.content.names[position], UNBOUNDED)


def _frames(found: Opened, decoded: Decoded, fps: float | None, decode_ms: float) -> Frames:
    positions = decoded.indices.tolist()
    if isinstance(found.content, Video):
        names = tuple(f"frame_{position:06d}" for position in positions)
    else:
        names = tuple(found.content.names[position] for position in positions)
    notes = found.notes + decoded.notes
    if len(positions) == 1:
        notes = (*notes, "One frame gives depth but no camera motion: add a second view for that.")
    return Frames(
        images=decoded.images,
        indices=decoded.indices,
        timestamps=decoded.indices / fps if fps else decoded.indices.astype(np.float64),
        names=names,
        source=found.name,
        notes=notes,
        decode_ms=decode_ms,
    )


def _described(found: Opened) -> SourceInfo:
    content = found.content
    if isinstance(content, Video):
        duration_s = content.frame_count / content.fps
        return SourceInfo("video", content.frame_count, content.fps, duration_s, content.width, content.height)
    height, width = _first_readable(content)
    return SourceInfo(found.kind, found.frame_count, None, None, width, height)


def _counted(found: Opened) -> SourceInfo:
    """As `_described`, without opening a picture that is about to be read anyway."""
    return SourceInfo(found.kind, found.frame_count, None, None, 0, 0)


def _first_readable(photos: Photos) -> tuple[int, int]:
    """(height, width) of the first picture that can be read, upright; InputError of the first if none can."""
    first: InputError | None = None
    for position, name in enumerate(photos.names):
        try:
            data = photos.load(position)
            height, width = decode_image(data, name, UNBOUNDED).shape[:2]
            return height, width
        except InputError as fault:
            first = first or fault
    raise first or InputError("No picture was given.")
