"""From a schedule to what each global layer does with its tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spark3r.attention import Reduction, dense
from spark3r.reduction.policies import POLICIES
from spark3r.reduction.schedule import ReductionSchedule
from spark3r.tokens import TokenLayout


@dataclass(frozen=True)
class SchedulePlanner:
    """The planner of a schedule: called with the tokens entering each global layer."""

    schedule: ReductionSchedule
    match_dtype: torch.dtype = torch.float32

    def __call__(self, x: Tensor, layout: TokenLayout, layer: int) -> Reduction:  # x: [B, N, C], normalised
        if not self.acts(layer):
            return dense(x, layout, layer)
        return POLICIES[self.schedule.policy].plan(x, layout, layer, self.schedule, self.match_dtype)

    def acts(self, layer: int) -> bool:
        """Whether a layer is reduced at all."""
        return POLICIES[self.schedule.policy].acts(self.schedule.at(layer))

    def context_side(self) -> SchedulePlanner:
        """What this one does with keys/values, without looking for queries that are alike."""
        return replace(self, schedule=self.schedule.with_(query_factor=1))
