"""Depth Anything 3 (Lin et al. 2025), any-view, in four sizes: a plain vision transformer whose later blocks look
across frames in turn.

From block `alt_start` on every odd block is global, with one rotary position for all patches. The blocks before the
choice of a reference frame are our encoder, the others our trunk, where the reference stands first; results come back
in the order of the clip. The world is about the reference frame's camera. Confidence: the network says 1 + exp(c);
ours is sigmoid(c) = 1 − 1 / it.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from spark3r.models.config import BlockConfig, Dpt, ModelConfig, ResizeRule, TokenCamera, TokenConfig, VitConfig
from spark3r.models.converter import Converter, Rename, State, dpt_rules, fusion_rules, vit_rules
from spark3r.models.family import NON_COMMERCIAL, Entry, Family, Host, Shapes, Source, part, probed, public

_RAYS = "head.scratch.output_conv2_aux"


def da3(
    name: str,
    width: int,
    heads: int,
    depth: int,
    alt_start: int,
    taps: tuple[int, ...],
    dense: Dpt,
    mlp: Literal["gelu", "swiglu"] = "gelu",
    mlp_hidden: int = 0,
    position_side: int = 37,
    sensitive_layers: tuple[int, ...] | None = None,
) -> ModelConfig:
    """Block numbers as the official model counts them; ours begin one before `alt_start`."""

    def block(index: int) -> BlockConfig:
        crosses, turns = index >= alt_start and index % 2 == 1, index >= alt_start
        rope = ("flat" if crosses else "grid") if turns else None
        return BlockConfig("global" if crosses else "frame", rope, turns, True, mlp, mlp_hidden, norm_eps=1e-6)

    first = alt_start - 1
    return ModelConfig(
        name=name,
        patch=14,
        width=width,
        heads=heads,
        blocks=tuple(block(i) for i in range(first, depth)),
        taps=tuple(tap - first for tap in taps),
        resize=ResizeRule(504, 14, "upper_bound_resize"),
        encoder=VitConfig(
            tuple(block(i) for i in range(first)),
            heads,
            registers=0,
            position="offset",
            position_side=position_side,
            final_norm_eps=None,
            keeps_class_token=True,
        ),
        camera=TokenCamera(),
        dense=dense,
        tokens=TokenConfig(camera=1, registers=0, reference="balanced", enter_at=1),
        sensitive_layers=sensitive_layers,
    )


def _dpt(features: int, *channels: int) -> Dpt:
    a, b, c, d = channels
    return Dpt(features, (a, b, c, d), global_norm=True, rays=True)


_LAST = (256, 512, 1024, 1024)
DA3_SMALL = da3("da3-small", 384, 6, 12, 4, (5, 7, 9, 11), _dpt(64, 48, 96, 192, 384))
DA3_BASE = da3("da3-base", 768, 12, 12, 4, (5, 7, 9, 11), _dpt(128, 96, 192, 384, 768))
DA3_LARGE = da3("da3-large", 1024, 16, 24, 8, (11, 15, 19, 23), _dpt(256, *_LAST))
DA3_GIANT = da3(
    "da3-giant", 1536, 24, 40, 13, (19, 27, 33, 39), _dpt(256, *_LAST), "swiglu", 4096,
    sensitive_layers=tuple(range(3, 13)),
)  # fmt: skip


def _share(state: State) -> State:
    """Camera tokens [1, 2, C] → [2, 1, C]; the rays' norm, stored once with level 0, goes to level 3, the one used."""
    state["camera_token"] = state.pop("backbone.pretrained.camera_token").transpose(0, 1)
    for kind in ("weight", "bias"):
        state[f"{_RAYS}.3.2.{kind}"] = state.pop(f"{_RAYS}.0.2.{kind}")
    unused = tuple(f"head.scratch.output_conv{part}_aux.{level}." for part in (1, 2) for level in (0, 1, 2))
    return {name: tensor for name, tensor in state.items() if not name.startswith(unused)}


