"""The method on one page: how one global layer reduces its tokens (Spark3R, arXiv 2605.06270).

Queries are one view's own question and suffer from compression: they are merged gently, among neighbouring frames
only, and every member of a merged query receives its answer. Keys/values are the shared description of the scene and
bear hard pruning.

Where the paper leaves a choice open, these are ours; other files refer to them by number:

1. Special tokens (camera, register, cls) are never merged and never pruned, on either side, in any frame: they are few
   and each carries what its frame alone knows.
2. Merge destinations are the patches of frames 0, query_factor, 2 · query_factor, … of each group; kept keys/values
   those of frames 0, kv_factor, 2 · kv_factor, … of the clip. Frame 0 is thus always kept, and so is the frame whose
   camera a model takes as the world, wherever it stands.
3. Matching compares the tokens that enter the layer, after its input norm: nothing need be projected to be compared.
   The plan is deterministic; ties go to the first destination.
4. What is merged or pruned is never projected: averaging commutes with a linear projection, so q/k norm and rotary
   position act on the merged token, at its destination's place. Unmerging follows the output projection.
5. Only true global layers are reduced; frame attention, register-only layers and heads stay whole.
6. A model that reorders its frames inside the trunk (Depth Anything 3) is reduced in that order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spark3r.attention import P, Reduction, dense
from spark3r.reduction.merge import MergePlan, plan_query_merge
from spark3r.reduction.prune import kept_context
from spark3r.reduction.schedule import ReductionSchedule
from spark3r.tokens import TokenLayout


@dataclass(frozen=True)
class SchedulePlanner:
    """The planner of a schedule: called with the tokens entering each global layer."""

    schedule: ReductionSchedule
    match_dtype: torch.dtype = torch.float32

    def __call__(self, x: Tensor, layout: TokenLayout, layer: int) -> Reduction:  # x: [B, N, C], normalised
        level = self.schedule.at(layer)
        if level.query_factor == level.kv_factor == 1:
            return dense(x, layout, layer)
        merged = None
        if level.query_factor > 1:
            merged = plan_query_merge(x, layout, level.query_factor, self.schedule.group_size, self.match_dtype)
        if self.schedule.policy == "uniform" and merged is not None:
            return _MergedBothSides(merged, merged.merge(x))
        kept = kept_context(layout, level.kv_factor, x.device) if level.kv_factor > 1 else None
        return MergedAndPruned(merged, kept)


@dataclass(frozen=True)
class MergedAndPruned(Reduction):
    """Spark3R's asymmetric reduction; None on a side means that side is untouched."""

    merged: MergePlan | None
    kept: Tensor | None  # [K] int64

    def queries(self, x: Tensor) -> Tensor:
        return x if self.merged is None else self.merged.merge(x)

    def context(self, x: Tensor) -> Tensor:
        return x if self.kept is None else x.index_select(1, self.kept)

    def restore(self, out: Tensor) -> Tensor:
        return out if self.merged is None else self.merged.unmerge(out)

    def query_rotation(self, rotation: P) -> P:
        return rotation if self.merged is None else rotation.rows(self.merged.destination)

    def context_rotation(self, rotation: P) -> P:
        return rotation if self.kept is None else rotation.rows(self.kept)


@dataclass(frozen=True)
class _MergedBothSides(Reduction):
    """The uniform policy of earlier accelerators: keys/values are the very tokens that ask; one merge serves both."""

    merged: MergePlan
    tokens: Tensor  # [B, M, C]

    def queries(self, x: Tensor) -> Tensor:
        return self.tokens

    def context(self, x: Tensor) -> Tensor:
        return self.tokens

    def restore(self, out: Tensor) -> Tensor:
        return self.merged.unmerge(out)

    def query_rotation(self, rotation: P) -> P:
        return rotation.rows(self.merged.destination)

    def context_rotation(self, rotation: P) -> P:
        return rotation.rows(self.merged.destination)
