"""What a network asks of the machine, known before any work."""

from __future__ import annotations

import torch

from spark3r.models.config import Dpt, ModelConfig, StemConfig, StemDense
from spark3r.models.network import Network
from spark3r.tokens import TokenLayout

FRAMES_AT_ONCE = 16  # the encoder takes this many frames at a time, to bound memory
_HEAD_PIXELS_AT_ONCE = 1 << 20  # the dense head works on this many pixels at a time, and on no more frames either


def needed_bytes(model: Network, layout: TokenLayout, pixels: int) -> int:
    """Peak of a run, weights apart: tapped layers, fine features and results, and the larger of the trunk (the stream
    of tokens in float32, and its queries, keys and values) and one chunk of the dense head. An upper estimate."""
    config = model.config
    item = torch.empty(0, dtype=model.dtype).element_size()
    stream = layout.total * config.width * (4 * 4 + 2 * 4 * item)
    taps = layout.total * 2 * config.width * 4 * len(config.taps)
    fine = layout.frames * pixels // 16 * config.encoder.width * item if isinstance(config.encoder, StemConfig) else 0
    results = layout.frames * pixels * (3 + 4 + 4)
    chunk = min(layout.frames, head_frames(pixels)) * pixels * 4 * _head_values(config)
    return taps + fine + results + max(stream, chunk) + min(stream, chunk) // 4


def _head_values(config: ModelConfig) -> int:
    """How many float32 values the dense head holds per pixel at its peak."""
    if not isinstance(config.dense, Dpt):
        return 64
    return 64 + config.dense.features * 5 // 4 if config.dense.ending == "convolutions" else 160


def head_frames(pixels: int) -> int:
    """How many frames of this many pixels the dense head takes at a time."""
    return max(1, min(FRAMES_AT_ONCE, _HEAD_PIXELS_AT_ONCE // pixels))


def head_work(config: ModelConfig) -> int:
    """Multiply–adds of the dense head per patch, in the same measure as the trunk's."""
    if isinstance(config.dense, Dpt):  # float32 convolutions: slower than the trunk's matrices by about four
        return 4 * 4000 * config.dense.features**2 // (1 if config.dense.ending == "convolutions" else 3)
    return 48 * config.width**2 if isinstance(config.dense, StemDense) else 150 * config.width**2
