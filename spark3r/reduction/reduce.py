"""The method on one page: how one global layer reduces its tokens (Spark3R, arXiv 2605.06270).

Queries are one view's own question and suffer from compression: they are merged gently, among neighbouring frames
only, and every member of a merged query receives its answer. Keys/values are the shared description of the scene and
bear hard pruning.

What the paper leaves open is decided here; other files refer to them by number:

1. Special tokens (camera, register, cls) are never merged and never pruned, on either side, in any frame: they are few
   and each carries what its frame alone knows.
2. Merge destinations are the patches of frames 0, query_factor, 2 · query_factor, … of each group; kept keys/values
   those of frames 0, kv_factor, 2 · kv_factor, … of the clip. Frame 0 is thus always kept, and so is the frame whose
   camera a model takes as the world, wherever it stands.
3. Matching compares the tokens that enter the layer, after its input norm: nothing need be projected to be compared.
   The plan is deterministic. Ties go to the same place in the last destination frame before the source.
4. What is merged or pruned is never projected: averaging commutes with a linear projection, so q/k norm and rotary
   position act on the merged token, at its destination's place. Unmerging follows the output projection.
5. Only true global layers are reduced; frame attention, register-only layers and heads stay whole.
6. A model that reorders its frames inside the trunk (Depth Anything 3) is reduced in that order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spark3r.attention import P, Reduction
from spark3r.reduction.merge import MergePlan, plan_query_merge
from spark3r.reduction.policy import Policy
from spark3r.reduction.prune import kept_context
from spark3r.tokens import TokenLayout

if TYPE_CHECKING:
    from spark3r.reduction.schedule import ReductionSchedule


class Spark3R(Policy):
    """Queries merged gently inside groups of frames, keys/values pruned hard by whole frames."""

    reads = ("query_factor", "kv_factor")

    def plan(
        self, x: Tensor, layout: TokenLayout, layer: int, schedule: ReductionSchedule, match_dtype: torch.dtype
    ) -> Reduction:
        query_factor, kv_factor = schedule.at(layer)
        merged = merged_queries(x, layout, query_factor, schedule.group_size, match_dtype)
        return MergedAndPruned(merged, kept_context(layout, kv_factor, x.device) if kv_factor > 1 else None)

    def token_counts(self, layout: TokenLayout, layer: int, schedule: ReductionSchedule) -> tuple[int, int]:
        query_factor, kv_factor = schedule.at(layer)
        kept = math.ceil(layout.frames / kv_factor) + ((layout.reference or 0) % kv_factor != 0)
        return merged_count(layout, query_factor, schedule.group_size), layout.tokens_keeping_patches_of(kept)


def merged_queries(
    x: Tensor, layout: TokenLayout, query_factor: int, group_size: int, match_dtype: torch.dtype
) -> MergePlan | None:
    """Which queries become one; None at factor 1."""
    return plan_query_merge(x, layout, query_factor, group_size, match_dtype) if query_factor > 1 else None


def merged_count(layout: TokenLayout, query_factor: int, group_size: int) -> int:
    """Queries that remain after merging."""
    full, rest = divmod(layout.frames, group_size)
    frames = full * math.ceil(group_size / query_factor) + math.ceil(rest / query_factor)
    return layout.tokens_keeping_patches_of(frames)


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

    def answers(self) -> Tensor | None:
        return None if self.merged is None else self.merged.rows()

    def query_rotation(self, rotation: P) -> P:
        return rotation if self.merged is None else rotation.rows(self.merged.destination)

    def context_rotation(self, rotation: P) -> P:
        return rotation if self.kept is None else rotation.rows(self.kept)
