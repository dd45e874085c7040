"""What lies between the matrix products, as a few named functions: each passes over memory once where the device can.

Every function has its plain form here, in plain torch. Which form runs:

  CUDA  a Triton kernel of the same name (triton_kernels.py), where Triton is there, as in torch's own builds for Linux
  CPU   the plain form in parts that stay in cache; compiled by torch.compile, where `compiling` asks for it
  else, and with gradients: the plain form

SPARK3R_ELEMENTWISE=plain keeps the plain forms everywhere. The bias of a linear layer rides in its matrix product.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial, wraps
from typing import NamedTuple, ParamSpec, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from spark3r.kernels.choice import Times, fastest, measure, memory_of
from spark3r.meta import device_kind, one_kernel

P = ParamSpec("P")
R = TypeVar("R")

OVERRIDE = "SPARK3R_ELEMENTWISE"  # the environment variable; "plain" is the one value that means something
AT_ONCE = {f"{size}k elements": size << 10 for size in (256, 512, 1024, 2048)}  # of an intermediate result on a CPU
_ROWS_AT_ONCE = 1 << 16  # tokens whose float32 copies exist at once on a GPU

_compiling: ContextVar[bool] = ContextVar("compiling", default=False)


@contextmanager
def compiling(wanted: bool = True) -> Iterator[None]:
    """Within, the functions run compiled by torch.compile on a CPU; that needs a C++ compiler."""
    token = _compiling.set(wanted)
    try:
        yield
    finally:
        _compiling.reset(token)


def cuda_runs_kernels() -> bool:
    """Whether CUDA runs the Triton kernels as things are set."""
    return os.environ.get(OVERRIDE) != "plain"


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _one_pass(again: Callable[..., int] | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Runs the kernel or compiled form of a plain function, where there is one; the first argument tells the device.

    again  bytes that the kernel reads more than once, of what it is given
    """

    def mark(plain: Callable[P, R]) -> Callable[P, R]:
        @wraps(plain)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return _form_of(plain, cast(Tensor, args[0]))(*args, **kwargs)

        return one_kernel(exists=cuda_runs_kernels, again=again)(call)

    return mark


def _chosen_again(x: Tensor, change: Tensor, gamma: Tensor | None, rows: Tensor | None = None, *_: object) -> int:
    """Rows of a change that several tokens receive."""
    return 0 if rows is None else (len(rows) - len(change)) * change.shape[-1] * change.element_size()


def _form_of(plain: Callable[P, R], x: Tensor) -> Callable[P, R]:
    if torch.is_grad_enabled():
        return plain
    if x.device.type == "cuda" and cuda_runs_kernels() and _has_triton():
        from spark3r.kernels import triton_kernels

        return getattr(triton_kernels, plain.__name__)
    return _compiled(plain) if x.device.type == "cpu" and _compiling.get() else plain


@cache
def _compiled(plain: Callable[P, R]) -> Callable[P, R]:
    """For all sizes at once, so that no other length of clip compiles anew."""
    return torch.compile(plain, dynamic=True)


class Norm(NamedTuple):
    """A layer norm over the last dimension."""

    weight: Tensor
    bias: Tensor
    eps: float

    def of(self, x: Tensor) -> Tensor:
        """x [..., C] normalised, in the type of the norm's weights."""
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)


