"""What a run will ask of the machine, known before any work."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from spark3r.dryrun import Case, peak_bytes, weight_bytes
from spark3r.errors import InputError
from spark3r.measure import available_bytes
from spark3r.models import preprocess
from spark3r.models.checkpoints import pick_device, pick_dtype
from spark3r.models.network import Network
from spark3r.models.registry import named
from spark3r.reduction import ReductionSchedule
from spark3r.reduction.schedule import WORDS

_RESULT_BYTES = 11  # per pixel: colours, depth, confidence
_HEAP_BYTES, _HEAP_SHARE = 60 << 20, 0.12  # of a process: scratch of the libraries, and freed memory that it keeps

Schedule = ReductionSchedule | str | None
"""A schedule, a word for one (see reduction/schedule.py), or None for dense."""


@dataclass(frozen=True)
class Estimate:
    """What a clip will ask of the machine, known before any work."""

    frames: int
    height: int  # of the network's input
    width: int
    tokens: int
    query_tokens: int  # in a base layer
    kv_tokens: int
    needed_bytes: int
    available_bytes: int

    @property
    def fits(self) -> bool:
        """Whether the memory will do."""
        return self.needed_bytes <= self.available_bytes


def schedule_for(schedule: Schedule, num_frames: int, model: Network) -> ReductionSchedule:
    """The schedule meant by a word, with the model's own sensitive layers, or by None (dense); InputError otherwise."""
    if schedule is None:
        return ReductionSchedule.off()
    if isinstance(schedule, ReductionSchedule):
        return schedule
    if not isinstance(schedule, str):
        raise InputError(f"schedule={schedule!r}: must be a ReductionSchedule, None for dense, or a word: {WORDS}")
    return ReductionSchedule.parse(schedule, num_frames, model.config.sensitive_layers)


def network_size(model: Network, height: int, width: int, resolution: int | None = None) -> tuple[int, int]:
    """(H, W) of the network's input for frames of this size; `resolution` as in `reconstruct`."""
    return preprocess.network_size(model.config, height, width, resolution)


def estimate(model: Network, num_frames: int, height: int, width: int, schedule: Schedule = None) -> Estimate:
    """Tokens and memory of a run; height and width are the network's input, as from `network_size`."""
    meant = schedule_for(schedule, num_frames, model)
    counts = token_counts(model, num_frames, height, width, meant)
    case = Case(model.config, model.dtype, model.device.type, num_frames, height, width, meant, model.offload)
    needed = _needed(case, peak_bytes(case) - weight_bytes(model.config, model.dtype))
    return Estimate(num_frames, height, width, *counts, needed, available_bytes(model.device))


def token_counts(
    model: Network, num_frames: int, height: int, width: int, schedule: Schedule = None
) -> tuple[int, int, int]:
    """(tokens, queries, keys) of a base layer, as in `estimate`, at once: memory is what takes time to reckon."""
    meant = schedule_for(schedule, num_frames, model)
    layout = model.trunk.layout(meant.frames_at_once(num_frames), model.grid(height, width))
    return layout.total, *meant.token_counts(layout)


def needed_memory(
    name: str,
    num_frames: int,
    height: int,
    width: int,
    resolution: int | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | None = None,
) -> int:
    """Bytes that a named model, its weights included, asks for frames of this size; no weights are read."""
    config, target = named(name).config, pick_device(device)
    size = preprocess.network_size(config, height, width, resolution)
    case = Case(config, pick_dtype(dtype, target), target.type, num_frames, *size, ReductionSchedule.off())
    return _needed(case, peak_bytes(case))


def _needed(case: Case, held: int) -> int:
    """What the device must give for tensors of so many bytes."""
    if case.device != "cpu":
        return held
    if case.schedule.window:
        held += case.frames * case.height * case.width * _RESULT_BYTES
    return int(held * (1 + _HEAP_SHARE)) + _HEAP_BYTES


def free_memory(device: str | None = None) -> int:
    """Bytes that a new run may take on the device (None: the one that models are put on)."""
    return available_bytes(pick_device(device))
