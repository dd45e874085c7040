"""A video through OpenCV's FFmpeg, frame by frame; only the wanted frames are converted, shrunk and kept."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from spark3r.errors import InputError
from spark3r.frames.image import quiet_opencv, shrink
from spark3r.frames.photos import Decoded, one_size
from spark3r.frames.sampling import Watch, even_positions, stored_size

# FFmpeg prints remarks on standard error; ours is one sentence in an exception. Read at the first open.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

FPS_BOUNDS = (0.01, 480.0)  # outside, the container states a time base and not a rate
FALLBACK_FPS = 30.0
SEEK_MARGIN_FRAMES = 16  # OpenCV starts that many frames before the one it looks for
REMEDY = "open it in a player and export it again as mp4 (H.264)"


@dataclass(frozen=True)
class Video:
    """What a video's packets tell before one frame is decoded."""

    path: Path
    name: str
    frame_count: int  # packets really in the file
    announced: int  # the same, or what the container claims where the file is cut off
    keyframe_gap: int  # frames from one keyframe to the next, on average
    fps: float
    width: int  # pixels, after rotation, with square pixels
    height: int
    notes: tuple[str, ...]


def is_video(head: bytes) -> bool:
    """True for the first bytes of a container we hand to FFmpeg.

    A list of what is allowed: FFmpeg also opens playlists, which would read other files or addresses.
    """
    return (
        head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")  # mp4, mov
        or head[:4] in (b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"\x30\x26\xb2\x75", b"OggS")
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
        or head[:3] == b"FLV"
        or head[:6] in (b"GIF87a", b"GIF89a")
        or (head[:1] == b"G" and head[188:189] == b"G")  # MPEG transport stream
        or (head[4:5] == b"G" and head[196:197] == b"G")  # the same on a camera's disc
    )


def open_video(path: Path, name: str, watch: Watch) -> Video:
    """Look through the packets (no decoding: about 10 ms per 1,000) and the first frame's size.

    Raises InputError where nothing can be decoded, Cancelled when asked to stop.
    """
    packets, keyframes, last_s = _count_packets(path, watch)
    capture = _open(path)
    if packets == 0 or capture is None:
        reason = "it is cut off, has sound only, or a codec that this machine does not decode"
        raise InputError(f"No picture can be read from {name} ({reason}): {REMEDY}.")
    try:
        claimed, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
        width, height = _square_size(capture)
    finally:
        capture.release()
    notes: list[str] = []
    if not FPS_BOUNDS[0] <= fps <= FPS_BOUNDS[1]:  # NaN fails too
        fps = (packets - 1) / last_s if last_s > 0 and packets > 1 else FALLBACK_FPS
        notes.append(f"{name} states no usable frame rate: {fps:.3g} frames per second are assumed.")
    announced = packets
    if packets < claimed and last_s + 2 / fps < claimed / fps:
        announced = round(claimed)
        notes.append(_cut_note(name, packets, announced))
    gap = math.ceil(packets / max(keyframes, 1))
    return Video(path, name, packets, announced, gap, fps, width, height, tuple(notes))


def read_video(video: Video, positions: np.ndarray, resolution: int, watch: Watch) -> Decoded:
    """Decode the frames at `positions` ([S] int64, rising), each shrunk at once.

    Where decoding ends before the packets do, as many frames are spread over what there is, and noted.
    """
    frames, readable = _decode(video, positions, resolution, watch)
    notes = video.notes
    if len(frames) < len(positions):
        if readable == 0:
            raise InputError(f"No picture in {video.name} can be decoded: {REMEDY}.")
        supposed = _cut_note(video.name, video.frame_count, video.announced)
        notes = (*(note for note in notes if note != supposed), _cut_note(video.name, readable, video.announced))
        positions = even_positions(readable, len(positions))
        frames, _ = _decode(video, positions, resolution, watch)
    if not frames:
        raise InputError(f"No picture in {video.name} can be decoded: {REMEDY}.")
    return Decoded(one_size(frames), positions[: len(frames)], notes)


