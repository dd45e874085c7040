"""Asymmetric token reduction: queries merged gently inside groups of frames, keys/values pruned hard."""

from spark3r.reduction.reduce import Reducer
from spark3r.reduction.schedule import LayerReduction, ReductionSchedule

__all__ = ["LayerReduction", "ReductionSchedule", "Reducer"]
