"""A run on tensors without data: the real code of networks and reductions, op by op, with its memory and its work.

What happens many times alike (chunks of frames, blocks of one kind) is run once and counted so many times; memory is
looked at where most of it is held, at the last block of each kind.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from spark3r.attention import Planner, Reduction
from spark3r.measure import STAGE_OF_SCOPE
from spark3r.meta import standing_for, watching_kernels
from spark3r.models.checkpoints import skeleton
from spark3r.models.config import ModelConfig, VitConfig
from spark3r.models.cost import FRAMES_AT_ONCE, head_frames
from spark3r.models.network import Network, Taps
from spark3r.reduction import ReductionSchedule, SchedulePlanner
from spark3r.tokens import TokenLayout

_aten = torch.ops.aten
_MOVES_NOTHING = frozenset({_aten.empty, _aten.empty_strided, _aten.detach, _aten._unsafe_view, _aten.lift_fresh})
_WRITES_ONLY = frozenset({_aten.copy_, _aten.fill_, _aten.zero_})  # the tensor that is written is not read
_READS_SOME = frozenset({_aten.index_select, _aten.gather, _aten.index})  # of the first tensor as much as comes out
_HALF = (torch.bfloat16, torch.float16)


class Work(NamedTuple):
    """What one op asks of a device."""

    stage: str
    op: str
    unit: str  # which rate its arithmetic runs at: attention, half, float32, convolution32
    bytes: int  # read and written
    flop: int


class Ledger(TorchDispatchMode):
    """Adds up the memory held and the work done by ops on tensors without data.

    Raises RuntimeError where an op joins such a tensor with one on the CPU, which no GPU could do without waiting; torch
    itself refuses `.item()`, `nonzero` and boolean indexing.
    """

    def __init__(self, held: int = 0):
        super().__init__()
        self.work: Counter[Work] = Counter()
        self.peaks: dict[str, int] = {}  # bytes held at most in every phase
        self.stage = self.phase = "start"
        self.held = held
        self.times = 1
        self._inside_kernel = False
        self._storages: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    @property
    def peak(self) -> int:
        """Bytes held at most."""
        return max(self.peaks.values())

    def enter(self, stage: str, phase: str | None = None) -> None:
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
            if op.bytes:
                self.work[Work(self.stage, op.name, op.unit, op.bytes, op.flop)] += self.times
        return out

    def kernel(self, plain: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """A function that is one kernel: one pass over what goes in and what comes out."""
        self._inside_kernel = True
        try:
            out = plain(*args, **kwargs)
        finally:
            self._inside_kernel = False
        ins, outs = _tensors((args, kwargs)), _tensors(out)
        for each in outs:
            self._hold(each)
        moved = sum(map(_size, {id(x): x for x in ins}.values())) + sum(map(_size, outs))
        self.work[Work(self.stage, plain.__name__, "float32", moved, 0)] += self.times
        return out

    def _hold(self, tensor: Tensor) -> None:
        if not tensor.is_meta:
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._storages:
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
    """What an op with arguments of this shape gives and asks. Torch takes near a millisecond to tell; it is asked once."""

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
    if packet in (_aten.index, _aten.index_put_, _aten.index_put) and any(x.dtype == torch.bool for x in ins[1:]):
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
    return written + sum(map(_size, ins[1:] if packet in _WRITES_ONLY else ins))


def _arithmetic(packet: Any, args: Any, kwargs: Any, ins: list[Tensor], out: Any) -> tuple[str, int]:
    """The unit that an op runs on and its floating-point operations (0 for all but products)."""
    if packet not in flop_registry:
        return "float32", 0
    flop = flop_registry[packet](*args, **kwargs, out_val=out)
    if "attention" in str(packet) and ins[0].dtype in _HALF:
        return "attention", flop
    if ins[0].dtype in _HALF:
        return "half", flop
    return ("convolution32" if packet is _aten.convolution else "float32"), flop


class _FusedAttention(TorchFunctionMode):
    """Attention as the fused kernel that a GPU runs; without data torch would fall back to plain products."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention or not args[0].is_meta:
            return func(*args, **(kwargs or {}))
        q, k, v = args[:3]
        scale = (kwargs or {}).get("scale")
        if q.dtype in _HALF:
            return _aten._scaled_dot_product_flash_attention(q, k, v, scale=scale)[0]
        return _aten._scaled_dot_product_efficient_attention(q, k, v, None, False, scale=scale)[0]


@dataclass(frozen=True)
class Case:
    """What is run: a model of this config and type, on a device of this kind, over a clip of so many frames."""

    config: ModelConfig
    dtype: torch.dtype
    device: str  # "cuda" or "cpu"
    frames: int
    height: int  # of the network's input
    width: int
    schedule: ReductionSchedule
    offload: bool = False


def dry_run(case: Case) -> Ledger:
    """Encoder, trunk, camera head and dense head over a clip, counted; takes about a second for the largest models."""
    network = _skeleton(case.config, case.dtype)
    ledger = Ledger(sum(x.numel() * x.element_size() for x in network.state_dict().values()))
    with standing_for(case.device), watching_kernels(ledger.kernel), torch.no_grad(), _FusedAttention(), ledger:
        layout = network.trunk.layout(case.frames, network.grid(case.height, case.width))
        tokens, skip = _encode(network, layout, case, ledger)
        taps = _aggregate(network, tokens, layout, case, ledger)
        del tokens
        _heads(network, taps, skip, case, ledger)
    return ledger


_SHORT = 40  # frames: two whole groups, and more than any chunk, so that memory grows evenly from here on


