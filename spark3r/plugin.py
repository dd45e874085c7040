"""The plug-in: Spark3R inside the official VGGT, π³, Depth Anything 3 and VGGT-Ω classes, and out again.

    with spark3r.accelerate(model):
        predictions = model(images)

Only the attention of global layers is replaced, on the instance; weights, state_dict keys and everything else of the
model stay as they are. The official packages are never imported: a model is known by its class name and its parts, as
its family's file describes them.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spark3r.attention import Kernel, Reduction
from spark3r.errors import InputError
from spark3r.models.family import Host
from spark3r.models.registry import host_of
from spark3r.reduction import ReductionSchedule, SchedulePlanner
from spark3r.reduction.schedule import WORDS
from spark3r.tokens import TokenLayout


class _Positions(NamedTuple):
    """Grid positions of the tokens, as the official rotary embedding takes them."""

    index: Tensor  # [B, N, 2] int64

    def rows(self, chosen: Tensor) -> _Positions:
        return _Positions(self.index[:, chosen])

    def repeated(self, rows: int) -> Tensor:
        """One row of positions per sequence, where every clip became several."""
        return self.index.repeat_interleave(rows // len(self.index), dim=0)


class Acceleration:
    """A model under reduction. `undo()`, or leaving the `with` block, gives the model back as it was."""

    def __init__(self, host: Host, schedule: ReductionSchedule | str):
        self.family = host.family
        self.schedule = schedule
        self.layout: TokenLayout | None = None  # of the clip seen last
        self._host = host
        self._kernel = Kernel()
        self._under_way: dict[int, TokenLayout] = {}  # by thread, so that calls side by side do not mix
        self._layers = [_GlobalLayer(self, number, module) for number, module in enumerate(host.attentions)]
        self._entry = _Entry(self, host.entry)

    @property
    def num_layers(self) -> int:
        """How many global layers are reduced."""
        return len(self._layers)

    def schedule_for(self, num_frames: int) -> ReductionSchedule:
        """The schedule that a clip of this many frames runs under."""
        if isinstance(self.schedule, ReductionSchedule):
            return self.schedule
        return ReductionSchedule.parse(self.schedule, num_frames, self._host.sensitive_layers)

    def undo(self) -> None:
        """Puts the official attention back. Once is enough; a second call does nothing."""
        replaced = [*self._layers, self._entry]
        for part in replaced:
            part.check_uncovered()
        for part in replaced:
            part.undo()

    def __enter__(self) -> Acceleration:
        return self

    def __exit__(self, *error: object) -> None:
        self.undo()

    def __str__(self) -> str:
        words = self.schedule if isinstance(self.schedule, ReductionSchedule) else f"{self.schedule} by length"
        return f"{self.family}, {self.num_layers} global layers: {words}"

    def run(self, images: Any, call: Callable[[], Any]) -> Any:
        """A call of the whole model on images [B, S, 3, H, W], whose frames and grid the layers then know."""
        if not isinstance(images, Tensor) or images.ndim != 5:
            raise InputError(f"{self.family} was called without images [B, S, 3, H, W], so its grid is unknown")
        _, frames, _, height, width = images.shape
        grid = (height // self._host.patch, width // self._host.patch)
        self.layout = self._under_way[threading.get_ident()] = TokenLayout(frames, self._host.special, grid)
        try:
            return call()
        finally:
            del self._under_way[threading.get_ident()]

    def plan(self, x: Tensor, layer: int) -> Reduction:
        """What layer number `layer` does to its tokens x [B, N, C] under the call under way."""
        layout = self._under_way.get(threading.get_ident())
        if layout is None or x.shape[1] != layout.total:
            raise InputError(
                f"global layer {layer} of {self.family} received {x.shape[1]} tokens outside a call of the whole "
                "model: call the model with its images, or undo() first"
            )
        return SchedulePlanner(self.schedule_for(layout.frames), match_dtype=_working_dtype(x))(x, layout, layer)

    def attend(self, attn: Any, x: Tensor, positions: Tensor | None, reduction: Reduction) -> Tensor:
        """The official attention on reduced tokens, with its own weights, norms and rotary embedding."""
        q, k, v = _project(attn, reduction.queries(x), reduction.context(x))
        q = q if attn.q_norm is None else attn.q_norm(q)
        k = k if attn.k_norm is None else attn.k_norm(k)
        if positions is not None and getattr(attn, "rope", None) is not None:
            places = _Positions(positions)
            q = attn.rope(q, reduction.query_rotation(places).repeated(len(q)))
            k = attn.rope(k, reduction.context_rotation(places).repeated(len(k)))
        out = reduction.attend(self._kernel, q.to(v.dtype), k.to(v.dtype), v)
        return reduction.restore(attn.proj_drop(attn.proj(out.transpose(1, 2).flatten(2))))


class _Forward:
    """Stands in for one module's `forward`, on the instance.

    A copy of the model, by `copy.deepcopy` or `torch.save`, gets the official forward: it is the official model again.
    """

    def __init__(self, owner: Acceleration, module: nn.Module):
        self.owner, self.module = owner, module
        self.before = module.__dict__.get("forward")
        self.signature = inspect.signature(module.forward)
        self.official: Callable[..., Any] = module.forward
        self.active = True
        module.forward = self  # pyright: ignore[reportAttributeAccessIssue]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def check_uncovered(self) -> None:
        if self.active and self.module.__dict__.get("forward") is not self:
            raise InputError("another tool has patched this model since accelerate(): take that back first")

    def undo(self) -> None:
        if not self.active:
            return
        self.active = False
        del self.module.forward
        if self.before is not None:
            self.module.forward = self.before

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.module, "forward")  # read back before the instance has one, it is that of the class


class _Entry(_Forward):
    """The part of the model that is called with the images."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        images = next(iter(self.signature.bind(*args, **kwargs).arguments.values()))
        return self.owner.run(images, lambda: self.official(*args, **kwargs))


