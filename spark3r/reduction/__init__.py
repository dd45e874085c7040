"""Asymmetric token reduction: queries merged gently in groups of frames, keys/values pruned hard; and its rivals."""

from spark3r.reduction.planner import SchedulePlanner
from spark3r.reduction.policy import LayerFactors
from spark3r.reduction.schedule import ReductionSchedule

__all__ = ["LayerFactors", "ReductionSchedule", "SchedulePlanner"]
