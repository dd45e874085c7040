"""The scores of a measured run, each as a piece of work of its own: no run that is to be measured waits for them."""

from collections.abc import Callable, Iterator
from typing import Any

from spark3r.compare import difference, matches_of
from spark3r.metrics import consistency, evaluate
from viewer.runs import KeptRun


def missing_scores(run: KeptRun) -> Iterator[Callable[[], dict[str, Any]]]:
    """What finds the scores that a run has not yet, as {field of the run: score}; each takes about a second.

    How well a run fits its own pictures is asked only where there is no truth to hold it against.
    """
    scene, baseline = run.scene, run.baseline
    if scene is None:
        return
    if not run.is_dense and run.difference is None:
        yield lambda: {"difference": difference(scene, baseline.scene)}
    if baseline.has_truth and run.truth is None:
        yield lambda: {"truth": baseline.truth and evaluate(scene, baseline.truth)}
    if not baseline.has_truth and run.fit is None:
        yield lambda: {"fit": consistency(scene, matches_of(baseline.scene))}
