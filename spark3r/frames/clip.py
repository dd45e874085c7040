"""What reading a source gives: the frames themselves, and beforehand a short description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from spark3r.errors import InputError

SourceKind = Literal["video", "folder", "images", "zip"]


@dataclass(frozen=True)
class SourceInfo:
    """A source seen from outside, before anything is decoded in earnest."""

    kind: SourceKind
    frame_count: int
    fps: float | None  # frames per second; None for photos
    duration_s: float | None  # seconds; None for photos
    width: int  # pixels, upright (after EXIF orientation or video rotation), before any resizing
    height: int


@dataclass(frozen=True, eq=False)
class Frames:
    """S upright RGB frames of one size on the CPU, and where in the source each one stood."""

    images: np.ndarray  # [S, H, W, 3] uint8 RGB, contiguous
    indices: np.ndarray  # [S] int64, position in the source, 0-based
    timestamps: np.ndarray  # [S] float64 seconds for video, the plain index for photos
    names: tuple[str, ...]  # S names, unique
    source: str  # display name
    notes: tuple[str, ...]  # sentences a person should read
    decode_ms: float  # milliseconds spent opening, decoding and resizing

    def __post_init__(self) -> None:
        """Raise ValueError where the parts are not one clip."""
        if self.images.ndim != 4 or self.images.shape[-1] != 3 or self.images.dtype != np.uint8:
            raise ValueError(f"images are {self.images.dtype} {self.images.shape}: must be uint8 [S, H, W, 3]")
        lengths = {len(self.images), len(self.indices), len(self.timestamps), len(self.names)}
        if len(lengths) != 1:
            raise ValueError(f"images, indices, timestamps and names have lengths {sorted(lengths)}: must be equal")

    @classmethod
    def of(cls, images: np.ndarray) -> Frames:
        """Frames from a bare array [S, H, W, 3] uint8 RGB; raises InputError for anything else."""
        if not isinstance(images, np.ndarray) or images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise InputError("frames: must be what read_frames gives, or a uint8 RGB array [S, H, W, 3]")
        if len(images) == 0:
            raise InputError("frames: the array holds no frame; at least one is needed")
        count = np.arange(len(images))
        names = tuple(f"{index:06d}" for index in count)
        return cls(images, count.astype(np.int64), count.astype(np.float64), names, "array", (), 0.0)

    def __len__(self) -> int:
        return len(self.images)

    def select(self, indices: Sequence[int] | np.ndarray | slice) -> Frames:
        """The frames at these positions of *this* clip (0..S-1), in the order given."""
        chosen = np.arange(len(self))[indices if isinstance(indices, slice) else np.asarray(indices)]
        return replace(
            self,
            images=np.ascontiguousarray(self.images[chosen]),
            indices=self.indices[chosen],
            timestamps=self.timestamps[chosen],
            names=tuple(self.names[i] for i in chosen),
        )
