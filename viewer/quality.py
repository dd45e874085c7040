"""The quality table: every metric of both runs, what it means, and how it changed."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from spark3r.formatting import NOTHING, degrees, percent
from viewer.runs import KeptRun


@dataclass(frozen=True)
class Metric:
    """One line of the table: where the number is found, and how it is read."""

    field: str
    title: str
    definition: str
    write: Callable[[float], str]
    is_better_low: bool = True


@dataclass(frozen=True)
class Row:
    """A metric of both runs, as text."""

    metric: Metric
    left: str
    right: str
    change: str
    trend: str  # "better", "worse" or "same"


def _pixels(value: float) -> str:
    return f"{value:.2f} px" if math.isfinite(value) else "lost"


SCORES = (
    Metric("abs_rel", "Depth, AbsRel", "Mean of |depth − truth| ÷ truth, after one scale per clip.", percent),
    Metric("delta_1_25", "Depth, δ < 1.25", "Share of pixels within a factor 1.25 of the truth.", percent, False),
    Metric("ate_relative", "Camera path, ATE", "RMS distance of camera centres after Sim(3), ÷ path length.", percent),
    Metric("rotation_deg", "Rotation", "Mean angle between orientations, after aligning them.", degrees),
    Metric(
        "auc_3", "Relative poses, AUC@3°", "Area under the accuracy curve of all pairs of frames, up to 3°. Strict.",
        percent, False,
    ),
    Metric("auc_30", "Relative poses, AUC@30°", "The same up to 30°. Loose.", percent, False),
    Metric("accuracy", "Surface, accuracy", "Mean distance from the cloud to the truth, ÷ scene diagonal.", percent),
    Metric("completeness", "Surface, completeness", "Mean distance from truth to cloud, ÷ scene diagonal.", percent),
)  # fmt: skip
DIFFERENCES = (
    *SCORES[:6],
    Metric("chamfer", "Surface, Chamfer", "Mean distance between both clouds, ÷ scene diagonal.", percent),
)
FITS = (
    Metric("epipolar_px", "Fit to the footage, epipolar", "Median distance of matched features to the line that the "
           "cameras draw for them.", _pixels),
    Metric("below_1px", "Fit, within 1 px", "Share of matches that close to their epipolar line.", percent, False),
    Metric("reprojection_px", "Fit, reprojection", "Median distance of matched features to where depth and cameras "
           "put them.", _pixels),
)  # fmt: skip


def quality_rows(left: KeptRun, right: KeptRun) -> list[Row]:
    """Against the truth where there is one; else the right run against the left, and both against the pictures."""
    if left.truth is not None and right.truth is not None:
        return [_row(metric, left.truth, right.truth) for metric in SCORES]
    rows = []
    if left.is_dense and right.difference is not None:
        rows += [_row(metric, None, right.difference) for metric in DIFFERENCES]
    if left.fit is not None and right.fit is not None:
        rows += [_row(metric, left.fit, right.fit) for metric in FITS]
    return rows


def reference(left: KeptRun, right: KeptRun) -> str:
    """What the table measures against, in words."""
    if left.truth is not None and right.truth is not None:
        return "against the clip's exact truth"
    return "no truth for this clip: the reduced run against the dense one, and both against the footage itself"


def _row(metric: Metric, left: object, right: object) -> Row:
    before, after = (math.nan if one is None else float(getattr(one, metric.field)) for one in (left, right))
    change = after - before
    trend = "same"
    if abs(change) > 1e-9:
        trend = "better" if (change < 0) == metric.is_better_low else "worse"
    known = math.isfinite(change)
    said = ("+" if change > 0 else "−") + metric.write(abs(change)) if known else NOTHING
    if known and said[1:] == metric.write(0.0):
        said, trend = "same", "same"
    return Row(metric, metric.write(before) if before == before else NOTHING, metric.write(after), said, trend)