def peak_bytes(case: Case) -> int:
    """Bytes held at most: of a long clip scaled from two short ones, phase by phase, at most a few percent too many."""
    if case.frames <= 2 * _SHORT:
        return _peak(case)
    schedule = case.schedule.with_(kv_factor=min(case.schedule.kv_factor, _SHORT // 2), kv_boost=1)
    short, longer = (_peaks(replace(case, frames=n * _SHORT, schedule=schedule)) for n in (1, 2))
    return max(at + (at - short[phase]) * (case.frames - 2 * _SHORT) // _SHORT for phase, at in longer.items())


def _peak(case: Case) -> int:
    return max(_peaks(case).values())


@lru_cache(maxsize=256)
def _peaks(case: Case) -> dict[str, int]:
    return dry_run(case).peaks


@lru_cache(maxsize=16)
def _skeleton(config: ModelConfig, dtype: torch.dtype) -> Network:
    return skeleton(config).set_dtype(dtype).requires_grad_(False)


def _chunks(frames: int, at_once: int) -> Iterator[tuple[int, int]]:
    """(frames of a chunk, how many such chunks there are)."""
    full, rest = divmod(frames, at_once)
    if full:
        yield at_once, full
    if rest:
        yield rest, 1


def _encode(network: Network, layout: TokenLayout, case: Case, ledger: Ledger) -> tuple[Tensor, Tensor | None]:
    ledger.enter("encoder")
    tokens, skip = network.trunk.empty_tokens(layout), None
    blocks = getattr(network.encoder, "blocks", ())
    with _each_kind_once(blocks, list(getattr(case.config.encoder, "blocks", ())), ledger):
        for frames, times in _chunks(layout.frames, FRAMES_AT_ONCE):
            with ledger.repeated(times):
                images = torch.empty(frames, 3, case.height, case.width, device="meta")
                encoded = network.encode(images)
                tokens[:frames, -encoded.patches.shape[1] :] = encoded.patches
                if encoded.skip is not None:
                    skip = encoded.skip
    if skip is None:
        return tokens, None
    return tokens, torch.cat([skip.new_empty(layout.frames, *skip.shape[1:])])  # of all chunks


def _aggregate(network: Network, tokens: Tensor, layout: TokenLayout, case: Case, ledger: Ledger) -> Taps:
    plan = SchedulePlanner(case.schedule, match_dtype=network.dtype)

    def matching(x: Tensor, layout: TokenLayout, layer: int) -> Reduction:
        stage, phase = ledger.stage, ledger.phase
        ledger.enter("matching", f"matching {layer}")
        reduction = plan(x, layout, layer)
        ledger.enter(stage, phase)
        return reduction

    ledger.enter("heads", "trunk")  # what lies between blocks: heads read the tapped layers
    with _each_kind_once(network.trunk.blocks, _kinds(case), ledger, [b.scope for b in case.config.blocks]):
        return network.aggregate(tokens, layout, matching, case.offload)


def _kinds(case: Case) -> list[Hashable]:
    """Blocks of one kind do the same work and hold the same memory, apart from the tapped layers held beside them."""
    kinds: list[Hashable] = []
    layer, spans = 0, _tapped_spans(case.config)
    for index, block in enumerate(case.config.blocks):
        level = case.schedule.at(layer) if block.scope == "global" else None
        layer += block.scope == "global"
        kinds.append((block, level, spans[index]))
    return kinds


def _tapped_spans(config: ModelConfig) -> list[bool]:
    """For every block whether the frame output before it is held, for a layer tapped before the next frame block."""
    held, spans = False, []
    for index in reversed(range(len(config.blocks))):
        held = held or index in config.taps
        is_frame = config.blocks[index].scope == "frame"
        spans.append(held and not is_frame)
        held = held and not is_frame
    return spans[::-1]


@contextmanager
def _each_kind_once(
    blocks: nn.ModuleList, kinds: list[Hashable], ledger: Ledger, scopes: list[str] | None = None
) -> Iterator[None]:
    """Of the blocks of one kind only the last runs, and counts for all. `scopes` name the stages."""
    counts, last = Counter(kinds), {kind: index for index, kind in enumerate(kinds)}

    def enter(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            ledger.times *= counts[kinds[index]]
            if scopes is not None:
                stage = STAGE_OF_SCOPE[scopes[index]]
                ledger.enter(stage, f"{stage} {index}")

        return hook

    def leave(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            ledger.times //= counts[kinds[index]]
            if scopes is not None:
                ledger.enter("heads", "trunk")

        return hook

    with ExitStack() as stack:
        for index, block in enumerate(blocks):
            if last[kinds[index]] == index:
                stack.callback(block.register_forward_pre_hook(enter(index)).remove)
                stack.callback(block.register_forward_hook(leave(index)).remove)
                stack.callback(block.attn.register_forward_hook(lambda *_: ledger.enter(ledger.stage, "feed-forward")).remove)
            else:
                block.forward = lambda x, *args, **kwargs: x
                stack.callback(delattr, block, "forward")
        yield


def _heads(network: Network, taps: Taps, skip: Tensor | None, case: Case, ledger: Ledger) -> None:
    ledger.enter("heads")
    cameras = network.cameras(taps, case.height, case.width)
    for frames, times in _chunks(case.frames, head_frames(case.height * case.width)):
        with ledger.repeated(times):
            chosen = slice(0, frames)
            network.dense(taps, None if skip is None else skip[chosen], chosen, case.height, case.width)
    del cameras
