"""Memory held and work done, op by op, by code that runs on tensors without data."""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_aten = torch.ops.aten
_MOVES_NOTHING = frozenset({_aten.empty, _aten.empty_strided, _aten.detach, _aten._unsafe_view, _aten.lift_fresh})
_WRITES_ONLY = frozenset({_aten.copy_, _aten.fill_, _aten.zero_})  # the tensor that is written is not read
_READS_SOME = frozenset({_aten.index_select, _aten.gather, _aten.index})  # of the first tensor as much as comes out
_ADDS_ROWS = frozenset(
    {_aten.index_put_, _aten.scatter_, _aten.scatter_add_, _aten.index_add_}
)  # rows are read, added to, written
_INDEXES = frozenset({_aten.index, _aten.index_put, _aten.index_put_})
_HALF = (torch.bfloat16, torch.float16)


def _flash(q: Tensor, k: Tensor, v: Tensor, *given: Any, **named: Any) -> tuple[Any, ...]:
    count = q.new_empty((), dtype=torch.int64)
    lse = q.new_empty(q.shape[:3], dtype=torch.float32)
    return torch.empty_like(q), lse, None, None, q.shape[2], k.shape[2], count, count.clone(), q.new_empty(0)


def _efficient(
    q: Tensor, k: Tensor, v: Tensor, bias: Any, with_lse: bool, *given: Any, **named: Any
) -> tuple[Any, ...]:
    count = q.new_empty((), dtype=torch.int64)
    rows = q.shape[2] if with_lse else 0
    out = q.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[3]).transpose(1, 2)
    return out, q.new_empty(*q.shape[:2], rows, dtype=torch.float32), count, count.clone()


# What fused attention gives without data, in the shapes of later versions: torch 2.3 has no such kernels.
_ATTENTION = {"_scaled_dot_product_flash_attention": _flash, "_scaled_dot_product_efficient_attention": _efficient}
_added = torch.library.Library("aten", "IMPL")
for _name, _kernel in _ATTENTION.items():
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{_name}", "Meta"):
        _added.impl(_name, _kernel, "Meta")


class Work(NamedTuple):
    """What one op asks of a device."""

    stage: str
    op: str
    unit: str  # which rate it runs at: attention, half, float32, convolution32; link: bytes between card and computer
    bytes: int  # read and written
    flop: int


class Ledger(TorchDispatchMode):
    """Adds up the memory held and the work done by ops on tensors without data.

    Raises RuntimeError where an op joins such a tensor with one on the CPU, which no GPU could do without waiting;
    torch itself refuses `.item()`, `nonzero` and boolean indexing.
    """

    def __init__(self, held: int = 0):
        super().__init__()
        self.work: Counter[Work] = Counter()
        self.peaks: dict[str, int] = {}  # bytes held at most in every phase
        self.stage = self.phase = "start"
        self.held = held
        self.times = 1
        self._inside_kernel = False
        self._pinned: set[int] = set()  # storages in the computer's memory
        self._host: list[Tensor] = []  # they live as long as the count, so that their keys stay theirs
        self._storages: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    @property
    def peak(self) -> int:
        """Bytes held at most."""
        return max(self.peaks.values())

    def enter(self, stage: str, phase: str | None = None) -> None:
        """From here on work and memory belong to this stage."""
        self.stage, self.phase = stage, phase or stage
        self._look()

    @contextmanager
    def repeated(self, times: int) -> Iterator[None]:
        """Work within counts so many times."""
        self.times, before = self.times * times, self.times
        try:
            yield
        finally:
            self.times = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.is_view:
            return func(*args, **kwargs)
        if kwargs.get("pin_memory"):
            return self._pin(func(*args, **{**kwargs, "pin_memory": False}))
        key = (func, _signature(args), _signature(tuple(kwargs.items())))
        op = _KNOWN.get(key)
        if op is None:
            out = func(*args, **kwargs)
            op = _described(func, args, kwargs, out)
            if op is None:  # nothing of it is on the device
                return out
            _KNOWN[key] = op
        else:
            out = op.result(args)
        if not self._inside_kernel:
            for each in _tensors(out):
                self._hold(each)
            self._count(op, args)
        return out

    def _count(self, op: _Op, args: Any) -> None:
        crossing = sum(_size(x) for x in _tensors(args) if self._key(x) in self._pinned) if self._pinned else 0
        if crossing:
            self.work[Work(self.stage, op.name, "link", crossing, 0)] += self.times
        elif op.bytes:
            self.work[Work(self.stage, op.name, op.unit, op.bytes, op.flop)] += self.times

    def _pin(self, tensor: Tensor) -> Tensor:
        """A tensor in pinned memory of the computer: nothing of it is held on the card."""
        self._pinned.add(self._key(tensor))
        self._host.append(tensor)
        return tensor

    def _key(self, tensor: Tensor) -> int:
        return tensor.untyped_storage()._cdata if tensor.is_meta else 0

    def kernel(self, plain: Callable[..., Any], again: Callable[..., int] | None, /, *args: Any, **kwargs: Any) -> Any:
        """A function that is one kernel: one pass over what goes in and what comes out. What it is given as `out` is
        only written; `again` says what it reads more than once."""
        self._inside_kernel = True
        try:
            out = plain(*args, **kwargs)
        finally:
            self._inside_kernel = False
        ins, outs = _tensors((args, {name: x for name, x in kwargs.items() if name != "out"})), _tensors(out)
        for each in outs:
            self._hold(each)
        moved = sum(map(_size, {id(x): x for x in ins}.values())) + sum(map(_size, outs))
        moved += again(*args, **kwargs) if again else 0
        self.work[Work(self.stage, plain.__name__, "float32", moved, 0)] += self.times
        return out

    def _hold(self, tensor: Tensor) -> None:
        if not tensor.is_meta:
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._storages and key not in self._pinned:
            self._storages[key] = storage
            size = storage.nbytes()
            self.held += size
            weakref.finalize(storage, self._release, size)
            self._look()

    def _release(self, size: int) -> None:
        self.held -= size

    def _look(self) -> None:
        self.peaks[self.phase] = max(self.peaks.get(self.phase, 0), self.held)