def converter_of(config: ModelConfig) -> Converter:
    """Which blocks belong to the encoder depends on the size."""
    assert isinstance(config.encoder, VitConfig)
    first = len(config.encoder.blocks)
    blocks = "backbone.pretrained.blocks.#."
    return Converter(
        rules=(
            Rename("camera_token", "trunk.special"),
            *vit_rules("backbone.pretrained", registers=None, among=range(first)),
            Rename(blocks, "trunk.blocks.#.", plus=-first),
            Rename("backbone.pretrained.norm.", "dense_head.pyramid.global_norm."),
            Rename("cam_dec.backbone.", "camera_head.hidden."),
            Rename("cam_dec.fc_t.", "camera_head.pose.translation."),
            Rename("cam_dec.fc_qvec.", "camera_head.pose.quaternion."),
            Rename("cam_dec.fc_fov.0.", "camera_head.pose.fov."),
            *dpt_rules("head", "dense_head"),
            *fusion_rules("head", "dense_head.rays.fusions", suffix="_aux"),
            Rename("head.scratch.output_conv1_aux.3.", "dense_head.rays.neck."),
            Rename(f"{_RAYS}.3.0.", "dense_head.rays.widen."),
            Rename(f"{_RAYS}.3.2.", "dense_head.rays.norm."),
            Rename(f"{_RAYS}.3.5.", "dense_head.rays.last."),
        ),
        prefixes=("model.da3.", "model.", ""),
        ignored={
            "cam_enc.": "given poses only",
            "gs_head.": "Gaussians are another task",
            "gs_adapter.": "Gaussians are another task",
        },
        fold=_share,
    )


_STEP_UP = "The recommended step up from mini for real footage on a CPU; begin with about 30 frames there."


def _entry(config: ModelConfig, repository: str, title: str, parameters: int, weights_licence: str, note: str) -> Entry:
    return public(
        config,
        converter_of(config),
        (Source(f"depth-anything/{repository}", "model.safetensors"),),
        title,
        parameters,
        ("Apache-2.0", weights_licence),
        note,
        suits_cpu=weights_licence == "Apache-2.0",
    )


_ENTRIES = (
    _entry(DA3_SMALL, "DA3-SMALL", "Depth Anything 3 Small", 34_299_463, "Apache-2.0", _STEP_UP),
    _entry(DA3_BASE, "DA3-BASE", "Depth Anything 3 Base", 135_366_599, "Apache-2.0", f"{_STEP_UP} Slower than Small."),
    _entry(DA3_LARGE, "DA3-LARGE-1.1", "Depth Anything 3 Large", 410_941_767, NON_COMMERCIAL, "Wants a GPU."),
    _entry(DA3_GIANT, "DA3-GIANT-1.1", "Depth Anything 3 Giant", 1_355_674_125, NON_COMMERCIAL, "Wants a GPU."),
)


def _recognise(shapes: Shapes) -> Entry | None:
    width = next((shape[-1] for name, shape in shapes.items() if name.endswith("pretrained.camera_token")), None)
    return next((entry for entry in _ENTRIES if entry.config.width == width), None)


def _host(model: nn.Module) -> Host:
    """The trunk reorders frames so that the reference comes first; from there on it is frame 0 for us too."""
    trunk = part(model, "backbone.pretrained")
    blocks = [block for index, block in enumerate(trunk.blocks) if 0 <= trunk.alt_start <= index and index % 2 == 1]
    return Host(
        family="Depth Anything 3",
        entry=part(model, "backbone"),
        attentions=tuple(block.attn for block in blocks),
        special=1 + trunk.num_register_tokens,
        patch=trunk.patch_size,
        sensitive_layers=probed(DA3_GIANT, len(blocks)),  # by the paper, the giant only
    )


FAMILY = Family(
    _ENTRIES,
    _recognise,
    {
        "DepthAnything3": lambda model: _host(part(model, "model")),
        "NestedDepthAnything3Net": lambda model: _host(part(model, "da3")),
        "DepthAnything3Net": _host,
    },
)