def each_frame(video: Video, positions: np.ndarray, watch: Watch) -> Iterator[np.ndarray]:
    """The frames at `positions` [H, W, 3] uint8 RGB in the video's own size, one in memory at a time; ends early where
    decoding does."""
    capture = _open(video.path)
    if capture is None:
        return
    size = stored_size(video.name, video.width, video.height, max(video.width, video.height))
    try:
        for bgr in _run_through(capture, positions, watch, _Passed()):
            yield cv2.cvtColor(shrink(bgr, size), cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def seeking_is_quicker(positions: np.ndarray, keyframe_gap: int) -> bool:
    """Whether to jump from one wanted frame to the next, or to run through all between.

    A jump decodes about keyframe_gap / 2 + 16 frames. Measured with 1080p H.264 and a keyframe each 30
    frames: equal at one frame in 35, nearly twice as quick at one in 60.
    """
    if len(positions) < 2:
        return False
    stride = (positions[-1] - positions[0]) / (len(positions) - 1)
    return bool(stride > keyframe_gap + SEEK_MARGIN_FRAMES)


def _decode(video: Video, positions: np.ndarray, resolution: int, watch: Watch) -> tuple[list[np.ndarray], int]:
    """(frames, number of frames that can be decoded, known only when fewer came than asked for)."""
    size = stored_size(video.name, video.width, video.height, resolution)
    if seeking_is_quicker(positions, video.keyframe_gap):
        frames, _ = _collect(video, positions, size, watch, seek=True)
        if len(frames) == len(positions):
            return frames, video.frame_count
    return _collect(video, positions, size, watch, seek=False)


def _collect(
    video: Video, positions: np.ndarray, size: tuple[int, int], watch: Watch, *, seek: bool
) -> tuple[list[np.ndarray], int]:
    """(frames [H, W, 3] uint8 RGB up to the first that fails, frames passed by then)."""
    capture = _open(video.path)
    if capture is None:
        return [], 0
    frames: list[np.ndarray] = []
    passed = _Passed()
    walk = _jump(capture, positions, watch) if seek else _run_through(capture, positions, watch, passed)
    try:
        watch.advance(0, len(positions))
        for bgr in walk:
            frames.append(cv2.cvtColor(shrink(bgr, size), cv2.COLOR_BGR2RGB))
            watch.advance(len(frames), len(positions))
    finally:
        capture.release()
    return frames, passed.count


@dataclass
class _Passed:
    count: int = 0


def _run_through(
    capture: cv2.VideoCapture, positions: np.ndarray, watch: Watch, passed: _Passed
) -> Iterator[np.ndarray]:
    for position in positions.tolist():
        while passed.count <= position:
            watch.check()
            if not capture.grab():
                return
            passed.count += 1
        readable, bgr = capture.retrieve()
        if not readable:
            return
        yield bgr


def _jump(capture: cv2.VideoCapture, positions: np.ndarray, watch: Watch) -> Iterator[np.ndarray]:
    for position in positions.tolist():
        watch.check()
        capture.set(cv2.CAP_PROP_POS_FRAMES, position)
        if round(capture.get(cv2.CAP_PROP_POS_FRAMES)) != position:
            return
        readable, bgr = capture.read()
        if not readable:
            return
        yield bgr


def _open(path: Path) -> cv2.VideoCapture | None:
    """A capture that yields upright frames, or None. Never a name with a scheme: the path is absolute."""
    with quiet_opencv():
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        return None
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    return capture


def _count_packets(path: Path, watch: Watch) -> tuple[int, int, float]:
    """(packets, keyframes, seconds of the last packet): the container's own count may be absent or a wish."""
    with quiet_opencv():
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    packets, keyframes, last_s = 0, 0, 0.0
    try:
        while capture.isOpened() and capture.grab():
            packets += 1
            keyframes += capture.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME) > 0
            last_s = max(last_s, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
            if packets % 256 == 0:
                watch.check()
    finally:
        capture.release()
    if packets > 1 and last_s == 0:  # OpenCV before 4.10 tells the times of decoded frames only
        last_s = _seconds_of(path, packets - 1)
    return packets, keyframes, last_s


def _seconds_of(path: Path, frame: int) -> float:
    """When a frame is shown; 0 where it cannot be decoded."""
    capture = _open(path)
    if capture is None:
        return 0.0
    try:
        capture.set(cv2.CAP_PROP_POS_FRAMES, frame)
        return capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 if capture.grab() else 0.0
    finally:
        capture.release()


def _square_size(capture: cv2.VideoCapture) -> tuple[int, int]:
    """(width, height) upright, anamorphic pixels made square by widening."""
    width, height = (
        round(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        round(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
    )
    aspect_num, aspect_den = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
    aspect = aspect_num / aspect_den if aspect_num > 0 and aspect_den > 0 else 1.0
    turned = round(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 180 != 0
    if not 0.2 < aspect < 5:
        aspect = 1.0
    return (width, round(height * aspect)) if turned else (round(width * aspect), height)


def _cut_note(name: str, readable: int, announced: int) -> str:
    return f"{name} announces {announced} frames but {readable} can be read: it is cut off or damaged there."