class _Op(NamedTuple):
    """What an op with arguments of such shapes gives and asks. Torch takes near a millisecond to tell: it is asked
    once."""

    name: str
    unit: str
    bytes: int
    flop: int
    outputs: tuple[Any, ...] | None  # each a _Like, or what it is if no tensor; None: the first argument itself
    is_single: bool

    def result(self, args: Any) -> Any:
        if self.outputs is None:
            return args[0]
        made = tuple(each.made() if isinstance(each, _Like) else each for each in self.outputs)
        return made[0] if self.is_single else made


class _Like(NamedTuple):
    """A tensor without data."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    def made(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")


_KNOWN: dict[Hashable, _Op] = {}


def _signature(value: Any) -> Hashable:
    """What an op's result depends on besides data."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device.type
    if isinstance(value, list | tuple):
        return tuple(map(_signature, value))
    return value


def _described(func: Any, args: Any, kwargs: Any, out: Any) -> _Op | None:
    """Raises RuntimeError for what a GPU could not do without waiting for the CPU or the CPU for it."""
    outs, ins = _tensors(out), _tensors((args, kwargs))
    if not any(x.is_meta for x in (*outs, *ins)):
        return None
    packet = func._overloadpacket
    copies = packet in (_aten.copy_, _aten._to_copy)
    if not copies and any(x.device.type == "cpu" and x.ndim for x in ins):
        raise RuntimeError(f"{func} joins a tensor on the CPU with one on the device")
    if packet in _INDEXES and any(x.dtype == torch.bool for x in _tensors(args[1])):
        raise RuntimeError(f"{func} by a mask: how many it keeps, only the device knows")
    unit, flop = _arithmetic(packet, args, kwargs, ins, out)
    moved = 0 if packet in _MOVES_NOTHING else _moved(packet, ins, outs)
    in_place = bool(args) and out is args[0]
    is_single = not isinstance(out, list | tuple)
    described = None if in_place else tuple(map(_like, (out,) if is_single else out))
    return _Op(str(packet).removeprefix("aten."), unit, moved, flop, described, is_single)


def _like(value: Any) -> Any:
    return _Like(value.shape, value.stride(), value.dtype) if isinstance(value, Tensor) and value.is_meta else value


def _tensors(tree: Any) -> list[Tensor]:
    return [tree] if isinstance(tree, Tensor) else [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


def _size(tensor: Tensor) -> int:
    """Bytes that reading a tensor moves; what is broadcast is read once."""
    count = math.prod(n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return count * tensor.element_size()


def _moved(packet: Any, ins: list[Tensor], outs: list[Tensor]) -> int:
    written = sum(map(_size, outs))
    if packet in _READS_SOME:
        return 2 * written + sum(map(_size, ins[1:]))
    if packet in _ADDS_ROWS:
        return 2 * _size(ins[-1]) + sum(map(_size, ins[1:]))
    return written + sum(map(_size, ins[1:] if packet in _WRITES_ONLY else ins))


def _arithmetic(packet: Any, args: Any, kwargs: Any, ins: list[Tensor], out: Any) -> tuple[str, int]:
    """The unit that an op runs on and its floating-point operations (0 for all but products)."""
    if packet is _aten._addmm_activation:  # a linear layer with its GELU
        flop = flop_registry[_aten.addmm](*args[:3], out_val=out, out=out)
    elif packet in flop_registry:
        flop = flop_registry[packet](*args, **kwargs, out_val=out, out=out)  # torch 2.3 knows it as `out`
    else:
        return "float32", 0
    if "attention" in str(packet) and ins[0].dtype in _HALF:
        return "attention", flop
    if ins[0].dtype in _HALF:
        return "half", flop
    return ("convolution32" if packet is _aten.convolution else "float32"), flop


class FusedAttention(TorchFunctionMode):
    """Attention as the fused kernel that a GPU runs; without data torch would fall back to plain products."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention or not args[0].is_meta:
            return func(*args, **(kwargs or {}))
        q, k, v = args[:3]
        scale = (kwargs or {}).get("scale")
        if q.dtype in _HALF:
            return _aten._scaled_dot_product_flash_attention(q, k, v, scale=scale)[0]
        return _aten._scaled_dot_product_efficient_attention(q, k, v, None, False, scale=scale)[0]
