"""How much of a clip is worked on at once, and what share of the work that is."""

from __future__ import annotations

from spark3r.models.config import Dpt, ModelConfig, PointDense, StemDense

FRAMES_AT_ONCE = 16  # the encoder takes this many frames at a time, to bound memory
_HEAD_PIXELS_AT_ONCE = 1 << 20  # the dense head works on this many pixels at a time, and on no more frames either


def head_frames(pixels: int) -> int:
    """How many frames of this many pixels the dense head takes at a time."""
    return max(1, min(FRAMES_AT_ONCE, _HEAD_PIXELS_AT_ONCE // pixels))


def head_work(config: ModelConfig) -> int:
    """Multiply–adds of the dense head per patch, in the same measure as the trunk's."""
    if isinstance(config.dense, Dpt):  # float32 convolutions: slower than the trunk's matrices by about four
        return 4 * 4000 * config.dense.features**2 // (1 if config.dense.ending == "convolutions" else 3)
    if isinstance(config.dense, StemDense):
        return 48 * config.width**2
    assert isinstance(config.dense, PointDense)
    convolved = 340 * len(config.dense.upsampling) * config.dense.upsampling[0] ** 2 if config.dense.upsampling else 0
    return 150 * config.width**2 + 4 * 2 * convolved  # of points and of confidence
