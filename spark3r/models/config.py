"""What makes one model family different from another, as data."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Scope = Literal["frame", "global", "register"]
Rope = Literal["grid", "flat", "whole"] | None


@dataclass(frozen=True)
class BlockConfig:
    """One transformer block.

    scope       frame: attention inside each frame; global: over all tokens of the clip (here reduction acts);
                register: over the special tokens of all frames only
    rope        grid: row and column halves at integer positions; flat: the same, all patches at one position;
                whole: the whole head at normalised positions, periods from the weights; None: no rotation
    """

    scope: Scope
    rope: Rope = "grid"
    qk_norm: bool = True
    layer_scale: bool = True
    mlp: Literal["gelu", "swiglu"] = "gelu"
    mlp_hidden: int = 0  # 0: four times the width
    norm_eps: float = 1e-5
    qk_norm_eps: float = 1e-5
    length_gain: float = 0.0  # sharpening of global attention with the length of its context (attention.Kernel)
    length_reference: int = 1


@dataclass(frozen=True)
class TokenConfig:
    """The special tokens in front of every frame's patches and what they know of the reference frame.

    reference   none: all frames alike; first, middle: that frame; balanced: the frame whose class token is nearest to
                the middle of the clip's by three measures, put first in the trunk's order (trunk.balanced_reference)
    enter_at    block before which they are written; until then the encoder's class token stands in their place
    """

    camera: int = 1
    registers: int = 4
    reference: Literal["none", "first", "middle", "balanced"] = "first"
    reference_has_own_tokens: bool = True  # the reference frame's special tokens differ from the other frames'
    reference_embedding: bool = False  # a learned vector added to every token of the reference frame
    enter_at: int = 0
    std: float = 0.6  # of fresh random values

    @property
    def special(self) -> int:
        """Special tokens in front of the patches of a frame."""
        return self.camera + self.registers


@dataclass(frozen=True)
class ResizeRule:
    """How an image becomes the network's input; models.preprocess says what each mode does.

    longer_side   the family's own resolution in pixels: the longer side (fit, upper_*, max_size), the shorter side
                  (lower_*), the width (crop, pad), or the side of a square of equal area (area, balanced)
    pixels        area: at most this many pixels, in place of longer_side²
    """

    longer_side: int
    multiple: int
    mode: Literal[
        "fit", "crop", "pad", "area", "balanced", "max_size",
        "upper_bound_resize", "upper_bound_crop", "lower_bound_resize", "lower_bound_crop",
    ] = "fit"  # fmt: skip
    pixels: int = 0


@dataclass(frozen=True)
class StemConfig:
    """mini's encoder: convolutions at a quarter of the resolution."""

    width: int = 64
    position_grid: tuple[int, int] = (6, 8)  # the learned position table, resampled to other grids
    position_std: float = 0.6
    brightness: float | None = None  # darker frames are brightened to this mean first, 0..1; None: seen as they are


@dataclass(frozen=True)
class VitConfig:
    """A vision transformer as encoder: patches → class token, registers → blocks inside each frame.

    position    antialias: a learned table resampled to the grid's size; offset: resampled by the factors
                (h + 0.1) / side, without antialias; None: rotary positions ("whole") in every block
    """

    blocks: tuple[BlockConfig, ...]
    heads: int = 16
    registers: int = 4
    position: Literal["antialias", "offset"] | None = "antialias"
    position_side: int = 37
    final_norm_eps: float | None = 1e-6  # None: no final norm
    keeps_class_token: bool = False  # the trunk goes on with [class token | patches]
    stores_normalisation: bool = False  # mean and standard deviation of images come with the weights


@dataclass(frozen=True)
class MlpCamera:
    """mini: the camera token through a small MLP."""


@dataclass(frozen=True)
class RefiningCamera:
    """VGGT: camera tokens of all frames attend to each other, and the pose is refined several times."""

    depth: int = 4
    heads: int = 16
    iterations: int = 4


@dataclass(frozen=True)
class RegisterCamera:
    """VGGT-Ω: camera and register tokens of all frames attend to each other, once."""

    depth: int = 4
    heads: int = 16


@dataclass(frozen=True)
class TokenCamera:
    """Depth Anything 3: the camera token through an MLP, without norm."""


@dataclass(frozen=True)
class DecoderConfig:
    """π³: a few plain blocks between the trunk and a head."""

    depth: int = 5
    heads: int = 16
    width: int = 1024


@dataclass(frozen=True)
class PatchCamera:
    """π³: the mean of decoded patch tokens."""

    decoder: DecoderConfig = DecoderConfig()
    width: int = 512


