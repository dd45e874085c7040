"""What both panes share: the baseline, its coordinates, the ends of its colour scales, the truth where there is one."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from spark3r.geometry import Similarity
from spark3r.metrics import alignment_to_truth, point_distances, scene_diagonal
from spark3r.metrics.truth import Truth
from spark3r.reconstruction import PointCloud, Reconstruction
from viewer.framing import Framing, viewer_from_world
from viewer.palette import Scale

SAMPLE_POINTS = 20_000
CAMERAS_ASKED = 8  # whose depths decide the ends of the scale


@dataclass(frozen=True, eq=False)
class Baseline:
    """A dense result and what follows from it for whatever is shown beside it."""

    scene: Reconstruction
    load_truth: Callable[[], Truth | None] | None = None  # of the clip; may take seconds, and is asked for once

    @cached_property
    def viewer_from_world(self) -> Similarity:
        """World of the baseline → coordinates of the panes."""
        return viewer_from_world(self.scene)

    @cached_property
    def framing(self) -> Framing:
        """Where to look at it from."""
        return Framing(self.scene.transformed(self.viewer_from_world))

    @cached_property
    def diagonal(self) -> float:
        """Of its points, in its world: the unit of differences."""
        return scene_diagonal(self.scene)

    @cached_property
    def confidence(self) -> Scale:
        """Ends of the confidence scale."""
        return Scale.spread(self.scene.points(0.0, SAMPLE_POINTS).confidence)

    @cached_property
    def depth(self) -> Scale:
        """Ends of the depth scale, of each frame's own points and seen from all over the path, in its world's units."""
        cloud = self.scene.points(0.0, SAMPLE_POINTS)
        frames = np.unique(np.linspace(0, len(self.scene) - 1, CAMERAS_ASKED).astype(int))
        seen = [depth_from(cloud, self.scene, int(frame)) for frame in frames]
        return Scale.spread(np.concatenate([cloud.depth, *seen]))

    @property
    def has_truth(self) -> bool:
        """Whether its clip has one."""
        return self.load_truth is not None

    @cached_property
    def truth(self) -> Truth | None:
        """Of the clip, as far as there is one."""
        return self.load_truth() if self.load_truth is not None else None

    def difference(self, cloud: PointCloud, run: Reconstruction) -> np.ndarray:  # [N]
        """How far each point of a run, aligned to the baseline, stands from the baseline's; shares of the diagonal."""
        return point_distances(cloud, run, self.scene, diagonal=self.diagonal)

    def error(self, cloud: PointCloud, run: Reconstruction) -> np.ndarray:  # [N]
        """How far each point of a run stands from the truth after Sim(3), as shares of the truth's diagonal; NaN where
        none is known."""
        if self.truth is None:
            return np.full(len(cloud), np.nan, np.float32)
        return point_distances(cloud, run, self.truth, alignment_to_truth(run, self.truth))


def depth_from(cloud: PointCloud, scene: Reconstruction, frame: int) -> np.ndarray:  # [N]
    """z-depth of points, given in the scene's world, in the camera of one frame; NaN behind it."""
    camera = scene.world_from_camera[frame].astype(np.float64)
    depth = (cloud.xyz - camera[:3, 3]) @ camera[:3, 2]
    return np.where(depth > 0, depth, np.nan)
