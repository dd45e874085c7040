"""What a run's numbers say, in words and in green, amber or red, by thresholds that the page states."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from spark3r import formatting
from spark3r.compare import Difference, Factor
from spark3r.metrics import Scores
from viewer.runs import KeptRun

Grade = Literal["good", "fair", "bad", "none"]

DEPTH_POINTS = (1.0, 5.0)  # points of δ<1.25 lost: up to here green, up to there amber, red beyond
PATH_RATIO = (1.25, 2.0)  # times the dense run's ATE
PATH_FLOOR = 0.0025  # of the path: errors closer together than this count as equal
DEPTH_MOVED = (0.02, 0.05)  # without truth: mean relative change of depth
PATH_MOVED = (0.01, 0.03)  # without truth: ATE to the dense path, as a share of its length
FASTER = 1.1  # below, reduction does not pay

THRESHOLDS = (
    f"Green: at most {DEPTH_POINTS[0]:g} point of depth pixels within a factor 1.25 lost, and a camera path error at "
    f"most {PATH_RATIO[0]:g} times that of the dense run (or within {100 * PATH_FLOOR:g} % of the path). Amber: up to "
    f"{DEPTH_POINTS[1]:g} points, up to {PATH_RATIO[1]:g} times. Red: beyond, or less than {FASTER:g} times as fast. "
    f"Without truth, against the dense run: depth moved by at most {100 * DEPTH_MOVED[0]:g} %, "
    f"{100 * DEPTH_MOVED[1]:g} %; camera path by at most {100 * PATH_MOVED[0]:g} %, {100 * PATH_MOVED[1]:g} % of its "
    "length."
)


@dataclass(frozen=True)
class Verdict:
    """A sentence and how good it is."""

    words: str
    grade: Grade


def verdict(left: KeptRun, right: KeptRun, factor: Factor | None) -> Verdict:
    """The right run beside the left one: speed, then depth, then the camera path."""
    speed, pays = _speed(factor)
    findings = _findings(left, right)
    grades = [grade for _, grade in findings] + ([] if pays else ["bad"])
    worst: Grade = next((grade for grade in ("bad", "fair", "good") if grade in grades), "none")  # type: ignore[assignment]
    return Verdict("; ".join([speed, ", ".join(words for words, _ in findings)]).strip("; "), worst)


def _speed(factor: Factor | None) -> tuple[str, bool]:
    if factor is None:
        return "Speed unknown", True
    if factor.median >= FASTER:
        return f"{formatting.factor(factor.median)} faster", True
    if factor.median > 1 / FASTER:
        return "As fast as dense: on so few tokens reduction does not pay", False
    return f"{formatting.factor(1 / factor.median)} slower: on so few tokens reduction does not pay", False


def _findings(left: KeptRun, right: KeptRun) -> Sequence[tuple[str, Grade]]:
    if left.truth is not None and right.truth is not None:
        return _depth(left.truth, right.truth), _path(left.truth, right.truth)
    if left.is_dense and right.difference is not None:
        return _moved(right.difference)
    return ()


def _depth(dense: Scores, reduced: Scores) -> tuple[str, Grade]:
    points = 100 * (reduced.delta_1_25 - dense.delta_1_25)
    grade = _grade(-points, DEPTH_POINTS)
    if grade == "none":
        return "depth not comparable", grade
    words = {"good": "depth as good", "fair": "depth slightly worse", "bad": "depth worse"}[grade]
    if points > DEPTH_POINTS[0]:
        words = "depth better"
    return f"{words} (δ < 1.25 {points:+.1f} points)".replace("-", "−"), grade


def _path(dense: Scores, reduced: Scores) -> tuple[str, Grade]:
    before, after = dense.ate_relative, reduced.ate_relative
    if before != before or after != after:  # undefined: a camera that stands still has no path
        return "camera path not comparable", "none"
    ratio = max(after, PATH_FLOOR) / max(before, PATH_FLOOR)
    if abs(after - before) <= PATH_FLOOR or 1 / PATH_RATIO[0] <= ratio <= PATH_RATIO[0]:
        return "camera path as good", "good"
    if ratio < 1:
        return f"camera path {_times(1 / ratio)} better", "good"
    return f"camera path {_times(ratio)} worse", _grade(ratio, PATH_RATIO)


def _moved(moved: Difference) -> Sequence[tuple[str, Grade]]:
    return (
        (f"depth moved {formatting.percent(moved.abs_rel, 1)}", _grade(moved.abs_rel, DEPTH_MOVED)),
        (
            f"camera path {formatting.percent(moved.ate_relative, 1)} of its length",
            _grade(moved.ate_relative, PATH_MOVED),
        ),
    )  # fmt: skip


def _grade(value: float, limits: tuple[float, float]) -> Grade:
    if value != value:  # undefined
        return "none"
    return "good" if value <= limits[0] else "fair" if value <= limits[1] else "bad"


def _times(ratio: float) -> str:
    return f"{ratio:.1f}×" if ratio < 3 else f"{ratio:.0f}×"
