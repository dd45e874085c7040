"""The exact geometry behind a clip: depth and cameras of every frame, and the file that holds them."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spark3r.errors import InputError

ARRAYS = ("depth", "world_from_camera", "intrinsics")  # in truth.npz

# What numpy and zipfile raise for a file that is cut, changed, or something else altogether.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, LookupError, ValueError, TypeError, RuntimeError, OSError)


@dataclass(frozen=True)
class Truth:
    """Depth and cameras of every frame: OpenCV axes, any world frame, any one unit of length."""

    depth: np.ndarray  # [S, H, W] float32 z-depth
    world_from_camera: np.ndarray  # [S, 4, 4] float32
    intrinsics: np.ndarray  # [S, 3, 3] float32, pixels of H × W, integer pixel centres

    def __post_init__(self) -> None:
        frames = self.depth.shape[:1]
        if (
            self.depth.ndim != 3
            or self.world_from_camera.shape != (*frames, 4, 4)
            or self.intrinsics.shape != (*frames, 3, 3)
        ):
            raise InputError(
                f"truth of shapes depth {self.depth.shape}, world_from_camera {self.world_from_camera.shape}, "
                f"intrinsics {self.intrinsics.shape}: must be [S, H, W], [S, 4, 4], [S, 3, 3]"
            )

    def __len__(self) -> int:
        return len(self.depth)

    def select(self, indices: np.ndarray) -> Truth:
        """Some frames, by their position in the clip; raises InputError beyond its end."""
        indices = np.asarray(indices, dtype=np.int64)
        if len(indices) and (indices.min() < 0 or indices.max() >= len(self)):
            raise InputError(
                f"frame {int(indices.max())} asked of a truth with {len(self)} frames: must be 0 to {len(self) - 1}"
            )
        return Truth(self.depth[indices], self.world_from_camera[indices], self.intrinsics[indices])

    def resized(self, height: int, width: int) -> Truth:
        """The same for images of H × W pixels. Depth is read at the nearest pixel, never mixed across edges."""
        old_height, old_width = self.depth.shape[1:]
        if (height, width) == (old_height, old_width):
            return self
        y, x = old_height / height, old_width / width
        rows = np.clip(np.floor((np.arange(height) + 0.5) * y), 0, old_height - 1).astype(np.int64)
        columns = np.clip(np.floor((np.arange(width) + 0.5) * x), 0, old_width - 1).astype(np.int64)
        intrinsics = self.intrinsics.copy()
        intrinsics[:, 0] /= x
        intrinsics[:, 1] /= y
        intrinsics[:, 0, 2] += 0.5 / x - 0.5
        intrinsics[:, 1, 2] += 0.5 / y - 0.5
        return Truth(self.depth[:, rows][:, :, columns], self.world_from_camera, intrinsics)

    def save(self, path: Path) -> None:
        """Write truth.npz."""
        np.savez_compressed(
            path, depth=self.depth, world_from_camera=self.world_from_camera, intrinsics=self.intrinsics
        )


def read_truth(path: Path) -> Truth:
    """The truth stored in a truth.npz; raises InputError for a file that is damaged or holds something else."""
    try:
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            arrays = [file[name].astype(np.float32) for name in ARRAYS]
    except _UNREADABLE as error:
        raise InputError(
            f"{path} is damaged or holds no truth: must be a .npz of {', '.join(ARRAYS)}; write it anew or remove it"
        ) from error
    try:
        return Truth(*arrays)
    except InputError as error:
        raise InputError(f"{path} holds a {error}") from error
