"""mini: the small model that comes with the package, trained by `spark3r.training` on rendered scenes."""

from __future__ import annotations

from spark3r.errors import InputError
from spark3r.models.config import BlockConfig, MlpCamera, ModelConfig, ResizeRule, StemConfig, StemDense, TokenConfig
from spark3r.models.family import Entry, Family, ModelCard

BRIGHTNESS = 0.64  # mean of rendered rooms' frames (of a filmed kitchen: .47)
_FRAME = BlockConfig("frame", layer_scale=False)
_GLOBAL = BlockConfig("global", layer_scale=False, length_gain=0.06, length_reference=400)


def mini_config(channels: int = 192, pairs: int = 6, patch: int = 16, size: tuple[int, int] = (96, 128)) -> ModelConfig:
    """The small model at any size: tokens of `channels` in heads of 48, `pairs` of a frame and a global layer, tokens
    of patch × patch pixels, images of `size` (H, W) pixels."""
    if patch % 4 or patch < 4 or size[0] % patch or size[1] % patch:
        raise InputError(f"patch={patch}, size={size}: patch must be a multiple of 4 that divides both sides")
    if channels % 48 or channels < 48 or pairs < 2:
        raise InputError(f"channels={channels}, pairs={pairs}: channels must be a multiple of 48, pairs 2 or more")
    return ModelConfig(
        name="mini",
        patch=patch,
        width=channels,
        heads=channels // 48,
        blocks=(_FRAME, _GLOBAL) * pairs,
        taps=(pairs // 2 * 2 - 1, 2 * pairs - 1),
        resize=ResizeRule(longer_side=max(size), multiple=patch),
        encoder=StemConfig(position_grid=(size[0] // patch, size[1] // patch), brightness=BRIGHTNESS),
        camera=MlpCamera(),
        dense=StemDense(),
        tokens=TokenConfig(camera=1, registers=1, reference="middle", reference_embedding=True),
    )


MINI_CONFIG = mini_config()

MINI = Entry(
    ModelCard(
        name="mini",
        title="mini — bundled, small",
        parameters=6_258_665,
        download_bytes=0,
        code_licence="Apache-2.0",
        weights_licence="Apache-2.0",
        note="Trained on rendered scenes only: it shows what reduction does, offline on a CPU. On 60 real frames its "
        "depth was 19 % off and its cameras by 8°: for real footage take a public model.",
        bundled=True,
        suits_cpu=True,
    ),
    MINI_CONFIG,
)
FAMILY = Family((MINI,))