class Rotation(NamedTuple):
    """Rotary position tables, one row per place in a frame, as wide as a head.

    A head has `parts` that are rotated separately; in each, x_j and x_{j + half a part} form a pair.
    """

    cos: Tensor  # [P, D] float32
    sin: Tensor  # the same, negative for the first of each pair
    parts: int
    place: Tensor | None = None  # [N] int64, the row of each token; None: token n stands at n modulo P

    @classmethod
    def by(cls, angle: Tensor) -> Rotation:
        """From the angles [P, parts, D / (2 · parts)] float32 of the pairs."""
        cos, sin = angle.cos(), angle.sin()
        return cls(torch.stack((cos, cos), -2).flatten(1), torch.stack((-sin, sin), -2).flatten(1), angle.shape[1])

    def rows(self, index: Tensor) -> Rotation:
        """Of the tokens with these numbers, [M] int64."""
        return self._replace(place=index % len(self.cos) if self.place is None else self.place[index])

    def some(self, tokens: slice) -> Rotation:
        """Of consecutive tokens of one frame, or of those that `rows` chose: one table row for each."""
        if self.place is None:
            return Rotation(self.cos[tokens], self.sin[tokens], self.parts)
        chosen = self.place[tokens]
        return Rotation(self.cos[chosen], self.sin[chosen], self.parts)

    def tables(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of so many tokens, [N, D] each."""
        if self.place is not None:
            return self.cos[self.place], self.sin[self.place]
        if tokens == len(self.cos):
            return self.cos, self.sin
        frames = tokens // len(self.cos)
        return self.cos.repeat(frames, 1), self.sin.repeat(frames, 1)

    def apply(self, x: Tensor) -> Tensor:  # [B, h, N, D] → the same, rotated in float32
        """Heads turned by their tokens' positions."""
        return turned(x, *self.tables(x.shape[-2]), self.parts)


def turned(x: Tensor, cos: Tensor, sin: Tensor, parts: int) -> Tensor:
    """Rotary positions on the last dimension, in float32; cos and sin broadcast.

    Whole heads at once, beside a copy with the pairs exchanged: on a CPU 2.5× faster than by halves.
    """
    halves = x.chunk(2 * parts, dim=-1)
    exchanged = torch.cat([halves[i ^ 1] for i in range(len(halves))], dim=-1)
    return (x * cos).addcmul_(exchanged, sin)


@_one_pass()
def normed(x: Tensor, weight: Tensor, bias: Tensor, eps: float, *, out: Tensor) -> Tensor:
    """The layer norm of x [..., C], written into `out` [..., C] in its type."""
    return out.copy_(F.layer_norm(x, x.shape[-1:], weight, bias, eps))


@_one_pass(again=_chosen_again)
def add_scaled(x: Tensor, change: Tensor, gamma: Tensor | None, rows: Tensor | None = None) -> Tensor:
    """x [N, C] += gamma · change, in place: a residual with its layer scale (None: 1).

    change  [N, C], or [M, C] and rows [N] int64 says which of them each token receives
    """
    return x.add_(_scaled(change, gamma, rows))


@_one_pass(again=_chosen_again)
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
    """`add_scaled`, and the layer norm of the new x in `dtype`, [N, C] each."""
    x.add_(_scaled(change, gamma, rows))
    return x, F.layer_norm(x, x.shape[-1:], weight, bias, eps).to(dtype)


def _scaled(change: Tensor, gamma: Tensor | None, rows: Tensor | None) -> Tensor:
    change = change if rows is None else change.index_select(0, rows)
    return change if gamma is None else change * gamma


@_one_pass()
def normed_pair(local: Tensor, whole: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The layer norm of two halves [F, n, C] side by side, [F, n, 2C] in the type of `whole`. Rows are contiguous,
    frames may lie apart."""
    return F.layer_norm(torch.cat((local.to(whole.dtype), whole), dim=-1), weight.shape, weight, bias, eps)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GELU of a linear layer, [..., C] → [..., H] in the type of the weight.

    In half types on CUDA cuBLASLt does it as the product leaves its registers, by the tanh form: depth of the oracles
    moves by 6e-5 on average, where their bfloat16 rounding moves it by 2e-3. Else the exact form in a pass of its own.
    """
    x, in_product = x.to(weight.dtype), getattr(torch, "_addmm_activation", None)
    is_half = weight.dtype in (torch.bfloat16, torch.float16)
    if (
        in_product
        and is_half
        and device_kind(x.device) == "cuda"
        and cuda_runs_kernels()
        and not torch.is_grad_enabled()
    ):
        return in_product(bias, x.flatten(0, -2), weight.t(), use_gelu=True).unflatten(0, x.shape[:-1])
    return F.gelu(F.linear(x, weight, bias))


@_one_pass()
def gated(both: Tensor) -> Tensor:
    """silu(a) · b of [a | b] = both, [..., 2H] → [..., H]."""
    a, b = both.chunk(2, dim=-1)
    return F.silu(a) * b


def heads_first(
    x: Tensor,  # [B, N, h, D], any strides but the last
    norm: Norm | None,  # of every head
    rotation: Rotation | None,
    dtype: torch.dtype,
) -> Tensor:  # [B, h, N, D] in `dtype`
    """Queries or keys as attention reads them: normalised and rotated in float32, heads in front of tokens. In memory
    heads come first on a CPU, for matrix products head by head, and tokens first on a GPU, as its kernels' answers then
    do too."""
    if norm is None and rotation is None:
        return x.transpose(1, 2).to(dtype)
    weight, bias, eps = norm or (None, None, 0.0)
    cos, sin, parts, place = rotation or (None, None, 0, None)
    return _heads_first(x, weight, bias, eps, cos, sin, parts, place, dtype)


@_one_pass()
def _heads_first(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    cos: Tensor | None,
    sin: Tensor | None,
    parts: int,
    place: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    norm = None if weight is None or bias is None else Norm(weight, bias, eps)
    rotation = None if cos is None or sin is None else Rotation(cos, sin, parts, place)
    if torch.is_grad_enabled() or device_kind(x.device) != "cpu" or torch.compiler.is_compiling():
        y = x if norm is None else norm.of(x.to(norm.weight.dtype))
        if rotation is not None:
            cosines, sines = rotation.tables(x.shape[1])
            y = turned(y, cosines[:, None], sines[:, None], parts)
        return y.to(dtype).transpose(1, 2)
    return _by_parts(x, norm, rotation, dtype, elements_at_once(x, norm, rotation, dtype))


def _by_parts(x: Tensor, norm: Norm | None, rotation: Rotation | None, dtype: torch.dtype, at_once: int) -> Tensor:
    batch, tokens, heads, width = x.shape
    out = torch.empty(batch, heads, tokens, width, dtype=dtype, device=x.device)
    for some, target, table in _parts_of(x, out.transpose(1, 2), rotation, at_once):
        y = some if norm is None else norm.of(some.to(norm.weight.dtype))
        target.copy_(y if table is None else turned(y, table.cos[:, None], table.sin[:, None], table.parts))
    return out


def _parts_of(
    x: Tensor, out: Tensor, rotation: Rotation | None, at_once: int
) -> Iterator[tuple[Tensor, Tensor, Rotation | None]]:
    """Parts of x and out, [B, N, h, D] both, with the tables of their tokens, of so many elements: some sequences, or
    some tokens of one."""
    tokens = x.shape[1]
    if rotation is not None and rotation.place is None and tokens > len(rotation.cos):  # frame by frame
        for clip, target in zip(x, out, strict=True):
            shape = (-1, len(rotation.cos))
            yield from _parts_of(clip.unflatten(0, shape), target.unflatten(0, shape), rotation, at_once)
        return
    per_token = x.shape[2] * x.shape[3]
    together, tokens_at_once = max(1, at_once // (tokens * per_token)), max(1, at_once // per_token)
    for xs, outs in zip(x.split(together), out.split(together), strict=True):
        for start in range(0, tokens, tokens_at_once):
            some = slice(start, min(start + tokens_at_once, tokens))
            yield xs[:, some], outs[:, some], None if rotation is None else rotation.some(some)


def elements_at_once(x: Tensor, norm: Norm | None, rotation: Rotation | None, dtype: torch.dtype) -> int:
    """Elements of the parts in which heads are normed and rotated on a CPU: their float32 copies are to stay in cache,
    and to give every core enough to do. The fastest of a few sizes, measured once for a machine."""
    if x.device.type == "meta" or x.numel() <= min(AT_ONCE.values()):
        return min(AT_ONCE.values())
    kind = f"{x.shape[-1]}{' normed' if norm else ''}{' rotated' if rotation else ''}"
    question = f"heads {str(x.dtype).removeprefix('torch.')} {kind}"
    times = memory_of(x.device).times(question, lambda: _times_of_parts(x, norm, rotation, dtype))
    return AT_ONCE[fastest(times, AT_ONCE)]


def _times_of_parts(x: Tensor, norm: Norm | None, rotation: Rotation | None, dtype: torch.dtype) -> Times:
    """Milliseconds that heads of the shape of x take, so many that the largest part is one of several."""
    tokens = 4 * max(AT_ONCE.values()) // (x.shape[2] * x.shape[3])
    generator = torch.Generator(x.device).manual_seed(0)
    sample = torch.randn(1, tokens, *x.shape[2:], generator=generator, device=x.device).to(x.dtype)
    if rotation is not None:
        rotation = rotation.rows(torch.arange(tokens, device=x.device) % len(rotation.cos))
    ways = {name: partial(_by_parts, sample, norm, rotation, dtype, size) for name, size in AT_ONCE.items()}
    return measure(ways)


@_one_pass()
def mean_of_members(x: Tensor, members: Tensor, starts: Tensor) -> Tensor:
    """The mean of each row's members, summed in float32 and in their order, [M, C] in the type of x.

    x [N, C]; members [N] int64: tokens, row after row; starts [M + 1] int64: where in them each row's begin
    """
    numbers = torch.arange(len(members), device=x.device)
    owner = torch.searchsorted(starts, numbers, right=True) - 1
    total = x.new_zeros(len(starts) - 1, x.shape[1], dtype=torch.float32)
    for places, tokens in zip(owner.split(_ROWS_AT_ONCE), members.split(_ROWS_AT_ONCE), strict=True):
        total.index_put_((places,), x.index_select(0, tokens).float(), accumulate=True)  # it sorts: the order is fixed
    return total.div_(starts.diff()[:, None]).to(x.dtype)
