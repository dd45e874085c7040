"""What a run would be, before it is one: the chosen clip at a glance, frames, tokens, memory, the schedule in words."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from spark3r.frames import SourceInfo, describe_source, planned_frames, read_frames
from spark3r.inference import Estimate, estimate, needed_memory, network_size
from spark3r.models.checkpoints import ModelCard, list_models
from spark3r.reduction.schedule import ReductionSchedule
from viewer import charts
from viewer.engine import Models, outline
from viewer.run import Clip, RunRequest

PREVIEW_FRAMES = 6
PREVIEW_PIXELS = 128  # longer side

REAL_FOOTAGE = (
    "mini is a small model trained on rendered scenes: expect a rough shape from real footage, "
    "which is the business of the public checkpoints."
)


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
    return Look(info, facts, [_data_url(image) for image in frames.images], frames.notes)


@dataclass(frozen=True)
class Plan:
    """A run before it is one, as {what: value}."""

    frames: Mapping[str, str]
    tokens: Mapping[str, str]
    warning: str = ""


def plan(request: RunRequest, models: Models) -> Plan:
    """What the run that `request` asks for would be. Raises InputError for settings that make none."""
    sampling, info = request.sampling, request.info
    loaded = models.at_hand(sampling.model)
    model = loaded or outline(sampling.model)
    count = planned_frames(info, sampling.max_frames, sampling.fps or None)
    height, width = network_size(model, info.height, info.width, sampling.resolution or None)
    schedule = request.reduction.schedule(count, model.config.sensitive_layers)
    dense, reduced = (estimate(model, count, height, width, each) for each in (None, schedule))
    if loaded is None:
        needed = needed_memory(sampling.model, count, info.height, info.width, sampling.resolution or None)
        dense = replace(dense, needed_bytes=needed)
    frames = {
        "Frames": f"{count} of {info.frame_count}",
        "Network input": f"{width} × {height} pixels",
        "Memory": _memory(dense, loaded is not None),
    }
    return Plan(frames, _tokens(schedule, dense, reduced), _warning(request, dense, loaded is not None))


def card(name: str) -> ModelCard | None:
    """What is known about the model; None for a file of the visitor's own."""
    return next((card for card in list_models() if card.name == name), None)


def _tokens(schedule: ReductionSchedule, dense: Estimate, reduced: Estimate) -> dict[str, str]:
    full = charts.count(dense.tokens)
    fewer = f"{charts.count(reduced.query_tokens)} × {charts.count(reduced.kv_tokens)}"
    return {"Schedule": str(schedule), "Attention, tokens": f"{full} × {full} → {fewer}"}


def _memory(planned: Estimate, loaded: bool) -> str:
    needed = f"about {charts.byte_count(planned.needed_bytes)}"
    return f"{needed} of {charts.byte_count(planned.available_bytes)}" if loaded else f"{needed}, weights included"


def _warning(request: RunRequest, planned: Estimate, loaded: bool) -> str:
    known = card(request.sampling.model)
    if loaded and not planned.fits:
        return "This does not fit into memory: take fewer frames or a lower resolution."
    if known and known.bundled:
        return "" if request.clip.bundled else REAL_FOOTAGE
    if known and not loaded:
        size = charts.byte_count(known.download_bytes)
        return f"The first run fetches {known.title}, {size}, unless this machine has it already."
    return ""


def _data_url(image: np.ndarray) -> str:  # [H, W, 3] uint8 RGB
    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