@dataclass(frozen=True)
class StemDense:
    """mini: patch tokens and stem features through convolutions."""

    width: int = 64


@dataclass(frozen=True)
class Dpt:
    """A dense prediction transformer: four tapped layers, merged from coarse to fine.

    ending      convolutions: at full resolution; shuffle: at a quarter, then pixels are spread from channels
    skip_relu   the residual units pass on relu(x) instead of x
    global_norm the global half of each tap is normalised first, and the local half is not
    rays        a second stack of fusions predicts a ray per cell
    """

    features: int = 256
    channels: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    ending: Literal["convolutions", "shuffle"] = "convolutions"
    skip_relu: bool = False
    global_norm: bool = False
    rays: bool = False


@dataclass(frozen=True)
class PointDense:
    """π³: decoded patch tokens, each spread to its pixels' points.

    upsampling         channels of the maps at 2, 4, … times the grid, through which convolutions enlarge what was
                       decoded; (): a linear layer writes all pixels of a patch at once
    largest_log_depth  what is said beyond it counts as this
    """

    decoder: DecoderConfig = DecoderConfig()
    width: int = 1024
    upsampling: tuple[int, ...] = ()
    largest_log_depth: float = math.inf


EncoderConfig = StemConfig | VitConfig
CameraConfig = MlpCamera | RefiningCamera | RegisterCamera | TokenCamera | PatchCamera
DenseConfig = StemDense | Dpt | PointDense


@dataclass(frozen=True)
class ModelConfig:
    """A model: everything needed to build it and to load its weights."""

    name: str
    patch: int
    width: int
    heads: int
    blocks: tuple[BlockConfig, ...]
    taps: tuple[int, ...]  # blocks whose outputs (beside those of the frame block before them) the heads read
    resize: ResizeRule
    encoder: EncoderConfig
    camera: CameraConfig
    dense: DenseConfig
    points: Dpt | None = None  # VGGT: a second dense head, for points in the world
    metric: DecoderConfig | None = None  # Pi3X: what looks at the whole clip to say how many metres a unit is
    tokens: TokenConfig = field(default_factory=TokenConfig)
    sensitive_layers: tuple[int, ...] | None = None  # global layers that bear less pruning

    @property
    def global_blocks(self) -> tuple[int, ...]:
        """Indices of the blocks in which reduction acts."""
        return tuple(i for i, block in enumerate(self.blocks) if block.scope == "global")


def config_to_json(config: ModelConfig) -> str:
    """A config as text; parts that come in several types say which they are."""
    values = asdict(config)
    for name in _TYPED:
        part = getattr(config, name)
        if part is not None:
            values[name] = {"type": type(part).__name__, **values[name]}
    return json.dumps(values)


def config_from_json(text: str) -> ModelConfig:
    """The inverse of `config_to_json`; also reads what mini's training wrote before parts had types."""
    values: dict[str, Any] = json.loads(text)
    if "encoder" not in values:
        values = _with_typed_parts(values)
    values["tokens"] = TokenConfig(**values["tokens"])
    values["resize"] = ResizeRule(**values["resize"])
    values["blocks"] = _blocks(values["blocks"])
    for name in _TYPED:
        if values.get(name) is not None:
            values[name] = _part(dict(values[name]))
    return ModelConfig(**_tuples(values))


_TYPED = ("encoder", "camera", "dense", "points", "metric")
_TYPES = {
    kind.__name__: kind
    for kind in (
        StemConfig, VitConfig, MlpCamera, RefiningCamera, RegisterCamera, TokenCamera, PatchCamera, StemDense, Dpt,
        PointDense, DecoderConfig,
    )
}  # fmt: skip


def _part(values: dict[str, Any]) -> Any:
    kind = _TYPES[values.pop("type")]
    if "decoder" in values:
        values["decoder"] = DecoderConfig(**values["decoder"])
    if "blocks" in values:
        values["blocks"] = _blocks(values["blocks"])
    return kind(**_tuples(values))


def _blocks(values: list[dict[str, Any]]) -> tuple[BlockConfig, ...]:
    return tuple(BlockConfig(**block) for block in values)


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON knows lists only."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _with_typed_parts(values: dict[str, Any]) -> dict[str, Any]:
    """mini's older layout held the numbers of its encoder and dense head side by side."""
    std = values.pop("position_std")
    encoder = {"width": values.pop("stem_width"), "position_grid": values.pop("position_grid"), "position_std": std}
    head_width = values.pop("head_width")
    return {
        **values,
        "tokens": {**values["tokens"], "std": std},
        "encoder": {"type": "StemConfig", **encoder},
        "camera": {"type": "MlpCamera"},
        "dense": {"type": "StemDense", "width": head_width},
    }
