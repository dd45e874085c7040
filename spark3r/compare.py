"""compare(): the same frames through the same model twice, dense and reduced, and what that changed."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import torch

from spark3r.errors import InputError
from spark3r.estimate import Schedule
from spark3r.frames import Frames
from spark3r.geometry import Similarity, align_cameras
from spark3r.inference import Progress, reconstruct
from spark3r.installation import require
from spark3r.measure import machine
from spark3r.metrics import Consistency, Scores, consistency, evaluate, match_features
from spark3r.metrics.depth import depth_scale
from spark3r.metrics.scores import none_if_undefined
from spark3r.metrics.truth import Truth
from spark3r.models.checkpoints import load_model
from spark3r.models.network import Network
from spark3r.reconstruction import STAGES, Reconstruction

# Enough to load kernels and libraries, too few to cost anything.
WARM_UP_FRAMES = 2


@dataclass(frozen=True)
class RunProgress(Progress):
    """Progress, and of which of the two runs; `fraction` is that run's own."""

    run: Literal["dense", "reduced"] = "dense"


@dataclass(frozen=True)
class Difference:
    """How far the reduced result is from the dense one, which stands in for the truth (see `metrics.Scores`)."""

    abs_rel: float  # mean relative difference of depth, after one scale per clip
    ate: float  # rmse of camera centres after Sim(3), world units of the dense run
    ate_relative: float  # ATE / path length of the dense run
    rotation_deg: float  # mean difference of orientations
    auc_3: float  # relative poses of all pairs of frames, strict and loose; 1 is no difference
    auc_30: float
    chamfer: float  # mean distance between the clouds, fraction of the scene diagonal

    def to_json(self) -> dict[str, float | None]:
        """Numbers by name, None for undefined ones."""
        return {name: none_if_undefined(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two results of one clip in one world, with their costs and differences."""

    dense: Reconstruction
    reduced: Reconstruction  # aligned to the dense one by Sim(3)
    difference: Difference
    dense_reused: bool  # the dense run was handed in, not measured now
    dense_truth: Scores | None  # where the clip has a truth
    reduced_truth: Scores | None
    machine: dict[str, Any]
    dense_consistency: Consistency  # with what the pictures show, by the same matches for both; needs no truth
    reduced_consistency: Consistency

    @property
    def speedup_aggregator(self) -> float:
        """Dense time / reduced time of frame attention, global attention and matching; NaN where nothing ran."""
        return _ratio(self.dense.cost.aggregator_ms, self.reduced.cost.aggregator_ms)

    @property
    def speedup_total(self) -> float:
        """Dense time / reduced time of the whole run, decoding included."""
        return _ratio(self.dense.cost.total_ms, self.reduced.cost.total_ms)

    def to_json(self) -> dict[str, Any]:
        """Plain values with the keys every report of ours has; `rows` holds dense, then reduced."""
        content = {
            "machine": self.machine,
            "rows": [cost_row(self.dense, self.dense), cost_row(self.reduced, self.dense)],
            "difference": self.difference.to_json(),
            "dense_reused": self.dense_reused,
            "consistency": {"dense": self.dense_consistency.to_json(), "reduced": self.reduced_consistency.to_json()},
        }
        if self.dense_truth is not None and self.reduced_truth is not None:
            content["truth"] = {"dense": self.dense_truth.to_json(), "reduced": self.reduced_truth.to_json()}
        return content


def compare(
    frames: Frames | np.ndarray,
    model: Network | str = "mini",
    schedule: Schedule = "auto",
    *,
    baseline: Reconstruction | None = None,
    truth: Truth | None = None,
    resolution: int | None = None,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    progress: Callable[[RunProgress], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> Comparison:
    """Runs a clip densely and reduced under the same conditions, in this process, after a warm-up of both.

    baseline  a dense result of the same frames, model and size, to be reused instead of run again
    truth     of the whole clip or of these frames; both results are then scored against it
    The rest is as in `reconstruct`, which also says what is raised; InputError for a baseline of something else.
    """
    require("A comparison", "scipy")
    network = load_model(model, device, dtype) if isinstance(model, str) else model
    warm_up(frames, network, schedule, resolution)
    runs = {"resolution": resolution, "cancel": cancel}
    if baseline is None:
        dense = reconstruct(frames, network, None, progress=_named("dense", progress), **runs)
    else:
        dense = baseline
    reduced = reconstruct(frames, network, schedule, progress=_named("reduced", progress), **runs)
    if baseline is not None:
        _check_same_conditions(dense, reduced)
    reduced = reduced.transformed(alignment(reduced, dense))
    matches = match_features(dense.images)
    return Comparison(
        dense,
        reduced,
        difference(reduced, dense),
        dense_reused=baseline is not None,
        dense_truth=None if truth is None else evaluate(dense, truth),
        reduced_truth=None if truth is None else evaluate(reduced, truth),
        machine=machine(network.device),
        dense_consistency=consistency(dense, matches),
        reduced_consistency=consistency(reduced, matches),
    )


def warm_up(frames: Frames | np.ndarray, network: Network, schedule: Schedule, resolution: int | None) -> None:
    """Two frames through both paths, so that neither timed run pays for what happens once per process."""
    few = frames.select(slice(0, WARM_UP_FRAMES)) if isinstance(frames, Frames) else frames[:WARM_UP_FRAMES]
    for each in (None, schedule):
        reconstruct(few, network, each, resolution=resolution)


def alignment(source: Reconstruction, target: Reconstruction) -> Similarity:
    """The similarity that brings one result of a clip into the world of another.

    Rotation and place come from the cameras, the scale from depth: both results see the same pixels, while a scale
    fitted to camera centres shrinks wherever the two paths disagree. Frames whose cameras are not finite are left
    out; the identity if none remains.
    """
    finite = np.isfinite(source.world_from_camera).all((1, 2)) & np.isfinite(target.world_from_camera).all((1, 2))
    if not finite.any():
        return Similarity()
    path, target_path = source.world_from_camera[finite], target.world_from_camera[finite]
    return align_cameras(path, target_path, depth_scale(source.depth, target.depth))


def difference(reduced: Reconstruction, dense: Reconstruction) -> Difference:
    """The scores of the reduced result as if the dense one were true."""
    scores = evaluate(reduced, Truth(dense.depth, dense.world_from_camera, dense.intrinsics))
    return Difference(*(getattr(scores, field.name) for field in fields(Difference)))


def cost_row(scene: Reconstruction, dense: Reconstruction) -> dict[str, Any]:
    """One run as one flat object: what ran, how long each stage took, how much faster than dense."""
    schedule = scene.schedule
    return {
        "model": scene.model,
        "policy": schedule.name,
        "query_factor": schedule.query_factor,
        "kv_factor": schedule.kv_factor,
        "frames": len(scene),
        "height": scene.height,
        "width": scene.width,
        "dtype": scene.dtype,
        "device": scene.device,
        "kernel": scene.kernel,
        **{f"{stage}_ms": scene.cost.milliseconds.get(stage, 0.0) for stage in STAGES},
        "aggregator_ms": scene.cost.aggregator_ms,
        "total_ms": scene.cost.total_ms,
        "peak_bytes": scene.cost.peak_bytes,
        "speedup_aggregator": none_if_undefined(_ratio(dense.cost.aggregator_ms, scene.cost.aggregator_ms)),
        "speedup_total": none_if_undefined(_ratio(dense.cost.total_ms, scene.cost.total_ms)),
    }


def _named(
    run: Literal["dense", "reduced"], progress: Callable[[RunProgress], None] | None
) -> Callable[[Progress], None] | None:
    if progress is None:
        return None
    return lambda now: progress(RunProgress(now.stage, now.fraction, now.milliseconds, now.elapsed_ms, run))


def _check_same_conditions(baseline: Reconstruction, reduced: Reconstruction) -> None:
    """A factor between two different things is not a factor."""
    if not baseline.schedule.is_off:
        raise InputError(f"the baseline was reduced ({baseline.schedule}): hand in a dense result")
    for name in ("model", "device", "dtype", "kernel", "height", "width"):
        was, now = getattr(baseline, name), getattr(reduced, name)
        if was != now:
            raise InputError(f"the baseline has {name} {was}, this run {now}: leave it out to measure it again")
    if not np.array_equal(baseline.indices, reduced.indices) or not np.array_equal(baseline.images, reduced.images):
        raise InputError("the baseline shows other frames: leave it out to measure it again")


def _ratio(dense_ms: float, reduced_ms: float) -> float:
    return dense_ms / reduced_ms if reduced_ms > 0 else math.nan
