"""The one attention module of every model, and the seam through which a reduction acts.

In a global layer attention asks a reduction three things, on tokens, before projecting:

    x_q  = reduction.queries(x)    # [B, N, C] → [B, M, C]
    x_kv = reduction.context(x)    # [B, N, C] → [B, K, C]
    y    = reduction.restore(out)  # [B, M, C] → [B, N, C], after the output projection

so what is merged or pruned is never projected. A reduction that attends in several parts answers `attend` too.
`Reduction` itself is the identity: dense attention is the same path.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from spark3r.kernels import attend
from spark3r.kernels.elementwise import Norm, Rotation, heads_first
from spark3r.tokens import TokenLayout

P = TypeVar("P", bound="Placed")


class Placed(Protocol):
    """Something with one entry per token: rotary tables, or grid positions of a foreign model."""

    def rows(self: P, index: Tensor, /) -> P:
        """The entries of some tokens, by their places."""
        ...


class Reduction:
    """What a global layer does to its tokens before attending. This one does nothing: dense attention."""

    arrives = False  # whether the context is on its way still, whatever tokens it is asked of: queries are then
    # projected before it is asked for

    def queries(self, x: Tensor) -> Tensor:
        """The tokens [B, M, C] that ask, of all tokens [B, N, C]."""
        return x

    def context(self, x: Tensor) -> Tensor:
        """The tokens [B, K, C] whose keys and values are looked at, of all tokens [B, N, C]."""
        return x

    def restore(self, out: Tensor) -> Tensor:
        """Answers of the queries [B, M, C] as answers for every token [B, N, C]."""
        return out

    def answers(self) -> Tensor | None:
        """Which row each token receives of the answers [B, M, C], all clips' rows counted through: [B · N] int64.
        Where this is told, `restore` does nothing else, and a network may take the rows as it adds them. None: ask
        `restore`."""
        return None

    def attend(self, kernel: Kernel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention over what became of queries and context; a reduction may have it in several parts."""
        return kernel(q, k, v)

    def query_rotation(self, rotation: P) -> P:
        """The rotary tables of what `queries` returned, of those of all tokens."""
        return rotation

    def context_rotation(self, rotation: P) -> P:
        """The rotary tables of what `context` returned, of those of all tokens."""
        return rotation


Planner = Callable[[Tensor, TokenLayout, int], Reduction]
"""Looks at the tokens [B, N, C] entering global layer number `layer` and says how to reduce them."""

LayerPlanner = Callable[[Tensor], Reduction]
"""A planner of one layer of one clip: the tokens are all it still needs."""

_DENSE = Reduction()


def dense(x: Tensor, layout: TokenLayout, layer: int) -> Reduction:
    """The planner that reduces nothing."""
    return _DENSE


def no_reduction(x: Tensor) -> Reduction:
    """The planner of one layer that reduces nothing."""
    return _DENSE


class Linear(nn.Linear):
    """A linear layer that works in the type of its weights, whatever the type of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class Kernel(nn.Module):
    """Scaled dot-product attention: softmax(q kᵀ · scale) v, for q [B, h, M, D] and k, v [B, h, K, D].

    `length_gain` sharpens the softmax as the context grows past `length_reference` tokens, which keeps a model trained
    on short clips steady on long ones: scale = D^-½ · (1 + length_gain · ln(K / length_reference)), never below D^-½.
    """

    def __init__(self, length_gain: float = 0.0, length_reference: int = 1):
        super().__init__()
        self.length_gain = length_gain
        self.length_reference = length_reference

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scale = self.scale(q.shape[-1], k.shape[2])
        return attend(q, k, v, scale)

    def scale(self, width: int, keys: int) -> float:
        """What scores of heads so wide are multiplied by when a query sees so many keys."""
        growth = max(0.0, math.log(keys / self.length_reference))
        return width**-0.5 * (1.0 + self.length_gain * growth)


class Reduced(NamedTuple):
    """The tokens [B, M, C] that ask and those [B, K, C] that are asked, in one layer."""

    reduction: Reduction
    queries: Tensor
    context: Tensor | None  # None: still to arrive


class Asked(NamedTuple):
    """Queries [B, h, M, D], keys and values [B, h, K, D] of one layer, ready to attend."""

    reduction: Reduction
    q: Tensor
    k: Tensor
    v: Tensor


class Attention(nn.Module):
    """Multi-head attention of tokens that are already normalised; returns the update before layer scale."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        qk_norm: bool = False,
        qk_norm_eps: float = 1e-5,
        kernel: Kernel | None = None,
    ):
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(width // heads, eps=qk_norm_eps) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(width // heads, eps=qk_norm_eps) if qk_norm else nn.Identity()
        self.proj = Linear(width, width)
        self.kernel = kernel or Kernel()

    def forward(
        self,
        x: Tensor,  # [B, N, C]
        rotation: Rotation | None = None,  # of these tokens
        plan: LayerPlanner = no_reduction,
    ) -> Tensor:  # [B, N, C]
        asked = self.asked(self.reduced(x, plan), rotation)
        return asked.reduction.restore(self.answered(asked))

    def reduced(self, x: Tensor, plan: LayerPlanner) -> Reduced:
        """First, what is left of the tokens x; they are no longer needed from here on."""
        reduction = plan(x)
        return Reduced(reduction, reduction.queries(x), None if reduction.arrives else reduction.context(x))

    def asked(self, reduced: Reduced, rotation: Rotation | None) -> Asked:
        """Then what attends to what."""
        reduction = reduced.reduction
        q, k, v = self._project(reduced)
        q_rotation = k_rotation = None
        if rotation is not None:
            q_rotation, k_rotation = reduction.query_rotation(rotation), reduction.context_rotation(rotation)
        q = heads_first(q, _norm_of(self.q_norm), q_rotation, v.dtype)
        k = heads_first(k, _norm_of(self.k_norm), k_rotation, v.dtype)
        return Asked(reduction, q, k, v.transpose(1, 2))

    def answered(self, asked: Asked) -> Tensor:  # [B, M, C], before the reduction restores all tokens
        """And the answers."""
        out = asked.reduction.attend(self.kernel, asked.q, asked.k, asked.v)
        return self.proj(out.transpose(1, 2).flatten(2))

    def _project(self, reduced: Reduced) -> tuple[Tensor, Tensor, Tensor]:
        """q [B, M, h, D] and k, v [B, K, h, D]; one matmul where both sides are the same tokens."""
        reduction, x_q, x_kv = reduced
        if x_q is x_kv:
            q, k, v = self._heads(self.qkv(x_q), 3)
            return q, k, v
        width = x_q.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        (q,) = self._heads(F.linear(x_q.to(weight.dtype), weight[:width], bias[:width]), 1)
        x_kv = reduction.context(x_q) if x_kv is None else x_kv
        k, v = self._heads(F.linear(x_kv.to(weight.dtype), weight[width:], bias[width:]), 2)
        return q, k, v

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:  # [B, N, parts·C] → parts × [B, N, h, D]
        return x.unflatten(-1, (parts, self.heads, -1)).unbind(2)


def _norm_of(module: nn.Module) -> Norm | None:
    return Norm(module.weight, module.bias, module.eps) if isinstance(module, nn.LayerNorm) else None
