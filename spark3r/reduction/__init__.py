"""Asymmetric token reduction: queries merged gently inside groups of frames, keys/values pruned hard."""

from spark3r.reduction.reduce import SchedulePlanner
from spark3r.reduction.schedule import LayerFactors, ReductionSchedule

__all__ = ["LayerFactors", "ReductionSchedule", "SchedulePlanner"]
