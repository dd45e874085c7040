"""What a policy is: one way in which a global layer reduces its tokens under a schedule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from spark3r.attention import Reduction
from spark3r.tokens import TokenLayout

if TYPE_CHECKING:
    from spark3r.reduction.schedule import ReductionSchedule


class LayerFactors(NamedTuple):
    """How hard one layer compresses each side; 1 leaves it as it is."""

    query_factor: int
    kv_factor: int


class Policy(ABC):
    """One object per policy, without state: everything it needs comes with the call."""

    reads: tuple[str, ...]  # which of the schedule's two factors it uses

    def factors(self, query_factor: int, kv_factor: int) -> LayerFactors:
        """What the two factors of a layer mean here; a factor that is not read is 1."""
        return LayerFactors(
            query_factor if "query_factor" in self.reads else 1, kv_factor if "kv_factor" in self.reads else 1
        )

    def acts(self, factors: LayerFactors) -> bool:
        """Whether a layer with these factors differs from a dense one."""
        return factors != (1, 1)

    @abstractmethod
    def plan(
        self,
        x: Tensor,  # [B, N, C], the tokens entering the layer, normalised
        layout: TokenLayout,
        layer: int,  # 0-based count of global layers
        schedule: ReductionSchedule,
        match_dtype: torch.dtype,  # of similarities, where tokens are matched
    ) -> Reduction:
        """How this layer reduces these tokens; asked only where `acts`."""

    @abstractmethod
    def token_counts(self, layout: TokenLayout, layer: int, schedule: ReductionSchedule) -> tuple[int, int]:
        """(queries, keys/values) that are projected and attend in one layer; may be asked where it does not act."""
