"""The functions of elementwise.py as Triton kernels, under the same names and with the same arguments.

One pass over memory each: a program reads its rows once, works in float32 and writes once. Nothing here is specialised
on the length of a clip, so a longer one compiles nothing anew. tests/kernels/test_elementwise.py holds them against
their plain twins under Triton's interpreter, and compiles them for a GPU where none is at hand.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_TOKENS_PER_PROGRAM = 16  # of one head


@triton.jit
def norm_rows(x, weight, bias, out, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """out[row] = layer norm of x[row]."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    value = tl.load(x + row * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(value, 0) / WIDTH
    centred = tl.where(inside, value - mean, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / WIDTH + eps)
    weights = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    biases = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    result = centred * scale * weights + biases
    tl.store(out + row * WIDTH + column, result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def add_rows(
    x, change, gamma, rows, weight, bias, out, eps,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, SCALED: tl.constexpr, CHOSEN: tl.constexpr, NORMED: tl.constexpr,
):  # fmt: skip
    """x[row] += gamma · change[rows[row]]; out[row] = layer norm of the sum."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    source = row
    if CHOSEN:
        source = tl.load(rows + row).to(tl.int64)
    update = tl.load(change + source * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    if SCALED:
        update = update * tl.load(gamma + column, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(x + row * WIDTH + column, mask=inside, other=0.0).to(tl.float32) + update
    tl.store(x + row * WIDTH + column, value.to(x.dtype.element_ty), mask=inside)
    if NORMED:
        mean = tl.sum(value, 0) / WIDTH
        centred = tl.where(inside, value - mean, 0.0)
        scale = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / WIDTH + eps)
        weights = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
        biases = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
        result = centred * scale * weights + biases
        tl.store(out + row * WIDTH + column, result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def norm_pairs(
    local, whole, weight, bias, out, local_stride, whole_stride, tokens, eps,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out[row] = layer norm of [local[row] | whole[row]], rows counted through frames of so many tokens."""
    row = tl.program_id(0).to(tl.int64)
    frame, token = row // tokens, row % tokens
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    left = tl.load(local + frame * local_stride + token * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(whole + frame * whole_stride + token * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    mean = (tl.sum(left, 0) + tl.sum(right, 0)) / (2 * WIDTH)
    left = tl.where(inside, left - mean, 0.0)
    right = tl.where(inside, right - mean, 0.0)
    scale = 1.0 / tl.sqrt((tl.sum(left * left, 0) + tl.sum(right * right, 0)) / (2 * WIDTH) + eps)
    left = left * scale * tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    right = right * scale * tl.load(weight + WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    left += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    right += tl.load(bias + WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    target = out + row * 2 * WIDTH + column
    tl.store(target, left.to(out.dtype.element_ty), mask=inside)
    tl.store(target + WIDTH, right.to(out.dtype.element_ty), mask=inside)


@triton.jit
def gate_rows(both, out, HIDDEN: tl.constexpr, BLOCK: tl.constexpr):
    """out[row] = silu(a) · b of both[row] = [a | b]."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < HIDDEN
    a = tl.load(both + row * 2 * HIDDEN + column, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(both + row * 2 * HIDDEN + HIDDEN + column, mask=inside, other=0.0).to(tl.float32)
    result = a / (1.0 + tl.exp(-a)) * b
    tl.store(out + row * HIDDEN + column, result.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["tokens", "frame"])
def turn_heads(
    x, weight, bias, cos, sin, place, out, clip_stride, token_stride, head_stride, tokens, heads, frame, eps,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr,
    NORMED: tl.constexpr, TURNED: tl.constexpr, CHOSEN: tl.constexpr,
):  # fmt: skip
    """out[clip, token, head] = rotary of the layer norm of x[clip, token, head]. Heads of the same tokens run next to
    each other, so that they find each other's tables in cache."""
    head = tl.program_id(0) % heads
    first = (tl.program_id(0) // heads) * ROWS
    clip = tl.program_id(1).to(tl.int64)
    token = tl.expand_dims((first + tl.arange(0, ROWS)).to(tl.int64), 1)
    column = tl.expand_dims(tl.arange(0, BLOCK), 0)
    pair = tl.where((column // HALF) % 2 == 0, column + HALF, column - HALF)  # half a part away
    inside = (token < tokens) & (column < WIDTH)
    start = x + clip * clip_stride + token * token_stride + head.to(tl.int64) * head_stride
    value = tl.load(start + column, mask=inside, other=0.0).to(tl.float32)
    mean = tl.zeros((ROWS, 1), tl.float32)
    scale = tl.full((ROWS, 1), 1.0, tl.float32)
    if NORMED:
        mean = tl.sum(value, 1, keep_dims=True) / WIDTH
        centred = tl.where(column < WIDTH, value - mean, 0.0)
        scale = 1.0 / tl.sqrt(tl.sum(centred * centred, 1, keep_dims=True) / WIDTH + eps)
        value = centred * scale * tl.load(weight + column, mask=column < WIDTH, other=0.0).to(tl.float32)
        value += tl.load(bias + column, mask=column < WIDTH, other=0.0).to(tl.float32)
    if TURNED:
        paired = tl.load(start + pair, mask=inside, other=0.0).to(tl.float32)  # from cache: just read
        if NORMED:
            paired = (paired - mean) * scale * tl.load(weight + pair, mask=column < WIDTH, other=0.0).to(tl.float32)
            paired += tl.load(bias + pair, mask=column < WIDTH, other=0.0).to(tl.float32)
        row = token % frame
        if CHOSEN:
            row = tl.load(place + token, mask=token < tokens, other=0).to(tl.int64)
        cosines = tl.load(cos + row * WIDTH + column, mask=inside, other=0.0)
        sines = tl.load(sin + row * WIDTH + column, mask=inside, other=0.0)
        value = value * cosines + paired * sines
    target = out + ((clip * tokens + token) * heads + head) * WIDTH + column
    tl.store(target, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def mean_of_rows(
    x, members, starts, out, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """out[row] = mean of x[members[starts[row] : starts[row + 1]]], in that order."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    begin = tl.load(starts + row)
    end = tl.load(starts + row + 1)
    total = tl.zeros((BLOCK,), tl.float32)
    for number in range(begin, end):
        member = tl.load(members + number).to(tl.int64)
        total += tl.load(x + member * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    result = total / (end - begin).to(tl.float32)
    tl.store(out + row * WIDTH + column, result.to(out.dtype.element_ty), mask=inside)


def _launch(kernel: Any, grid: tuple[Any, ...], x: Tensor, *arguments: Any, **layout: Any) -> None:
    """On the device of x, which need not be the current one."""
    with torch.cuda.device_of(x):
        kernel[grid](x, *arguments, **layout)


def normed(x: Tensor, weight: Tensor, bias: Tensor, eps: float, *, out: Tensor) -> Tensor:
    """Layer norm of x [..., C] into `out`, which may have another type."""
    width = x.shape[-1]
    _launch(norm_rows, (x.numel() // width,), x, weight, bias, out, eps, **_row(width))
    return out


def add_scaled(x: Tensor, change: Tensor, gamma: Tensor | None, rows: Tensor | None = None) -> Tensor:
    """x + gamma * change in place; rows: where in x the rows of `change` belong."""
    width = x.shape[-1]
    _launch(
        add_rows, (len(x),), x, change, _or(gamma, x), _or(rows, x), x, x, x, 0.0,
        SCALED=gamma is not None, CHOSEN=rows is not None, NORMED=False, **_row(width),
    )  # fmt: skip
    return x


def add_scaled_normed(
    x: Tensor,
    change: Tensor,
    gamma: Tensor | None,
    rows: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """The sum as `add_scaled`, and the next norm of it, in one pass."""
    width = x.shape[-1]
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    _launch(
        add_rows, (len(x),), x, change, _or(gamma, x), _or(rows, x), weight, bias, out, eps,
        SCALED=gamma is not None, CHOSEN=rows is not None, NORMED=True, **_row(width),
    )  # fmt: skip
    return x, out


def normed_pair(local: Tensor, whole: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The norm of two halves [..., C] side by side, as one of [..., 2C]."""
    frames, tokens, width = whole.shape
    out = whole.new_empty(frames, tokens, 2 * width)
    _launch(
        norm_pairs, (frames * tokens,), local, whole, weight, bias, out, local.stride(0), whole.stride(0), tokens, eps,
        **_row(width),
    )  # fmt: skip
    return out


def gated(both: Tensor) -> Tensor:
    """silu(first half) * second half: [..., 2H] to [..., H]."""
    hidden = both.shape[-1] // 2
    out = both.new_empty(*both.shape[:-1], hidden)
    block = min(1024, triton.next_power_of_2(hidden))
    grid = (out.numel() // hidden, triton.cdiv(hidden, block))
    _launch(gate_rows, grid, both, out, HIDDEN=hidden, BLOCK=block)
    return out


def _heads_first(
    x: Tensor,  # [B, N, h, D]
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    cos: Tensor | None,
    sin: Tensor | None,
    parts: int,
    place: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    batch, tokens, heads, width = x.shape
    out = torch.empty(batch, tokens, heads, width, dtype=dtype, device=x.device)
    rows = _TOKENS_PER_PROGRAM
    _launch(
        turn_heads, (heads * triton.cdiv(tokens, rows), batch), x,
        _or(weight, x), _or(bias, x), _or(cos, x), _or(sin, x), _or(place, x), out,
        x.stride(0), x.stride(1), x.stride(2), tokens, heads, 1 if cos is None else len(cos), eps,
        WIDTH=width, BLOCK=triton.next_power_of_2(width), HALF=width // (2 * parts) if parts else 1, ROWS=rows,
        NORMED=weight is not None, TURNED=cos is not None, CHOSEN=place is not None,
    )  # fmt: skip
    return out.transpose(1, 2)


def mean_of_members(x: Tensor, members: Tensor, starts: Tensor) -> Tensor:
    """Means [rows, C] of the rows of x that each group lists: members[starts[i]:starts[i + 1]]."""
    rows, width = len(starts) - 1, x.shape[-1]
    out = x.new_empty(rows, width)
    _launch(mean_of_rows, (rows,), x, members, starts, out, **_row(width))
    return out


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    """Something to pass where a kernel reads nothing."""
    return other if tensor is None else tensor


def _row(width: int) -> dict[str, Any]:
    """How a kernel that takes whole rows is laid out."""
    return {"WIDTH": width, "BLOCK": triton.next_power_of_2(width)}
