"""How many tokens go through an MLP at once: what stays in a processor's cache is faster, and caches differ."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spark3r.kernels.choice import Times, fastest, measure, memory_of
from spark3r.meta import device_kind

HIDDEN_AT_ONCE = 1 << 26  # elements of the hidden layer that exist at once on a GPU
ROWS = {f"{rows} rows": rows for rows in (512, 1024, 2048)}  # candidates on a CPU; larger ones cost memory


def rows_at_once(
    mlp: Callable[[Tensor], Tensor],
    hidden: int,  # its inner width
    tokens: int,  # that there are
    like: Tensor,  # [1, C], of the type and device that it works on
) -> int:
    """Rows of the parts in which an MLP takes its tokens: the fastest of a few sizes, measured once for a machine.

    On a GPU as many as its memory should bear. Without data to time, the most that it could be.
    """
    if device_kind(like.device) != "cpu":
        return max(1, HIDDEN_AT_ONCE // hidden)
    if like.device.type == "meta":
        return max(ROWS.values())
    if tokens <= min(ROWS.values()):
        return min(ROWS.values())
    question = f"mlp {str(like.dtype).removeprefix('torch.')} {like.shape[-1]} {hidden}"
    return ROWS[fastest(memory_of(like.device).times(question, lambda: times_of(mlp, like)), ROWS)]


def times_of(mlp: Callable[[Tensor], Tensor], like: Tensor) -> Times:
    """Milliseconds that as many tokens take in parts of each size."""
    generator = torch.Generator(like.device).manual_seed(0)  # the caller's random numbers are not used up
    shape = (max(ROWS.values()), like.shape[-1])
    tokens = torch.randn(shape, generator=generator, device=like.device).to(like.dtype)

    def in_parts(rows: int) -> None:
        for part in tokens.split(rows):
            mlp(part)

    return measure({name: lambda rows=rows: in_parts(rows) for name, rows in ROWS.items()})
