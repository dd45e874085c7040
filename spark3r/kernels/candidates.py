"""Every way to attend that a device may have: softmax(q kᵀ · scale) v, for q [B, h, M, D] and k, v [B, h, K, D].

Which of them serves is not decided here but measured (choice.py). The CPU has torch's fused kernel and plain matrix
products in parts that stay in cache; CUDA has torch's own preference and each of its kernels by itself, FlashAttention
3 and 4 included where their packages are installed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import attention

Attend = Callable[[Tensor, Tensor, Tensor, float], Tensor]

TORCH = "torch"
SCORES_IN_CACHE = {"matmuls-512k": 1 << 19, "matmuls-2m": 1 << 21, "matmuls-8m": 1 << 23}  # scores held at once
_BACKENDS = {"cudnn": "CUDNN_ATTENTION", "flash": "FLASH_ATTENTION", "efficient": "EFFICIENT_ATTENTION"}


def candidates(device: torch.device, dtype: torch.dtype) -> dict[str, Attend]:
    """The ways of a device by name, torch's own first. Some may turn out not to run for a size or type."""
    ways: dict[str, Attend] = {TORCH: by_torch}
    if device.type == "cpu" and dtype in (torch.float32, torch.bfloat16):
        ways |= {name: partial(by_matmuls, scores=scores) for name, scores in SCORES_IN_CACHE.items()}
    if device.type == "cuda":
        known = {name: getattr(attention.SDPBackend, kind, None) for name, kind in _BACKENDS.items()}
        ways |= {name: partial(_by_backend, backend) for name, backend in known.items() if backend is not None}
        if dtype in (torch.bfloat16, torch.float16):
            ways |= {name.lower(): partial(_by_flash, name) for name in _flash_packages()}
    return ways


def by_torch(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Torch's own preference."""
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


def by_matmuls(q: Tensor, k: Tensor, v: Tensor, scale: float, scores: int) -> Tensor:
    """Plain matrix products, in parts of at most so many `scores`, which then stay in cache. Without gradients only."""
    batch, heads, queries, _ = q.shape
    keys = (k * scale).transpose(-1, -2)
    if heads * queries * k.shape[2] > scores:
        keys = keys.contiguous()  # many parts will read them
    out = torch.empty((batch, queries, heads, v.shape[-1]), dtype=v.dtype, device=v.device).transpose(1, 2)
    for items, head, rows in _parts(batch, heads, queries, k.shape[2], scores):
        weights = (q[items, head, rows] @ keys[items, head]).softmax(dim=-1)
        out[items, head, rows] = weights @ v[items, head]
    return out


def _parts(batch: int, heads: int, queries: int, keys: int, scores: int) -> Iterator[tuple[slice, slice, slice]]:
    """Whole clips or frames while several fit; else some query rows of one head: its keys are read again for every
    part, and one head's stay in cache where those of all heads would not."""
    together = scores // (heads * queries * keys)
    if together:
        for item in range(0, batch, together):
            yield slice(item, item + together), slice(None), slice(None)
        return
    rows = max(16, scores // keys)
    for item in range(batch):
        for head in range(heads):
            for row in range(0, queries, rows):
                yield slice(item, item + 1), slice(head, head + 1), slice(row, row + rows)


def _by_backend(backend: attention.SDPBackend, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """One of torch's CUDA kernels and no other: raises RuntimeError where it cannot serve."""
    _restore_flash()
    with attention.sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v, scale=scale)


def prefer_in_turn(name: str, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """What serves in place of CUDA kernel `name` where that refuses a tensor: torch's others, in its own order."""
    kinds = [_BACKENDS[name], *(kind for kind in _BACKENDS.values() if kind != _BACKENDS[name]), "MATH"]
    order = [getattr(attention.SDPBackend, kind) for kind in kinds if hasattr(attention.SDPBackend, kind)]
    with _in_order(order):
        return F.scaled_dot_product_attention(q, k, v, scale=scale)


def _in_order(order: list[attention.SDPBackend]) -> contextlib.AbstractContextManager[object]:
    try:
        return attention.sdpa_kernel(order, set_priority=True)  # pyright: ignore[reportReturnType]
    except TypeError:  # before torch 2.6 there is a set of allowed kernels, without an order
        return attention.sdpa_kernel(order)  # pyright: ignore[reportReturnType]


def _flash_packages() -> list[str]:
    """FlashAttention versions that torch can put in place of its own (torch ≥ 2.11 with their packages)."""
    known = getattr(attention, "list_flash_attention_impls", list)
    return list(known())


def _by_flash(version: str, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """FlashAttention 3 or 4; it stays in torch's place until another kernel is asked for."""
    if attention.current_flash_attention_impl() != version:
        attention.activate_flash_attention_impl(version)
    with attention.sdpa_kernel(attention.SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v, scale=scale)


def _restore_flash() -> None:
    current = getattr(attention, "current_flash_attention_impl", None)
    if current is not None and current() is not None:
        attention.restore_flash_attention_impl()
