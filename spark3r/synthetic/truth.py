"""Exact depth and cameras of a clip, to measure a reconstruction by."""

from dataclasses import dataclass

import numpy as np

from spark3r.errors import InputError


@dataclass(frozen=True, eq=False)
class Truth:
    """What a perfect reconstruction would say. OpenCV axes, integer pixel centres, any world and unit."""

    depth: np.ndarray  # [S, H, W] float32 z-depth; not finite or <= 0 where nothing is known
    world_from_camera: np.ndarray  # [S, 4, 4]
    intrinsics: np.ndarray  # [S, 3, 3] pixels of H x W

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.depth)

    def select(self, indices: np.ndarray) -> "Truth":
        """The truth of some frames, in the given order. Raises InputError for a frame it does not have."""
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and not 0 <= indices.min() <= indices.max() < len(self):
            raise InputError(f"The truth has {len(self)} frames, but frame {indices.max()} was asked for.")
        return Truth(self.depth[indices], self.world_from_camera[indices], self.intrinsics[indices])

    def resized(self, height: int, width: int) -> "Truth":
        """The truth on another pixel grid over the same view: nearest depth, as edges must not blend."""
        old_height, old_width = self.depth.shape[1:]
        rows = ((np.arange(height) + 0.5) * old_height / height).astype(np.int64)
        columns = ((np.arange(width) + 0.5) * old_width / width).astype(np.int64)
        intrinsics = np.array(self.intrinsics)
        for axis, factor in ((0, width / old_width), (1, height / old_height)):
            intrinsics[:, axis] *= factor
            intrinsics[:, axis, 2] += 0.5 * (factor - 1)  # integer pixel centres: (c + 0.5) · factor - 0.5
        return Truth(self.depth[:, rows[:, None], columns], self.world_from_camera, intrinsics)
