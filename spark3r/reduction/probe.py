"""Which layers bear hard pruning? The one-time probe of the paper.

All global layers keep every 32nd frame's keys/values; then one layer at a time keeps every 256th only. A layer whose
error grows by more than 5 % is sensitive: the schedule spares it. The probe knows no model: it is given a way to run
one under a schedule and to tell the error of the result, against the truth or against the dense result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spark3r.errors import InputError
from spark3r.reduction.schedule import ReductionSchedule

BASE_FACTOR = 32
RAISED_FACTOR = 256
GROWTH_LIMIT = 1.05


@dataclass(frozen=True)
class ProbedLayer:
    """What pruning one layer harder did."""

    layer: int  # 0-based count of global layers
    error: float  # of the run with this layer raised, in the unit of the error function
    growth: float  # error / error of the run with no layer raised
    sensitive: bool


@dataclass(frozen=True)
class Probe:
    """The layer table of one model on one clip."""

    base_error: float
    layers: tuple[ProbedLayer, ...]

    @property
    def sensitive_layers(self) -> tuple[int, ...]:
        """Numbers of the layers whose error grew beyond the limit."""
        return tuple(layer.layer for layer in self.layers if layer.sensitive)

    def schedule(self, num_frames: int) -> ReductionSchedule:
        """The automatic schedule of a clip of this length with the layers found."""
        return ReductionSchedule.auto(num_frames, self.sensitive_layers)


def raised(layer: int | None, num_layers: int) -> ReductionSchedule:
    """Every layer at the base factor, `layer` (None: none) at the raised one; queries untouched."""
    others = tuple(number for number in range(num_layers) if number != layer)
    return ReductionSchedule(kv_factor=BASE_FACTOR, kv_boost=RAISED_FACTOR // BASE_FACTOR, sensitive_layers=others)


def probe(
    error_of: Callable[[ReductionSchedule], float],
    num_layers: int,
    growth_limit: float = GROWTH_LIMIT,
    progress: Callable[[int, int], None] | None = None,
) -> Probe:
    """Raises one layer after the other and compares the error.

    error_of      runs the model under a schedule and returns a positive error
    num_layers    how many global layers the model has
    growth_limit  a layer whose error grows by more than this factor is sensitive
    progress      called with (runs done, runs in all)

    Raises InputError if the error is zero or not finite at the base factor: a clip on which pruning costs nothing, or
    breaks everything, tells no layer from another.
    """
    base = error_of(raised(None, num_layers))
    if not 0 < base < float("inf"):
        raise InputError(
            f"the error at kv_factor={BASE_FACTOR} is {base:g}, so no growth can be measured: probe a clip of more "
            f"than {BASE_FACTOR} frames in which the camera moves"
        )
    layers = []
    for layer in range(num_layers):
        if progress is not None:
            progress(layer + 1, num_layers + 1)
        error = error_of(raised(layer, num_layers))
        layers.append(ProbedLayer(layer, error, error / base, not error / base <= growth_limit))
    return Probe(base, tuple(layers))
