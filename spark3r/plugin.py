"""The plug-in: Spark3R inside the official VGGT, π³, Depth Anything 3 and VGGT-Ω classes, and out again.

    with spark3r.accelerate(model):
        predictions = model(images)

Only the attention of global layers is replaced, on the instance; weights, state_dict keys and everything else of the
model stay as they are. The official packages are never imported: a model is known by its class name and its parts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from types import MethodType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spark3r.attention import Kernel, Reduction
from spark3r.errors import InputError
from spark3r.models.registry import ENTRIES
from spark3r.reduction import ReductionSchedule, SchedulePlanner
from spark3r.reduction.schedule import WORDS
from spark3r.tokens import TokenLayout

_MARK = "_spark3r"


@dataclass(frozen=True)
class _Host:
    """Where an official model keeps what the method needs."""

    family: str
    entry: nn.Module  # the part whose call receives the clip, [B, S, 3, H, W]
    attentions: tuple[nn.Module, ...]  # of the global layers, in order
    special: int  # tokens in front of every frame's patches
    patch: int  # pixels
    sensitive_layers: tuple[int, ...] | None  # as the paper found them; None: not known, treat all so


def _vggt(model: nn.Module) -> _Host:
    aggregator, blocks = _part(model, "aggregator"), _part(model, "aggregator.global_blocks")
    return _Host(
        family="VGGT",
        entry=aggregator,
        attentions=tuple(block.attn for block in blocks),
        special=aggregator.patch_start_idx,
        patch=aggregator.patch_size,
        sensitive_layers=ENTRIES["vggt"].config.sensitive_layers,
    )


def _pi3(model: nn.Module) -> _Host:
    blocks = list(_part(model, "decoder"))[1::2]  # the even ones see one frame each
    return _Host(
        family="π³",
        entry=model,
        attentions=tuple(block.attn for block in blocks),
        special=_part(model, "patch_start_idx"),
        patch=_part(model, "patch_size"),
        sensitive_layers=ENTRIES["pi3"].config.sensitive_layers,
    )


def _da3(model: nn.Module) -> _Host:
    """The trunk reorders frames so that the reference comes first; from there on it is frame 0 for us too."""
    trunk, giant = _part(model, "backbone.pretrained"), ENTRIES["da3-giant"].config
    blocks = [block for index, block in enumerate(trunk.blocks) if 0 <= trunk.alt_start <= index and index % 2 == 1]
    probed = len(blocks) == len(giant.global_blocks)  # by the paper, the giant only
    return _Host(
        family="Depth Anything 3",
        entry=_part(model, "backbone"),
        attentions=tuple(block.attn for block in blocks),
        special=1 + trunk.num_register_tokens,
        patch=trunk.patch_size,
        sensitive_layers=giant.sensitive_layers if probed else None,
    )


def _vggt_omega(model: nn.Module) -> _Host:
    """Register-only layers see no patches and stay as they are."""
    aggregator, kinds = _part(model, "aggregator"), _part(model, "aggregator.inter_frame_attention_types")
    blocks = zip(_part(model, "aggregator.inter_frame_blocks"), kinds, strict=True)
    return _Host(
        family="VGGT-Ω",
        entry=aggregator,
        attentions=tuple(block.attn for block, kind in blocks if kind == "global"),
        special=aggregator.patch_token_start,
        patch=aggregator.patch_size,
        sensitive_layers=ENTRIES["vggt-omega"].config.sensitive_layers,
    )


_HOSTS: dict[str, Callable[[nn.Module], _Host]] = {
    "VGGT": _vggt,
    "Pi3": _pi3,
    "DepthAnything3": lambda model: _host(_part(model, "model")),
    "NestedDepthAnything3Net": lambda model: _host(_part(model, "da3")),
    "DepthAnything3Net": _da3,
    "VGGTOmega": _vggt_omega,
}
_SUPPORTED = "VGGT, Pi3, DepthAnything3 (or its DepthAnything3Net) and VGGTOmega"


def _host(model: nn.Module) -> _Host:
    """Knows a model by the name of its class or of one it derives from."""
    names = [kind.__name__ for kind in type(model).__mro__]
    find = next((_HOSTS[name] for name in names if name in _HOSTS), None)
    if find is None:
        raise InputError(
            f"accelerate() knows the official classes {_SUPPORTED}, not {names[0]}: pass the model itself, without a "
            "wrapper around it (a network from spark3r.load_model takes its schedule in spark3r.reconstruct)"
        )
    return find(model)


def _part(model: nn.Module, path: str) -> Any:
    try:
        return attrgetter(path)(model)
    except AttributeError as error:
        raise InputError(
            f"this {type(model).__name__} has no {path}, which the official class has: use the official code "
            f"of {_SUPPORTED}"
        ) from error


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

    def __init__(self, host: _Host, schedule: ReductionSchedule | str):
        self.family = host.family
        self.schedule = schedule
        self.layout: TokenLayout | None = None  # of the clip in the model, told by its own input
        self._host = host
        self._kernel = Kernel()
        self._layers = [_GlobalLayer(self, number, module) for number, module in enumerate(host.attentions)]
        self._watch = host.entry.register_forward_pre_hook(self._see_clip, with_kwargs=True)

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
        for layer in self._layers:
            layer.check_uncovered()
        for layer in self._layers:
            layer.undo()
        self._watch.remove()

    def __enter__(self) -> Acceleration:
        return self

    def __exit__(self, *error: object) -> None:
        self.undo()

    def __str__(self) -> str:
        words = self.schedule if isinstance(self.schedule, ReductionSchedule) else f"{self.schedule} by length"
        return f"{self.family}, {self.num_layers} global layers: {words}"

    def _see_clip(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Frames and grid of the call under way, from the images that enter the model."""
        clips = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.ndim == 5]
        if not clips:
            raise InputError(f"{self.family} was called without images [B, S, 3, H, W], so its grid is unknown")
        _, frames, _, height, width = clips[0].shape
        grid = (height // self._host.patch, width // self._host.patch)
        self.layout = TokenLayout(frames, self._host.special, grid)

    def plan(self, x: Tensor, layer: int) -> Reduction:  # x: [B, N, C]
        if self.layout is None or x.shape[1] != self.layout.total:
            raise InputError(
                f"global layer {layer} of {self.family} received {x.shape[1]} tokens outside a call of the whole "
                "model: call the model with its images, or undo() first"
            )
        schedule = self.schedule_for(self.layout.frames)
        return SchedulePlanner(schedule, match_dtype=_working_dtype(x))(x, self.layout, layer)

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


class _GlobalLayer:
    """One attention module of the host, its forward replaced on the instance."""

    def __init__(self, owner: Acceleration, number: int, module: nn.Module):
        self.owner, self.number, self.module = owner, number, module
        self.before = module.__dict__.get("forward")
        self.signature = inspect.signature(module.forward)
        self.official: Callable[..., Tensor] = module.forward
        self.ours = MethodType(_forward, module)
        setattr(module, _MARK, self)
        module.forward = self.ours

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

    @property
    def active(self) -> bool:
        return getattr(self.module, _MARK, None) is self

    def check_uncovered(self) -> None:
        if self.active and self.module.__dict__.get("forward") is not self.ours:
            raise InputError("another tool has patched this model since accelerate(): take that back first")

    def undo(self) -> None:
        if not self.active:
            return
        delattr(self.module, _MARK)
        del self.module.forward
        if self.before is not None:
            self.module.forward = self.before


def _forward(module: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    return getattr(module, _MARK)(*args, **kwargs)


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

    Clips of any length and size may follow each other; frames and grid are read from each call. One call at a time.

    Raises InputError for a class it does not know, a model that is accelerated already, or one without global layers.
    """
    if not isinstance(schedule, (str, ReductionSchedule)):
        raise InputError(f"schedule={schedule!r}: must be a ReductionSchedule or a word: {WORDS}")
    if isinstance(schedule, str) and Path(schedule).is_file():
        schedule = ReductionSchedule.read(schedule)
    meant = ReductionSchedule.parse(schedule, 1) if isinstance(schedule, str) else schedule
    if meant.window:
        raise InputError("windows are not for the plug-in, which sees one call at a time: call the model for each")
    host = _host(model)
    if not host.attentions:
        raise InputError(f"this {host.family} has no global attention layers (a single-view model): nothing to reduce")
    if any(hasattr(module, _MARK) for module in host.attentions):
        raise InputError(f"this {host.family} is accelerated already: undo() that first, then choose another schedule")
    odd = next((type(m.qkv).__name__ for m in host.attentions if not isinstance(m.qkv, nn.Linear)), None)
    if odd is not None:
        raise InputError(f"its qkv layers are {odd}, not torch.nn.Linear: accelerate before quantising or adapting")
    return Acceleration(host, schedule)
