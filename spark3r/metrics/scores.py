"""All metrics of one reconstruction, and those of the trivial baseline."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from spark3r.errors import InputError
from spark3r.metrics.cloud import View, cloud_errors
from spark3r.metrics.depth import depth_errors
from spark3r.metrics.trajectory import trajectory_errors
from spark3r.metrics.truth import Truth
from spark3r.reconstruction import Reconstruction
from spark3r.stopping import may_stop


@dataclass(frozen=True)
class Scores:
    """Quality against a reference. NaN where a number is undefined: a still camera has no path."""

    abs_rel: float  # mean |depth - truth| / truth after one median scale per clip; 0 is perfect
    delta_1_25: float  # share of pixels within a factor 1.25; 1 is perfect
    ate: float  # rmse of camera centres after Sim(3), world units of the reference
    ate_relative: float  # ATE / path length of the reference
    rotation_deg: float  # mean orientation error after alignment of the orientations
    auc_3: float  # relative poses of all pairs of frames: area under the accuracy curve up to 3°; 1 is perfect
    auc_30: float  # the same up to 30°
    accuracy: float  # mean distance prediction → truth of the fused cloud, fraction of the scene diagonal
    completeness: float  # mean distance truth → prediction, fraction of the scene diagonal
    normal_consistency: float  # mean |cosine| of neighbouring normals; 1 is perfect

    @property
    def chamfer(self) -> float:
        """Mean of accuracy and completeness, fraction of the scene diagonal."""
        return (self.accuracy + self.completeness) / 2

    def to_json(self) -> dict[str, float | None]:
        """Plain numbers by name, None for undefined ones (JSON has no NaN)."""
        return {name: none_if_undefined(value) for name, value in dataclasses.asdict(self).items()}


def none_if_undefined(value: float) -> float | None:
    """A number as JSON can say it."""
    return value if math.isfinite(value) else None


def evaluate(reconstruction: Reconstruction, truth: Truth) -> Scores:
    """Scores of a reconstruction against the truth of its clip.

    The truth may cover the whole clip (its frames are then picked by `reconstruction.indices`) or exactly the
    frames reconstructed, at any size of the same view.
    """
    truth = matched(truth, reconstruction)
    if len(reconstruction) == 0:
        raise InputError("A reconstruction without frames cannot be evaluated.")
    depth = depth_errors(reconstruction.depth, truth.depth)
    may_stop()
    trajectory = trajectory_errors(reconstruction.world_from_camera, truth.world_from_camera)
    may_stop()
    cloud = cloud_errors(view_of(reconstruction), view_of(truth))
    return Scores(*depth, *trajectory, *cloud)


def matched(truth: Truth, reconstruction: Reconstruction) -> Truth:
    """The truth of the frames that were reconstructed, at their size."""
    if len(truth) != len(reconstruction):
        truth = truth.select(reconstruction.indices)
    return truth.resized(reconstruction.height, reconstruction.width)


def trivial_baseline(reconstruction: Reconstruction) -> Reconstruction:
    """What anybody can say without looking: constant depth and a camera that stands still.

    Its lens is the median of those found, so that all frames give the same few points.
    """
    lens = np.median(reconstruction.intrinsics, axis=0)
    return dataclasses.replace(
        reconstruction,
        depth=np.ones_like(reconstruction.depth),
        world_from_camera=np.tile(np.eye(4, dtype=np.float32), (len(reconstruction), 1, 1)),
        intrinsics=np.tile(lens, (len(reconstruction), 1, 1)),
    )


def trivial_scores(reconstruction: Reconstruction, truth: Truth) -> Scores:
    """The scores of `trivial_baseline` for the same clip: the level from which a model begins to know something."""
    return evaluate(trivial_baseline(reconstruction), truth)


def view_of(scene: Reconstruction | Truth) -> View:
    """What a cloud is made of."""
    return View(scene.depth, scene.world_from_camera, scene.intrinsics)
