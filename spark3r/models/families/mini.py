"""mini: the small model that comes with the package, trained by `spark3r.training` on `spark3r.synthetic` scenes."""

from __future__ import annotations

from spark3r.models.config import BlockConfig, MlpCamera, ModelConfig, ResizeRule, StemConfig, StemDense, TokenConfig

_FRAME = BlockConfig("frame", layer_scale=False)
_GLOBAL = BlockConfig("global", layer_scale=False, length_gain=0.06, length_reference=400)

MINI_CONFIG = ModelConfig(
    name="mini",
    patch=16,
    width=192,
    heads=4,
    blocks=(_FRAME, _GLOBAL) * 6,
    taps=(5, 11),
    resize=ResizeRule(longer_side=128, multiple=16),
    encoder=StemConfig(),
    camera=MlpCamera(),
    dense=StemDense(),
    tokens=TokenConfig(camera=1, registers=1, reference="middle", reference_embedding=True),
)
