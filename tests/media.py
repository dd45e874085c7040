"""Media made on the spot: every frame carries its own number, so that a test sees which frame it was given."""

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

BITS = 8  # numbers 0..255
SIZE = (160, 96)  # width, height in pixels


def numbered(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """RGB [H, W, 3] uint8: `number` in binary as white columns on black, lowest bit at the left."""
    width, height = size
    columns = (np.arange(width) * BITS // width)[None, :]
    bright = ((number >> columns) & 1).astype(np.uint8) * 255
    return np.ascontiguousarray(np.broadcast_to(bright[..., None], (height, width, 3)))


def number_of(image: np.ndarray) -> int:
    """The number an upright [H, W, 3] frame carries."""
    height, width = image.shape[:2]
    centres = [int((bit + 0.5) * width / BITS) for bit in range(BITS)]
    band = image[height // 3 : 2 * height // 3]
    return sum((int(band[:, centre].mean()) > 127) << bit for bit, centre in enumerate(centres))


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    fps: int = 10,
    codec: str = "libx264",
    gop: int = 12,
    options: dict[str, str] | None = None,
    to_pipe: bool = False,
    pixel_aspect: int = 1,
) -> Path:
    """Encode RGB frames; `to_pipe` writes as a browser's recorder does, with neither duration nor index."""
    target = io.BytesIO() if to_pipe else str(path)
    if isinstance(target, io.BytesIO):
        target.seekable = lambda: False  # type: ignore[method-assign]  a pipe cannot go back
    container = av.open(target, "w", format=path.suffix[1:].replace("mkv", "matroska"), options=options or {})
    stream = container.add_stream(codec, rate=fps)
    assert isinstance(stream, av.VideoStream)
    stream.height, stream.width = frames[0].shape[:2]
    stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    stream.codec_context.gop_size = gop
    stream.codec_context.sample_aspect_ratio = Fraction(pixel_aspect)
    for frame in frames:
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    container.mux(stream.encode())
    container.close()
    if isinstance(target, io.BytesIO):
        path.write_bytes(target.getvalue())
    return path


def numbered_video(path: Path, count: int, size: tuple[int, int] = SIZE, **encoding: object) -> Path:
    """A video of `count` numbered frames; see `write_video` for the encoding."""
    return write_video(path, [numbered(i, size) for i in range(count)], **encoding)  # type: ignore[arg-type]


def turn_video(path: Path, degrees: int, size: tuple[int, int] = SIZE) -> None:
    """Write into an mp4's track header that a player turns it clockwise by 90, 180 or 270 degrees."""
    one, width, height = 1 << 16, size[0] << 16, size[1] << 16
    matrix = {
        90: (0, one, 0, -one, 0, 0, height, 0, 1 << 30),
        180: (-one, 0, 0, 0, -one, 0, width, height, 1 << 30),
        270: (0, -one, 0, one, 0, 0, 0, width, 1 << 30),
    }[degrees]
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40  # ISO 14496-12, 8.3.2: version 0
    data[start : start + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)


def write_photo(path: Path, image: np.ndarray) -> Path:
    """Save RGB [H, W, 3] (or grey [H, W]) uint8 or uint16 by OpenCV, as the suffix says."""
    pixels = image[..., ::-1] if image.ndim == 3 else image
    encoded, data = cv2.imencode(path.suffix, np.ascontiguousarray(pixels))
    assert encoded
    path.write_bytes(data.tobytes())
    return path


def numbered_photos(folder: Path, names: Sequence[str], size: tuple[int, int] = SIZE) -> list[Path]:
    """One numbered picture per name, the number being the place in `names`."""
    folder.mkdir(parents=True, exist_ok=True)
    return [write_photo(folder / name, numbered(i, size)) for i, name in enumerate(names)]
