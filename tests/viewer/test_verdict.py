"""The verdict: what the page says in words, by the thresholds that it states."""

from types import SimpleNamespace
from typing import Any

import pytest

from spark3r.compare import Factor
from viewer.verdict import verdict

NAN = float("nan")


def run(**scores: float) -> Any:
    """A run with these scores against the truth."""
    return SimpleNamespace(truth=SimpleNamespace(**scores), is_dense=True, difference=None)


def moved(abs_rel: float, ate_relative: float) -> Any:
    """A run of footage without truth, this far from the dense run."""
    difference = SimpleNamespace(abs_rel=abs_rel, ate_relative=ate_relative)
    return SimpleNamespace(truth=None, is_dense=False, difference=difference)


def factor(median: float) -> Factor:
    return Factor(median, median, median, 0.0)


@pytest.mark.parametrize(
    ("delta", "path", "words", "grade"),
    [
        (0.951, 0.060, "depth as good (δ < 1.25 +0.1 points), camera path as good", "good"),
        (0.92, 0.060, "depth slightly worse (δ < 1.25 −3.0 points), camera path as good", "fair"),
        (0.95, 0.180, "depth as good (δ < 1.25 +0.0 points), camera path 3× worse", "bad"),
        (0.85, 0.030, "depth worse (δ < 1.25 −10.0 points), camera path 2.0× better", "bad"),
        (0.97, 0.060, "depth better (δ < 1.25 +2.0 points), camera path as good", "good"),
        (NAN, 0.060, "depth not comparable, camera path as good", "good"),
        (0.95, NAN, "depth as good (δ < 1.25 +0.0 points), camera path not comparable", "good"),
    ],
)
def test_truth_decides_where_there_is_one(delta: float, path: float, words: str, grade: str) -> None:
    found = verdict(run(delta_1_25=0.95, ate_relative=0.06), run(delta_1_25=delta, ate_relative=path), factor(2.8))
    assert found.words == f"2.80× faster; {words}"
    assert found.grade == grade


@pytest.mark.parametrize(
    ("depth", "path", "grade"), [(0.01, 0.005, "good"), (0.03, 0.005, "fair"), (0.01, 0.2, "bad"), (NAN, NAN, "none")]
)
def test_without_truth_the_dense_run_is_the_measure(depth: float, path: float, grade: str) -> None:
    dense: Any = SimpleNamespace(truth=None, is_dense=True, difference=None)
    assert verdict(dense, moved(depth, path), factor(2.0)).grade == grade


@pytest.mark.parametrize(
    ("median", "words", "grade"),
    [(1.0, "As fast as dense", "bad"), (0.5, "2.00× slower", "bad"), (None, "Speed unknown", "good")],
)
def test_reduction_that_does_not_pay_is_said(median: float | None, words: str, grade: str) -> None:
    same = run(delta_1_25=0.95, ate_relative=0.06)
    found = verdict(same, same, None if median is None else factor(median))
    assert found.words.startswith(words)
    assert found.grade == grade
