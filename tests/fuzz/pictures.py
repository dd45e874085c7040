"""One small sound picture of each format that is read."""

import io
from functools import cache

import numpy as np
from PIL import Image


@cache
def samples() -> list[tuple[str, bytes]]:
    """(name, bytes) of a 32 × 24 picture each."""
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    made = []
    for suffix, file_format in (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("bmp", "BMP"), ("tif", "TIFF")):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, file_format)
        made.append((f"picture.{suffix}", stream.getvalue()))
    return made
