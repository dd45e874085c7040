"""Writers: a reconstruction as files that other programs open, each of which says what it holds.

contents.py  what goes into a file: points by the usual filters, and what is told about them
writers.py   one file each: GLB, PLY, NPZ, TUM
colmap.py    a folder: COLMAP model (text and binary), nerfstudio's transforms.json, the frames
formats.py   the table of formats: write(), check(), names and sizes
"""

from spark3r.export.contents import DEFAULT_MAX_POINTS, OWN_WORLD, Filters, Origin, about
from spark3r.export.formats import FORMATS, check, estimated_bytes, file_name, write

__all__ = [
    "DEFAULT_MAX_POINTS", "FORMATS", "OWN_WORLD", "Filters", "Origin",
    "about", "check", "estimated_bytes", "file_name", "write",
]  # fmt: skip
