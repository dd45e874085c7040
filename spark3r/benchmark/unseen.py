"""Quality on scenes a model never saw: the same camera paths at several lengths, under several schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

import numpy as np
import torch

from spark3r.estimate import network_size
from spark3r.inference import reconstruct
from spark3r.metrics import (
    ConfidenceCurve,
    confidence_curve,
    consistency,
    evaluate,
    match_features,
    trivial_baseline,
    trivial_scores,
)
from spark3r.metrics.confidence import BINS, MEASURES, STEP
from spark3r.metrics.scores import none_if_undefined
from spark3r.metrics.truth import Truth
from spark3r.models.network import Network
from spark3r.reconstruction import USUAL_PERCENTILE
from spark3r.reduction import ReductionSchedule
from spark3r.training.config import VALIDATION_SEED
from spark3r.training.scenes import domain, sequences

# Training draws its scenes below VALIDATION_SEED, and weights are chosen by the first scenes from there on. Scenes from
# here on are used for nothing else.
FIRST_SEED = VALIDATION_SEED + 1_000_000

PATH_FRAMES = 32  # a path is drawn as for a training clip of so many frames, then rendered in any number
BREADTH = 0.8  # as in validation: turns up to 0.8 × 120°
LENGTHS = (32, 120, 300)
SCHEDULES = ("dense", "auto")
BASELINE = "trivial"  # the schedule's place in rows of the trivial baseline: constant depth, standing still

SCORES = (
    *("abs_rel", "delta_1_25", "rotation_deg", "ate_relative", "auc_3", "auc_30"),
    *("accuracy", "completeness", "normal_consistency", "epipolar_px", "reprojection_px"),
)

Schedules = Callable[[int], Mapping[str, ReductionSchedule]]  # by name, for a clip of so many frames


@dataclass(eq=False)
class Study:
    """What was measured so far."""

    rows: list[dict[str, Any]] = field(default_factory=list)  # one per clip, length and schedule; BASELINE among them
    curves: dict[tuple[int, str], ConfidenceCurve] = field(default_factory=dict)  # by length and schedule

    def summary(self) -> list[dict[str, Any]]:
        """A row per length and schedule: how many clips, and mean and median of SCORES over them."""
        groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
        for row in self.rows:
            groups.setdefault((row["frames"], row["schedule"]), []).append(row)
        return [_summed_up(rows) for _, rows in sorted(groups.items(), key=lambda group: group[0][0])]

    def confidence(self) -> list[dict[str, Any]]:
        """A row per length and schedule: MEASURES by percentile, of all pixels, and of what the page shows at first."""
        return [
            {
                "frames": frames,
                "schedule": schedule,
                "percentiles": [STEP * (place + 0.5) for place in range(BINS)],
                **_columns(curve),
                "hidden_percentile": USUAL_PERCENTILE,
                "all": _kept(curve, 0),
                "shown": _kept(curve, USUAL_PERCENTILE),
            }
            for (frames, schedule), curve in sorted(self.curves.items(), key=lambda item: item[0][0])
        ]


def study_unseen(
    network: Network,
    count: int,
    lengths: Sequence[int],
    schedules: Schedules,
    resolution: int | None = None,
    progress: Callable[[str], None] | None = None,
    wild: bool = False,
) -> Study:
    """Scores of `count` unseen clips at every length under every schedule. One clip is in memory at a time."""
    study = Study()
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        plan = domain.plan(seed, PATH_FRAMES, BREADTH, wild=float(wild))
        for frames in lengths:
            about = {"clip": seed, "frames": frames}
            for name, row, curve in _scored(network, plan, about, schedules(frames), resolution, progress):
                study.rows.append(row)
                if curve is not None:
                    so_far = study.curves.get((frames, name), ConfidenceCurve.empty())
                    study.curves[frames, name] = so_far + curve
    return study


def _scored(
    network: Network,
    plan: sequences.ClipPlan,
    about: dict[str, Any],
    schedules: Mapping[str, ReductionSchedule],
    resolution: int | None,
    progress: Callable[[str], None] | None,
) -> Iterator[tuple[str, dict[str, Any], ConfidenceCurve | None]]:
    """Name, row and curve of each schedule on one clip at one length, then those of BASELINE, which has no curve."""

    def tell(what: str) -> None:
        if progress is not None:
            progress(f"clip {about['clip']}, {about['frames']} frames: {what}")

    tell("rendering")
    images, truth = rendered_clip(plan, about["clip"], about["frames"], *_picture_size(network, resolution))
    scene, matches = None, match_features(images)
    for name, schedule in schedules.items():
        tell(name)
        scene = reconstruct(images, network, schedule, resolution=resolution)
        factors = {"query_factor": schedule.query_factor, "kv_factor": schedule.kv_factor}
        kind = {"schedule": name, "policy": schedule.name, **factors}
        scores = {**evaluate(scene, truth).to_json(), **consistency(scene, matches).to_json()}
        yield name, {**about, **kind, **scores}, confidence_curve(scene, truth)
    if scene is not None:
        tell(BASELINE)
        scores = {**trivial_scores(scene, truth).to_json(), **consistency(trivial_baseline(scene), matches).to_json()}
        yield BASELINE, {**about, "schedule": BASELINE, **scores}, None


def rendered_clip(
    plan: sequences.ClipPlan, seed: int, frames: int, height: int, width: int
) -> tuple[np.ndarray, Truth]:
    """A planned clip in so many frames: pictures [S, H, W, 3] uint8 as a video has them, and their truth."""
    clips = sequences.render_clips([plan.resampled(frames)], seed, height, width)
    images = (clips.images[0] * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return images, Truth(*(part[0].numpy() for part in (clips.depth, clips.world_from_camera, clips.intrinsics)))


def _picture_size(network: Network, resolution: int | None) -> tuple[int, int]:
    """(H, W) of 4:3 pictures at the network's own size, so that nothing is resized."""
    longer = resolution or network.config.resize.longer_side
    return network_size(network, 3 * longer, 4 * longer, resolution)


def _summed_up(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    known = {name: [row[name] for row in rows if row[name] is not None] for name in SCORES}
    return {
        "frames": rows[0]["frames"],
        "schedule": rows[0]["schedule"],
        "clips": len(rows),
        "mean": {name: fmean(values) if values else None for name, values in known.items()},
        "median": {name: median(values) if values else None for name, values in known.items()},
    }


def _columns(curve: ConfidenceCurve) -> dict[str, list[float | None]]:
    columns = zip(MEASURES, curve.by_bin().T.tolist(), strict=True)
    return {name: [none_if_undefined(value) for value in values] for name, values in columns}


def _kept(curve: ConfidenceCurve, percentile: float) -> dict[str, float | None]:
    return {name: none_if_undefined(value) for name, value in curve.kept(percentile).items()}
