"""The rival that softens what it drops: AVGGT (arXiv 2512.02541, CVPR 2026; no code was published).

Queries stay whole. Keys/values are kept on a coarse grid of every frame's patches; besides, each query sees its own
key, and one mean key and value stand for all that was dropped. One softmax covers the three parts: attention over the
kept keys tells its log-sum-exp, and the two more scores of each query join it there, so no matrix of the size queries ×
keys exists. The early global layers become frame attention.

Where this departs from the paper or the paper is silent: "early" are the layers before the model's first sensitive one
(none, if its sensitive layers are not known); special tokens and the reference frame are kept whole; a query whose own
key is among the kept ones sees it once. As in the paper every token is projected, for each is a query and a key; that
is the price of the own key and the mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spark3r.attention import Kernel, P, Reduction
from spark3r.kernels import attend_with_lse, merge_parts
from spark3r.reduction.grid import kept_on_grid
from spark3r.reduction.policy import Policy
from spark3r.tokens import TokenLayout

if TYPE_CHECKING:
    from spark3r.reduction.schedule import ReductionSchedule

_ROWS_AT_ONCE = 1 << 16  # queries whose parts are merged in float32 at once


class Anchor(Policy):
    """Queries untouched; keys/values on a grid, their own key for each query, and the mean of the rest."""

    reads = ("kv_factor",)

    def plan(
        self, x: Tensor, layout: TokenLayout, layer: int, schedule: ReductionSchedule, match_dtype: torch.dtype
    ) -> Reduction:
        if is_early(schedule, layer):
            return AmongFrames(layout, layout.framed(x))
        return Anchored(kept_on_grid(layout, schedule.at(layer).kv_factor, False, x.device), layout.total)

    def token_counts(self, layout: TokenLayout, layer: int, schedule: ReductionSchedule) -> tuple[int, int]:
        """Keys that a query sees: those kept, its own and the mean; in early layers those of its frame."""
        factor = schedule.at(layer).kv_factor
        if factor == 1:
            return layout.total, layout.total
        if is_early(schedule, layer):
            return layout.total, layout.per_frame
        kept = len(kept_on_grid(layout, factor, False, torch.device("cpu")))
        return layout.total, min(kept + 2, layout.total)


def is_early(schedule: ReductionSchedule, layer: int) -> bool:
    """Whether a global layer comes before the first sensitive one."""
    return bool(schedule.sensitive_layers) and layer < min(schedule.sensitive_layers)


class AmongFrames(Reduction):
    """A global layer that attends inside each frame only."""

    def __init__(self, layout: TokenLayout, tokens: Tensor):
        self.layout = layout
        self.tokens = tokens  # [B · S, P, C]

    def queries(self, x: Tensor) -> Tensor:
        return self.tokens

    def context(self, x: Tensor) -> Tensor:
        return self.tokens

    def restore(self, out: Tensor) -> Tensor:
        return self.layout.joined(out)

    def query_rotation(self, rotation: P) -> P:
        return rotation.rows(torch.arange(self.layout.per_frame, device=self.tokens.device))

    def context_rotation(self, rotation: P) -> P:
        return self.query_rotation(rotation)


class Anchored(Reduction):
    """Kept keys, each query's own, and the mean of the dropped ones, under one softmax."""

    def __init__(self, kept: Tensor, total: int):
        self.kept = kept  # [K] int64
        self.all_kept, self.all_tokens = len(kept), total  # of the clip; of these tokens, where they are all of it

    def attend(self, kernel: Kernel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # [B, h, N, D]
        if self.all_kept == self.all_tokens:
            return kernel(q, self.kept_of(k), self.kept_of(v))
        scale = kernel.scale(q.shape[-1], self.all_kept + 2)
        kept_k, kept_v = self.kept_of(k), self.kept_of(v)
        mean_k, mean_v = self._mean_of_dropped(k), self._mean_of_dropped(v)
        own = torch.ones(q.shape[2], dtype=torch.bool, device=q.device)
        own[self.kept] = False  # those are seen already
        out = torch.empty_like(q, dtype=v.dtype)
        for start in range(0, q.shape[2], _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            asked = q[:, :, rows]
            mean_score = (asked @ mean_k.mT)[..., 0].float() * scale
            own_score = (asked.float() * k[:, :, rows].float()).sum(-1) * scale
            own_score = own_score.masked_fill(~own[rows], -torch.inf)
            kept = attend_with_lse(asked, kept_k, kept_v, scale)
            out[:, :, rows] = merge_parts((kept, (v[:, :, rows], own_score), (mean_v, mean_score)))[0]
        return out

    def kept_of(self, x: Tensor) -> Tensor:  # [B, h, N, D] → [B, h, K, D]
        """The keys or values that are kept, of the whole clip."""
        return x.index_select(2, self.kept)

    def sum_of_dropped(self, x: Tensor) -> Tensor:  # [B, h, N, D] → [B, h, 1, D] float32
        """The sum of the keys or values that are dropped, of the whole clip."""
        kept = x.index_select(2, self.kept)
        return x.sum(2, keepdim=True, dtype=torch.float32) - kept.sum(2, keepdim=True, dtype=torch.float32)

    def _mean_of_dropped(self, x: Tensor) -> Tensor:  # [B, h, N, D] → [B, h, 1, D]
        return (self.sum_of_dropped(x) / (self.all_tokens - self.all_kept)).to(x.dtype)
