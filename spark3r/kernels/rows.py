"""How many tokens go through an MLP at once: what stays in a processor's cache is faster, and caches differ."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spark3r.kernels.choice import Times, measure, memory_of
from spark3r.meta import device_kind

HIDDEN_AT_ONCE = 1 << 26  # elements of the hidden layer that exist at once on a GPU
HIDDEN_IN_CACHE = {f"{1 << (n - 10)}k": 1 << n for n in range(19, 22)}  # candidates on a CPU; more gains nothing


def rows_at_once(
    mlp: Callable[[Tensor], Tensor],
    hidden: int,  # its inner width
    tokens: int,  # that there are
    like: Tensor,  # [1, C], of the type and device that it works on
) -> int:
    """Rows of the parts in which an MLP takes its tokens: the fastest of a few sizes, measured once for a machine.

    On a GPU, and on tensors without data, as many as its memory should bear; fewer tokens than that are one part.
    """
    if device_kind(like.device) != "cpu":
        return max(1, HIDDEN_AT_ONCE // hidden)
    smallest, largest = (max(1, most(HIDDEN_IN_CACHE.values()) // hidden) for most in (min, max))
    if like.device.type == "meta":
        return largest
    if tokens <= smallest:
        return smallest
    question = f"mlp {str(like.dtype).removeprefix('torch.')} {like.shape[-1]} {hidden}"
    times = memory_of(like.device).times(question, lambda: times_of(mlp, hidden, like))
    return max(1, HIDDEN_IN_CACHE[min(times, key=times.__getitem__)] // hidden)


def times_of(mlp: Callable[[Tensor], Tensor], hidden: int, like: Tensor) -> Times:
    """Milliseconds that as many tokens take in parts of each size."""
    rows = {name: max(1, most // hidden) for name, most in HIDDEN_IN_CACHE.items()}
    tokens = torch.randn(max(rows.values()), like.shape[-1], device=like.device).to(like.dtype)

    def in_parts(size: int) -> None:
        for part in tokens.split(size):
            mlp(part)

    return measure({name: lambda size=size: in_parts(size) for name, size in rows.items()})
