"""How a photo was held: the orientation in the EXIF block of a JPEG, PNG, WebP or TIFF file."""

from __future__ import annotations

import struct

ORIENTATION_TAG = 0x0112  # EXIF 2.32, table 4
_JPEG_SCAN, _JPEG_APP1 = 0xDA, 0xE1  # ITU T.81, table B.1; EXIF 2.32, 4.7.2
_HEAD = b"Exif\x00\x00"


def orientation_of(data: bytes) -> int:
    """1..8 as the file of a photo says, 1 (upright) where it says nothing or is damaged there."""
    return exif_orientation(_block(data))


def exif_orientation(exif: bytes) -> int:
    """1..8 from an EXIF block (with or without its leading 'Exif'); 1 (upright) where it says nothing."""
    tiff = exif[len(_HEAD) :] if exif.startswith(_HEAD) else exif
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 10:
        return 1
    start = struct.unpack(order + "I", tiff[4:8])[0]
    count = int.from_bytes(tiff[start : start + 2], "little" if order == "<" else "big")
    for entry in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        tag, _kind, _count, value = struct.unpack(order + "HHIH", tiff[entry : entry + 10])
        if tag == ORIENTATION_TAG:
            return value if 1 <= value <= 8 else 1
    return 1


def _block(data: bytes) -> bytes:
    """The EXIF block; empty if there is none. A TIFF file is one itself."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg_block(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_block(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_block(data)
    return data if data[:4] in (b"II*\x00", b"MM\x00*") else b""


def _jpeg_block(data: bytes) -> bytes:
    """The first application segment that holds EXIF, before the picture itself."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _JPEG_SCAN:
        if data[at + 1] == 0xFF:  # a fill byte
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == _JPEG_APP1 and data.startswith(_HEAD, at + 4):
            return data[at + 4 : end]
        at = end
    return b""


def _png_block(data: bytes) -> bytes:
    """Chunks are length, name, data, checksum (PNG 1.2, 3.2)."""
    at = 8
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"eXIf":
            return data[at + 8 : at + 8 + length]
        at += length + 12
    return b""


def _webp_block(data: bytes) -> bytes:
    """Chunks are name, length, data, padded to an even length (RFC 9649, 2.3)."""
    at = 12
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        if name == b"EXIF":
            return data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    return b""