class _GlobalLayer(_Forward):
    """The attention module of one global layer."""

    def __init__(self, owner: Acceleration, number: int, module: nn.Module):
        super().__init__(owner, module)
        self.number = number

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        given = self.signature.bind(*args, **kwargs).arguments
        x = given.pop("x")
        reduction = self.owner.plan(x, self.number)
        if type(reduction) is Reduction:  # the identity: what the official code does, bit for bit
            return self.official(*args, **kwargs)
        positions = given.pop("pos", given.pop("xpos", None))
        other = [name for name, value in given.items() if value is not None]
        if other:
            raise InputError(f"{', '.join(other)} cannot be combined with a reduction: leave it out, or undo() first")
        return self.owner.attend(self.module, x, positions, reduction)


def _project(attn: Any, x_q: Tensor, x_kv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q [B, h, M, D] and k, v [B, h, K, D] from the fused layer's own weights, each for its tokens only."""
    weight, bias = attn.qkv.weight, attn.qkv.bias
    if bias is not None and hasattr(attn.qkv, "bias_mask"):  # VGGT-Ω stores which biases count
        bias = bias * attn.qkv.bias_mask.to(bias.dtype)
    width = weight.shape[1]

    def project(x: Tensor, rows: slice, parts: int) -> tuple[Tensor, ...]:
        y = F.linear(x, weight[rows], None if bias is None else bias[rows])
        return y.unflatten(-1, (parts, attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    (q,) = project(x_q, slice(0, width), 1)
    k, v = project(x_kv, slice(width, None), 2)
    return q, k, v


def _working_dtype(x: Tensor) -> torch.dtype:
    """The type matmuls run in here, under autocast or not: asked of one, as its switches differ between torches."""
    return x.new_empty(1, 1).mm(x.new_empty(1, 1)).dtype


def accelerate(model: nn.Module, schedule: ReductionSchedule | str = "auto") -> Acceleration:
    """Reduces the tokens of an official model's global attention, until `undo()` or the end of the `with` block.

    model     VGGT, Pi3, DepthAnything3 (or its DepthAnything3Net) or VGGTOmega, for inference, any device and type
    schedule  a ReductionSchedule, or a word for one ("auto", "4x25", "uniform:4", …; reduction/schedule.py has them
              all), read anew for the number of frames of each call, with the layers that the paper found sensitive.
              `ReductionSchedule.off()` leaves every output bit-equal. Windows are not for the plug-in: cut the clip.

    Clips of any length and size may follow each other; frames and grid are read from each call. Threads may call the
    model side by side. A copy of the model, or what `torch.save` writes of it, is the official model again.

    Raises InputError for a class it does not know, a model that is accelerated already, or one without global layers.
    """
    if not isinstance(schedule, (str, ReductionSchedule)):
        raise InputError(f"schedule={schedule!r}: must be a ReductionSchedule or a word: {WORDS}")
    if isinstance(schedule, str) and Path(schedule).is_file():
        schedule = ReductionSchedule.read(schedule)
    meant = ReductionSchedule.parse(schedule, 1) if isinstance(schedule, str) else schedule
    if meant.window:
        raise InputError("windows are not for the plug-in, which sees one call at a time: call the model for each")
    host = host_of(model)
    if not host.attentions:
        raise InputError(f"this {host.family} has no global attention layers (a single-view model): nothing to reduce")
    if any(isinstance(module.__dict__.get("forward"), _Forward) for module in host.attentions):
        raise InputError(f"this {host.family} is accelerated already: undo() that first, then choose another schedule")
    odd = next((type(m.qkv).__name__ for m in host.attentions if not isinstance(m.qkv, nn.Linear)), None)
    if odd is not None:
        raise InputError(f"its qkv layers are {odd}, not torch.nn.Linear: accelerate before quantising or adapting")
    return Acceleration(host, schedule)
