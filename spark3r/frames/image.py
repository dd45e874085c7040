"""One photo's bytes → upright RGB. JPEG, PNG, WebP, BMP and TIFF through OpenCV, HEIC through pillow-heif."""

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np

from spark3r.errors import InputError
from spark3r.frames.exif import orientation_of
from spark3r.frames.sampling import stored_size
from spark3r.installation import require

HEIC_SUFFIXES = frozenset({".heic", ".heif"})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}) | HEIC_SUFFIXES
MAX_PIXELS = 256_000_000  # one picture; beyond it a few kilobytes could ask for gigabytes
FREE_PIXELS = 16_000_000  # up to here a header is believed; beyond, only with data to match
MAX_PIXELS_PER_BYTE = 10_000  # deflate reaches 8,256 at one bit per pixel, JPEG some hundreds
MAX_WIDE_PIXELS_PER_BYTE = 1_100  # in BMP and TIFF, whose pixels may take 16 bytes each: deflate at one byte per pixel
_TIFF_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}  # TIFF 6.0, section 2; BigTIFF is not read
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_SHORT = 256, 257, 3
_logging: Any = getattr(cv2.utils, "logging", cv2)  # OpenCV before 5 has its two functions at the top


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """OpenCV's remarks on damaged files stay out of standard error; ours is one sentence in an exception."""
    level = _logging.getLogLevel()  # pyright: ignore[reportAttributeAccessIssue]
    _logging.setLogLevel(0)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        _logging.setLogLevel(level)  # pyright: ignore[reportAttributeAccessIssue]


def decode_image(data: bytes, name: str, resolution: int) -> np.ndarray:
    """RGB [H, W, 3] uint8, upright, longer side at most `resolution`; InputError says what is wrong."""
    if not data:
        raise InputError(f"{name} is an empty file: save or copy the picture again.")
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        raise InputError(f"{name} is an AVIF picture, which is not read: export it again as JPEG or PNG.")
    size = image_size(data)
    check_pixels(size, name)
    if size is None and data[4:8] != b"ftyp":
        raise _damaged(name)  # what tells no size could ask for any amount of memory
    per_byte = MAX_WIDE_PIXELS_PER_BYTE if data.startswith((b"BM", *_TIFF_ORDERS)) else MAX_PIXELS_PER_BYTE
    if size is not None and size[0] * size[1] > max(FREE_PIXELS, per_byte * len(data)):
        raise _damaged(name)
    if os.path.splitext(name)[1].lower() in HEIC_SUFFIXES or data[4:8] == b"ftyp":
        pixels, orientation = _decode_heic(data, name)
    else:
        pixels, orientation = _decode_opencv(data, name, resolution)
    height, width = pixels.shape[:2]
    fitted = stored_size(name, width, height, resolution)
    return _upright(shrink(_rgb_bytes(pixels), fitted), orientation)


def shrink(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize [H, W, C] to (width, height); area averaging, the same array when nothing changes."""
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def check_pixels(size: tuple[int, int] | None, name: str) -> None:
    """Raise InputError for a picture whose header (width, height) asks for an absurd amount of memory."""
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise InputError(
            f"{name} is {size[0]}x{size[1]} pixels: at most {MAX_PIXELS // 1_000_000} million "
            "pixels are read; export a smaller version."
        )


def image_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) as the header of a JPEG, PNG, WebP, BMP or TIFF says; None for any other or a damaged header."""
    try:
        return _stated_size(data)
    except struct.error:  # the header ends early
        return None


def _stated_size(data: bytes) -> tuple[int, int] | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        return struct.unpack(">II", data[16:24])
    if data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) >= 30:
        return _webp_size(data)
    if data.startswith(b"BM"):
        return _bmp_size(data)
    if data[:4] in _TIFF_ORDERS:
        return _tiff_size(data)
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Walk the segments to the start of frame (ITU T.81, B.2.2)."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 9 <= len(data):
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 1 if marker == 0xFF else 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """The three kinds of first chunk (RFC 9649, section 2)."""
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if data[12:16] == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return None


def _bmp_size(data: bytes) -> tuple[int, int] | None:
    """The two generations of header (BITMAPCOREHEADER, BITMAPINFOHEADER and later); rows may run from the top."""
    if int.from_bytes(data[14:18], "little") == 12:
        return struct.unpack("<HH", data[18:22])
    width, height = struct.unpack("<ii", data[18:26])
    return abs(width), abs(height)


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of the first image file directory, as 16- or 32-bit numbers."""
    order = _TIFF_ORDERS[data[:4]]
    (start,) = struct.unpack(order + "I", data[4:8])
    (count,) = struct.unpack(order + "H", data[start : start + 2])
    found: dict[int, int] = {}
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind = struct.unpack(order + "HH", data[entry : entry + 4])
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT):
            width = "H" if kind == _TIFF_SHORT else "I"
            (found[tag],) = struct.unpack_from(order + width, data, entry + 8)
    return (found[_TIFF_WIDTH], found[_TIFF_HEIGHT]) if len(found) == 2 else None


def _decode_opencv(data: bytes, name: str, resolution: int) -> tuple[np.ndarray, int]:
    """(pixels as stored [H, W] or [H, W, C], EXIF orientation 1..8)."""
    try:
        with quiet_opencv():
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), _flags(data, resolution))
    except cv2.error as error:
        raise _damaged(name) from error
    if pixels is None:
        raise _damaged(name)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if channels >= 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA if channels == 4 else cv2.COLOR_BGR2RGB)
    return pixels, orientation_of(data)


def _flags(data: bytes, resolution: int) -> int:
    """As stored; but a JPEG of twice the resolution or more is halved while decoding, which is quicker."""
    size = image_size(data) if data.startswith(b"\xff\xd8") else None
    fold = max(size) // resolution if size else 1
    for factor, reduced in (
        (8, cv2.IMREAD_REDUCED_COLOR_8),
        (4, cv2.IMREAD_REDUCED_COLOR_4),
        (2, cv2.IMREAD_REDUCED_COLOR_2),
    ):
        if fold >= factor:
            return reduced | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.IMREAD_UNCHANGED


def _decode_heic(data: bytes, name: str) -> tuple[np.ndarray, int]:
    """(pixels [H, W, C] uint8, 1): libheif turns the picture itself."""
    require(f"Reading {name}, a HEIC photo,", "pillow_heif")
    import pillow_heif

    try:
        picture = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
        check_pixels(picture.size, name)
        return np.asarray(picture), 1
    except (ValueError, IndexError, EOFError, SyntaxError, RuntimeError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise _damaged(name) from error


def _damaged(name: str) -> InputError:
    return InputError(
        f"{name} cannot be read as a picture: it is damaged or of another kind; export it again as JPEG or PNG."
    )


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation: 2, 4 mirror; 3 turns by half; 5 to 8 swap the sides."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _rgb_bytes(pixels: np.ndarray) -> np.ndarray:
    """RGB [H, W, 3] uint8 from grey, RGB or RGBA in 8 or 16 bits; transparency is laid on white."""
    if pixels.dtype == np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=1 / 257)
    elif pixels.dtype != np.uint8:
        pixels = cv2.convertScaleAbs(np.nan_to_num(pixels).clip(0, 1), alpha=255)  # float TIFF, 0..1
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if pixels.shape[2] == 4 and not pixels[..., 3].any():
        return np.ascontiguousarray(pixels[..., :3])  # 32-bit BMP: the fourth channel is padding
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3:].astype(np.uint16)
        return ((pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return pixels
