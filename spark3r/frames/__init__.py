"""Video, photos, folder or zip → `Frames`: where a clip's way begins, and the user's files are opened.

clip.py      what comes out: Frames, SourceInfo
sampling.py  which frames are taken
source.py    what the user handed in: video, folder, list or zip
video.py     OpenCV's FFmpeg, frame by frame
photos.py    many photos, one size
image.py     one photo's bytes → RGB
archive.py   zip members in memory, within limits
read.py      read_frames, frames_for, describe_source, original_frames
"""

from spark3r.frames.clip import Frames, SourceInfo
from spark3r.frames.read import describe_source, frames_for, original_frames, read_frames
from spark3r.frames.sampling import natural_key, planned_frames

__all__ = [
    "Frames",
    "SourceInfo",
    "describe_source",
    "frames_for",
    "natural_key",
    "original_frames",
    "planned_frames",
    "read_frames",
]
