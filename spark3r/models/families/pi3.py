"""π³ (Wang et al. 2025): no reference frame; every frame says points in its own camera's axes, and its camera's pose.

Depth is the points' z; focal lengths are recovered from the points by least squares (heads.points.focal_from_rays).
The world is any similarity of the scene. Confidence: sigmoid of the network's logit.
"""

from __future__ import annotations

from torch import nn

from spark3r.models.config import (
    BlockConfig,
    DecoderConfig,
    ModelConfig,
    PatchCamera,
    PointDense,
    ResizeRule,
    TokenConfig,
    VitConfig,
)
from spark3r.models.converter import Converter, Rename, State, vit_rules
from spark3r.models.families.vggt import ENCODER_BLOCK
from spark3r.models.family import NON_COMMERCIAL, Entry, Family, Host, Shapes, Source, part, probed, public

ENCODER = VitConfig((ENCODER_BLOCK,) * 24, stores_normalisation=True)


def pi3(
    name: str = "pi3",
    width: int = 1024,
    heads: int = 16,
    depth: int = 36,
    registers: int = 5,
    encoder: VitConfig = ENCODER,
    decoder: DecoderConfig = DecoderConfig(),
    dense_width: int = 1024,
    camera_width: int = 512,
) -> ModelConfig:
    """The released model, or one of other sizes; the heads read the last two blocks."""
    return ModelConfig(
        name=name,
        patch=14,
        width=width,
        heads=heads,
        blocks=(BlockConfig("frame", norm_eps=1e-6), BlockConfig("global", norm_eps=1e-6)) * (depth // 2),
        taps=(depth - 1,),
        resize=ResizeRule(505, 14, "area", pixels=255_000),
        encoder=encoder,
        camera=PatchCamera(decoder, camera_width),
        dense=PointDense(decoder, dense_width),
        tokens=TokenConfig(camera=0, registers=registers, reference="none", reference_has_own_tokens=False),
        sensitive_layers=tuple(range(11, 17)),
    )


def reshape(state: State) -> State:
    """Registers [1, 1, R, C] → [1, R, C]; colour statistics [1, 3, 1, 1] → [3, 1, 1]."""
    for name in ("register_token", "image_mean", "image_std"):
        state[name] = state[name][0]
    return state


def _decoder_rules(theirs: str, ours: str) -> tuple[Rename, ...]:
    return (
        Rename(f"{theirs}.projects.", f"{ours}.project."),
        Rename(f"{theirs}.blocks.", f"{ours}.blocks."),
        Rename(f"{theirs}.linear_out.", f"{ours}.out."),
    )


RULES = (  # what Pi3X has too
    Rename("register_token", "trunk.special"),
    Rename("image_mean", "encoder.normalise.mean"),
    Rename("image_std", "encoder.normalise.std"),
    *vit_rules("encoder"),
    Rename("encoder.norm.", "encoder.norm."),
    Rename("decoder.#.", "trunk.blocks.#."),
    *_decoder_rules("point_decoder", "dense_head.point_decoder"),
    *_decoder_rules("conf_decoder", "dense_head.confidence_decoder"),
    *_decoder_rules("camera_decoder", "camera_head.decoder"),
    Rename("camera_head.res_conv.#.res_conv1.", "camera_head.pose.residuals.#.0."),
    Rename("camera_head.res_conv.#.res_conv2.", "camera_head.pose.residuals.#.2."),
    Rename("camera_head.res_conv.#.res_conv3.", "camera_head.pose.residuals.#.4."),
    Rename("camera_head.more_mlps.", "camera_head.pose.hidden."),
    Rename("camera_head.fc_t.", "camera_head.pose.translation."),
    Rename("camera_head.fc_rot.", "camera_head.pose.rotation."),
)

CONVERTER = Converter(
    rules=(
        *RULES,
        Rename("point_head.proj.", "dense_head.point.values."),
        Rename("conf_head.proj.", "dense_head.confidence.values."),
    ),
    fold=reshape,
)

PI3 = public(
    pi3(),
    CONVERTER,
    (Source("yyfz233/Pi3", "model.safetensors"),),
    "π³",
    958_696_732,
    ("BSD 3-Clause", NON_COMMERCIAL),
    "No reference frame: the order of frames does not matter. Wants a GPU.",
)


def _recognise(shapes: Shapes) -> Entry | None:
    return PI3 if {"register_token", "point_head.proj.weight"} <= shapes.keys() else None


def host(model: nn.Module, entry: Entry) -> Host:
    """The parts of an official π³ or Pi3X, which is the model `entry`."""
    blocks = list(part(model, "decoder"))[1::2]  # the even ones see one frame each
    return Host(
        family=entry.card.title,
        entry=model,
        attentions=tuple(block.attn for block in blocks),
        special=part(model, "patch_start_idx"),
        patch=part(model, "patch_size"),
        sensitive_layers=probed(entry.config, len(blocks)),
    )


FAMILY = Family((PI3,), _recognise, {"Pi3": lambda model: host(model, PI3)})
