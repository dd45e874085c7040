"""attend(): the one entry to attention, of the networks and the plug-in alike, served by the fastest kernel here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor

from spark3r.errors import InputError
from spark3r.kernels.candidates import SCORES_IN_CACHE, TORCH, Attend, by_torch, candidates, prefer_in_turn
from spark3r.kernels.choice import Times, device_clock, fastest, measure, memory_of
from spark3r.kernels.record import note
from spark3r.meta import device_kind

OVERRIDE = "SPARK3R_KERNEL"  # the environment variable that names the kernel to use, whatever is fastest
_TOO_SMALL = 1 << 22  # multiply–adds below which no choice is worth its measurement
# Of a sample: queries and keys beyond which the time of one pair no longer changes, and multiply–adds that take
# milliseconds (on a CPU, per thread).
_MOST = {"cpu": (1 << 10, 1 << 14), "cuda": (1 << 13, 1 << 15)}
_WORK = {"cpu": 1 << 28, "cuda": 1 << 39}

_HUNGRIEST = "matmuls-8m"

_forced: ContextVar[str | None] = ContextVar("forced_kernel", default=None)


def attend(
    q: Tensor,  # [B, h, M, D]
    k: Tensor,  # [B, h, K, D]
    v: Tensor,  # [B, h, K, D], of the same type and device
    scale: float,
) -> Tensor:  # [B, h, M, D]
    """softmax(q kᵀ · scale) v by the kernel that was measured to be the fastest for such sizes on this device.

    With gradients, and on devices that nothing can be timed on, it is torch's own choice. SPARK3R_KERNEL names
    another, or the beginning of some names ("matmuls"); raises InputError for a name that the device does not have.
    """
    name, kernel = _chosen(q, k, v)
    note(name)
    if q.device.type != "cuda" or kernel is by_torch:
        return kernel(q, k, v, scale)
    try:
        return kernel(q, k, v, scale)
    except RuntimeError as error:  # it ran for the sample, and not for these strides or sizes
        if isinstance(error, torch.cuda.OutOfMemoryError) or name not in ("cudnn", "flash", "efficient"):
            raise
        return prefer_in_turn(name, q, k, v, scale)


@contextmanager
def torch_kernel() -> Iterator[None]:
    """Within, attention is torch's own kernel wherever another would be chosen: to compare the two."""
    token = _forced.set(TORCH)
    try:
        yield
    finally:
        _forced.reset(token)


def forced_kernel() -> str | None:
    """The kernel that is used whatever is fastest (None: the fastest)."""
    return _forced.get() or os.environ.get(OVERRIDE) or None


def _chosen(q: Tensor, k: Tensor, v: Tensor) -> tuple[str, Attend]:
    if q.device.type == "meta" and device_kind(q.device) == "cpu" and q.dtype == torch.bfloat16:
        return _HUNGRIEST, _what_matmuls_hold
    needs_gradients = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    if needs_gradients or q.device.type not in ("cpu", "cuda") or q.ndim != 4:
        return TORCH, by_torch
    wanted = forced_kernel()
    if wanted == TORCH:
        return TORCH, by_torch
    ways = candidates(q.device, q.dtype)
    if wanted:
        ways = _named(wanted, ways)
    elif q.numel() * k.shape[2] < _TOO_SMALL:
        return TORCH, by_torch
    name = next(iter(ways)) if len(ways) == 1 else fastest(times_of(SizeClass.of(q, k)), ways)
    return name, ways[name]


def _what_matmuls_hold(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """On tensors without data, the memory that matrix products in parts need at most, without walking the parts."""
    batch, heads, queries, _ = q.shape
    keys = (k * scale).transpose(-1, -2).contiguous()
    out = v.new_empty(batch, queries, heads, v.shape[-1]).transpose(1, 2)
    scores = q.new_empty(2, min(SCORES_IN_CACHE[_HUNGRIEST], batch * heads * queries * k.shape[2]))  # and their softmax
    del keys, scores
    return out


def _named(wanted: str, ways: dict[str, Attend]) -> dict[str, Attend]:
    chosen = {name: way for name, way in ways.items() if name == wanted or name.startswith(f"{wanted}-")}
    if not chosen:
        raise InputError(f"{OVERRIDE}={wanted}: this device has {', '.join(ways)}")
    return chosen


class SizeClass(NamedTuple):
    """Attentions that are as fast by the same kernel. It is the shape of its sample: powers of two, and no more of
    anything than is needed to see how fast a kernel is."""

    device: torch.device
    dtype: torch.dtype
    batch: int
    heads: int
    queries: int
    keys: int
    width: int

    @classmethod
    def of(cls, q: Tensor, k: Tensor) -> SizeClass:
        """The class of a call of attention with these queries [B, h, M, D] and keys [B, h, K, D]."""
        (batch, heads, _, width), kind = q.shape, q.device.type
        queries, keys = (
            min(most, _power_of_two(n)) for n, most in zip((q.shape[2], k.shape[2]), _MOST[kind], strict=True)
        )
        work = _WORK[kind] * (torch.get_num_threads() if kind == "cpu" else 1)
        sequences = max(1, work // (queries * keys * width))
        heads_of_sample = min(heads, sequences)
        batch = min(_power_of_two(batch), _power_of_two(max(1, sequences // heads)))
        return cls(q.device, q.dtype, batch, heads_of_sample, queries, keys, width)

    def __str__(self) -> str:
        shape = f"{self.batch}x{self.heads} q{self.queries} k{self.keys} d{self.width}"
        return f"attention {str(self.dtype).removeprefix('torch.')} {shape}"

    def sample(self) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values as a network lays them out: heads of one token side by side."""
        generator = torch.Generator(self.device).manual_seed(0)
        shapes = [(self.batch, n, self.heads, self.width) for n in (self.queries, self.keys, self.keys)]
        drawn = (torch.randn(shape, generator=generator, device=self.device).to(self.dtype) for shape in shapes)
        q, k, v = (x.transpose(1, 2) for x in drawn)
        return q, k, v


def _power_of_two(n: int) -> int:
    """The next one that is not smaller."""
    return 1 << (n - 1).bit_length()


def times_of(size: SizeClass) -> Times:
    """Milliseconds of each kernel for a size class, measured here once."""
    return memory_of(size.device).times(str(size), lambda: _measured(size))


def _measured(size: SizeClass) -> Times:
    q, k, v = size.sample()
    scale = size.width**-0.5
    expected = by_torch(q, k, v, scale)
    ways = candidates(size.device, size.dtype)

    def agrees(way: Attend) -> bool:
        """Whether it runs, and gives the same numbers: some kernels are known to be wrong at some sizes."""
        try:
            return torch.allclose(way(q, k, v, scale).float(), expected.float(), rtol=0.05, atol=0.05)
        except (RuntimeError, ValueError, ImportError, TypeError):
            return False

    right = {name: way for name, way in ways.items() if agrees(way)}
    runs = {name: lambda way=way: way(q, k, v, scale) for name, way in right.items()}
    return measure(runs, device_clock(size.device))
