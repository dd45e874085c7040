"""What a run would be, before it is one: the chosen clip at a glance, frames, tokens, memory, the schedule in words."""

import base64
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from spark3r.estimate import Estimate, estimate, free_memory, needed_memory, network_size, token_counts
from spark3r.examples import footage_note
from spark3r.flops import count_flops
from spark3r.formatting import byte_count
from spark3r.frames import SourceInfo, describe_source, planned_frames, read_frames
from spark3r.models.checkpoints import ModelCard, list_models
from spark3r.models.network import Network
from spark3r.reduction.schedule import ReductionSchedule
from viewer.dials import DialFace, kv_dial, query_dial
from viewer.engine import Models, outline
from viewer.request import Clip, RunRequest
from viewer.sweep import Grid, expected_seconds

PREVIEW_FRAMES = 6
PREVIEW_PIXELS = 128  # longer side


@dataclass(frozen=True)
class Look:
    """A clip at a glance."""

    info: SourceInfo
    facts: str
    thumbnails: Sequence[str]  # data URLs
    notes: Sequence[str]


def look_at(clip: Clip) -> Look:
    """Open the clip far enough to show it. Raises InputError for what cannot be read."""
    info = describe_source(clip.source)
    frames = read_frames(clip.source, max_frames=PREVIEW_FRAMES, resolution=PREVIEW_PIXELS)
    size = f"{info.width} × {info.height}"
    if info.duration_s is not None:
        facts = f"{info.frame_count} frames, {info.duration_s:.1f} s, {size}"
    else:
        facts = f"{info.frame_count} photo{'s' if info.frame_count != 1 else ''}, {size}"
    return Look(info, facts, [data_url(image) for image in frames.images], frames.notes)


@dataclass(frozen=True)
class Plan:
    """A run before it is one, as {what: value}."""

    frames: Mapping[str, str]
    schedule: ReductionSchedule
    dials: tuple[DialFace, DialFace]  # query factor, key/value factor
    warning: str = ""
    fits: bool = True  # into memory, as far as is known now


def plan(request: RunRequest, models: Models) -> Plan:
    """What the run that `request` asks for would be. Raises InputError for settings that make none."""
    sampling, info = request.sampling, request.info
    loaded = models.at_hand(sampling.model)
    model = loaded or outline(sampling.model)
    count = planned_frames(info, sampling.max_frames, sampling.fps or None)
    height, width = network_size(model, info.height, info.width, sampling.resolution or None)
    schedule = request.reduction.schedule(count, model.config.sensitive_layers)
    dense = estimate(model, count, height, width)

    def needed(frames: int) -> int:
        if loaded is None:
            return _needed(sampling.model, frames, info.height, info.width, sampling.resolution)
        return estimate(loaded, frames, height, width).needed_bytes

    if loaded is None:
        dense = replace(dense, needed_bytes=needed(count), available_bytes=free_memory())
    frames = {
        "Frames": f"{count} of {info.frame_count}",
        "Network input": f"{width} × {height} pixels",
        "Memory": f"about {byte_count(dense.needed_bytes)} ({byte_count(dense.available_bytes)} free)",
    }
    warning = _warning(request, loaded is not None) if dense.fits else _too_large(dense, needed)
    dials = _dials(schedule, model, dense)
    return Plan(frames, schedule, dials, warning, dense.fits)


def _dials(schedule: ReductionSchedule, model: Network, dense: Estimate) -> tuple[DialFace, DialFace]:
    """Both dials, standing where the schedule does."""
    size = dense.frames, dense.height, dense.width
    some = "" if schedule.sensitive_layers is None or schedule.kv_boost == 1 else " in sensitive layers"
    return (
        query_dial(
            schedule.query_factor, dense.tokens,
            lambda factor: token_counts(model, *size, schedule.with_(query_factor=factor))[1],
        ),
        kv_dial(
            schedule.kv_factor, dense.tokens,
            lambda factor: token_counts(model, *size, schedule.with_(kv_factor=factor))[2], some,
        ),
    )  # fmt: skip


def sweep_seconds(request: RunRequest, models: Models, grid: Grid, dense_ms: Mapping[str, float]) -> float:
    """About how long a sweep takes, from the stages of the dense run that was measured here."""
    model = models.at_hand(request.sampling.model) or outline(request.sampling.model)
    sampling, info = request.sampling, request.info
    count = planned_frames(info, sampling.max_frames, sampling.fps or None)
    size = network_size(model, info.height, info.width, sampling.resolution or None)

    def kept_share(schedule: ReductionSchedule) -> float:
        tokens, queries, keys = token_counts(model, count, *size, schedule)
        return queries * keys / tokens**2

    return expected_seconds(grid.schedules(count, model), dense_ms, kept_share)


@dataclass(frozen=True)
class ModelRow:
    """A model beside the others."""

    card: ModelCard
    needed_bytes: int  # weights included
    fits: bool
    is_chosen: bool


def overview(request: RunRequest) -> list[ModelRow]:
    """Every model with a name, and the memory it asks for these frames; seconds for a size not asked for before.

    Raises InputError for a resolution none has.
    """
    sampling, info, free = request.sampling, request.info, free_memory()
    count = planned_frames(info, sampling.max_frames, sampling.fps or None)
    rows = []
    for each in list_models():
        needed = _needed(each.name, count, info.height, info.width, sampling.resolution)
        rows.append(ModelRow(each, needed, needed <= free, each.name == sampling.model))
    return rows


@lru_cache(maxsize=256)
def _needed(name: str, count: int, height: int, width: int, resolution: int) -> int:
    return needed_memory(name, count, height, width, resolution or None)


@dataclass(frozen=True)
class Footage:
    """What a visitor should know before a small bundled model sees their own footage, and what would do better."""

    better: ModelCard
    seconds: float | None  # that a dense run is likely to take here; None: nothing was measured to tell by


def footage(request: RunRequest, flops_per_ms: float | None) -> Footage | None:
    """None for a clip or a model that needs no such word; `flops_per_ms`: how fast dense runs were here."""
    if not footage_note(request.sampling.model, request.clip.source):
        return None
    better = next(each for each in list_models() if each.is_step_up)
    model, sampling, info = outline(better.name), request.sampling, request.info
    count = planned_frames(info, sampling.max_frames, sampling.fps or None)
    size = network_size(model, info.height, info.width, sampling.resolution or None)
    flops = sum(count_flops(model.config, count, *size, ReductionSchedule.off()).values()) if flops_per_ms else 0.0
    return Footage(better, flops / flops_per_ms / 1000 if flops_per_ms else None)


def card(name: str) -> ModelCard | None:
    """What is known about the model; None for a file of the visitor's own."""
    return next((card for card in list_models() if card.name == name), None)


def _too_large(planned: Estimate, needed: Callable[[int], int]) -> str:
    longest = bisect_right(range(1, planned.frames), planned.available_bytes, key=needed)
    if not longest:
        return "Not even one frame fits into memory: lower the resolution, or choose a smaller model."
    return f"This does not fit into memory: take at most {longest} frames, a lower resolution, or a smaller model."


def _warning(request: RunRequest, loaded: bool) -> str:
    known = card(request.sampling.model)
    if known and not known.bundled and not loaded:
        size = byte_count(known.download_bytes)
        return f"The first run fetches {known.title}, {size}, unless this machine has it already."
    return footage_note(request.sampling.model, request.clip.source)


def data_url(image: np.ndarray) -> str:  # [H, W, 3] uint8 RGB
    """The image as a JPEG that stands in the page itself."""
    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
