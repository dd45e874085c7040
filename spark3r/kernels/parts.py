"""Attention in parts: each part tells the log-sum-exp of its scores, and parts merge into one softmax.

With out_i = softmax(s_i) v_i and lse_i = log Σ exp(s_i), attention over all keys together is Σ w_i out_i with
w_i = exp(lse_i − lse), lse = log Σ exp(lse_i) (Milakov and Gimelshein, arXiv 1805.02867; FlashAttention, arXiv
2205.14135). A weight on a part's mass is added to its lse, so no mask or bias of the size queries × keys ever exists:
those are silently wrong beyond 2³² pairs on some GPUs' kernels.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from spark3r.kernels.record import note
from spark3r.meta import device_kind

_SCORES_AT_ONCE = 1 << 24  # float32 scores of the plain path that exist at once, in elements


def attend_with_lse(
    q: Tensor,  # [B, h, M, D]
    k: Tensor,  # [B, h, K, D]
    v: Tensor,  # [B, h, K, D]
    scale: float,
) -> tuple[Tensor, Tensor]:
    """softmax(q kᵀ · scale) v in the type of v, [B, h, M, D], and log Σ exp(q kᵀ · scale), [B, h, M] float32.

    Torch's fused kernels where they tell the log-sum-exp; with gradients, or where there is no such kernel, plain
    matrix products. At least one key is needed; raises ValueError for none.
    """
    if k.shape[2] == 0:
        raise ValueError("attend_with_lse needs at least one key: leave an empty part out instead")
    needs_gradients = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    fused = None if needs_gradients else _fused(q, k, v, scale)
    note("torch with lse" if fused else "matmuls with lse")
    return fused or _plain(q, k, v, scale)


def _fused(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor] | None:
    """By the fused kernel of the device (None: it has none for these tensors)."""
    operations = torch.ops.aten
    kind, half = device_kind(q.device), q.dtype in (torch.bfloat16, torch.float16)
    if kind == "cpu" and (half or q.dtype == torch.float32):
        out, lse = operations._scaled_dot_product_flash_attention_for_cpu(q, k, v, scale=scale)[:2]
    elif (
        kind == "cuda"
        and half
        and q.shape[-1] % 8 == 0
        and (q.is_meta or torch.cuda.get_device_capability(q.device) >= (8, 0))
    ):
        out, lse = operations._scaled_dot_product_flash_attention(q, k, v, scale=scale)[:2]
    elif kind == "cuda" and q.shape[-1] % 8 == 0:
        out, lse = operations._scaled_dot_product_efficient_attention(q, k, v, None, True, scale=scale)[:2]
    else:
        return None
    return out, lse[..., : q.shape[2]]  # some kernels pad the rows


def _plain(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """By matrix products, scores in float32, some query rows at a time."""
    rows = max(1, _SCORES_AT_ONCE // (q.shape[0] * q.shape[1] * k.shape[2]))
    keys = k.float().transpose(-1, -2)
    outs, lses = [], []
    for part in q.split(rows, dim=2):
        scores = (part.float() * scale) @ keys
        lse = scores.logsumexp(dim=-1)
        outs.append((scores - lse[..., None]).exp().to(v.dtype) @ v)
        lses.append(lse)
    return torch.cat(outs, dim=2), torch.cat(lses, dim=2)


def merge_parts(parts: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """One attention out of attentions of the same queries over disjoint keys.

    parts   (out [..., M, D], lse [..., M] float32) each; shapes may broadcast. A single key is a part as it stands: its
            value, and its score; a key that stands for n others, the same with log n added.
    Returns (out, lse) of all keys together, out in the type of the first part; sums are float32, so one part more or
    less changes the result by rounding only. The result is a part itself: rings and trees of parts may merge as they
    come. Raises ValueError for no part.
    """
    outs, lses = zip(*parts, strict=True) if (parts := list(parts)) else ((), ())
    if not outs:
        raise ValueError("merge_parts needs at least one part")
    together = torch.stack(torch.broadcast_tensors(*lses))  # [parts, ..., M]
    lse = together.logsumexp(dim=0)
    weights = (together - lse).exp()[..., None]
    merged = outs[0].float() * weights[0]
    for out, weight in zip(outs[1:], weights[1:], strict=True):
        merged = merged.addcmul(out.float(), weight)
    return merged.to(outs[0].dtype), lse
