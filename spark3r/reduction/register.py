"""The extreme: every global layer attends among special tokens only.

VGGT-Ω has layers in which the frames exchange nothing but their register tokens, and its authors run the network with
all global layers like that: about twenty times faster on long clips, with the accuracy of plain VGGT. What is left of
a clip is then a handful of tokens per frame, at any length.

Where this departs: a network that was not trained so keeps its own layers, in which patches receive no update from
attention but still pass through the MLP (in VGGT-Ω's register layers they bypass the whole block).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spark3r.attention import P, Reduction
from spark3r.errors import InputError
from spark3r.reduction.policy import LayerFactors, Policy
from spark3r.tokens import TokenLayout

if TYPE_CHECKING:
    from spark3r.reduction.schedule import ReductionSchedule


class Register(Policy):
    """Special tokens alone attend; no factor is read."""

    reads = ()

    def acts(self, factors: LayerFactors) -> bool:
        return True

    def plan(
        self, x: Tensor, layout: TokenLayout, layer: int, schedule: ReductionSchedule, match_dtype: torch.dtype
    ) -> Reduction:
        if layout.special == 0:
            raise InputError("this model has no special tokens, which alone attend under 'register': choose another")
        return SpecialsAlone(layout, layout.split(x)[0].flatten(1, 2))

    def token_counts(self, layout: TokenLayout, layer: int, schedule: ReductionSchedule) -> tuple[int, int]:
        return layout.frames * layout.special, layout.frames * layout.special


class SpecialsAlone(Reduction):
    """Patches neither ask nor answer, and receive nothing."""

    def __init__(self, layout: TokenLayout, tokens: Tensor):
        self.layout = layout
        self.tokens = tokens  # [B, S · special, C]

    def queries(self, x: Tensor) -> Tensor:
        return self.tokens

    def context(self, x: Tensor) -> Tensor:
        return self.tokens

    def restore(self, out: Tensor) -> Tensor:
        whole = out.new_zeros(len(out), self.layout.total, out.shape[-1])
        special, _ = self.layout.split(whole)
        special[:] = out.unflatten(1, (self.layout.frames, self.layout.special))
        return whole

    def query_rotation(self, rotation: P) -> P:
        return rotation.rows(self.layout.special_tokens(self.tokens.device).flatten())

    def context_rotation(self, rotation: P) -> P:
        return self.query_rotation(rotation)
