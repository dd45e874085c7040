"""VGGT (Wang et al. 2025): frame and global attention in turn, a pose refined in four steps, depth by a full DPT.

The world is about the first frame's camera. Confidence: the network says 1 + exp(c); ours is sigmoid(c) = 1 − 1 / it.
"""

from __future__ import annotations

import torch
from torch import nn

from spark3r.models.config import BlockConfig, Dpt, ModelConfig, RefiningCamera, ResizeRule, TokenConfig, VitConfig
from spark3r.models.converter import Converter, Rename, State, dpt_rules, vit_rules
from spark3r.models.family import Entry, Family, Host, Shapes, Source, part, probed, public

ENCODER_BLOCK = BlockConfig("frame", rope=None, qk_norm=False, norm_eps=1e-6)


def vggt(
    name: str = "vggt",
    width: int = 1024,
    heads: int = 16,
    depth: int = 24,
    taps: tuple[int, ...] = (4, 11, 17, 23),
    registers: int = 4,
    encoder: VitConfig = VitConfig((ENCODER_BLOCK,) * 24),
    camera: RefiningCamera = RefiningCamera(),
    dense: Dpt = Dpt(skip_relu=True),
) -> ModelConfig:
    """The released model, or one of other sizes; taps count pairs of a frame and a global block."""
    return ModelConfig(
        name=name,
        patch=14,
        width=width,
        heads=heads,
        blocks=(BlockConfig("frame"), BlockConfig("global")) * depth,
        taps=tuple(2 * tap + 1 for tap in taps),
        resize=ResizeRule(518, 14, "crop"),
        encoder=encoder,
        camera=camera,
        dense=dense,
        points=dense,
        tokens=TokenConfig(camera=1, registers=registers, reference="first"),
        sensitive_layers=tuple(range(11, 17)),
    )


def _join_tokens(state: State) -> State:
    """Camera and register tokens become one table: [1, 2, 1, C] and [1, 2, R, C] → [2, 1 + R, C]."""
    camera, registers = state.pop("aggregator.camera_token"), state.pop("aggregator.register_token")
    return {**state, "special": torch.cat((camera, registers), dim=2)[0]}


CONVERTER = Converter(
    rules=(
        Rename("special", "trunk.special"),
        *vit_rules("aggregator.patch_embed"),
        Rename("aggregator.patch_embed.norm.", "encoder.norm."),
        Rename("aggregator.frame_blocks.#.", "trunk.blocks.#.", times=2),
        Rename("aggregator.global_blocks.#.", "trunk.blocks.#.", times=2, plus=1),
        Rename("camera_head.empty_pose_tokens", "camera_head.first_pose"),
        Rename("camera_head.poseLN_modulation.1.", "camera_head.modulation."),
        Rename("camera_head.trunk.#.", "camera_head.blocks.#."),
        Rename("camera_head.trunk_norm.", "camera_head.norm."),
        Rename("camera_head.pose_branch.", "camera_head.change."),
        Rename("camera_head.", "camera_head."),
        *dpt_rules("depth_head", "dense_head"),
        *dpt_rules("point_head", "point_head"),
    ),
    ignored={
        "track_head.": "tracking is another task",
        "aggregator.patch_embed.mask_token": "used in pre-training only",
    },
    fold=_join_tokens,
)

_META = "VGGT License v1 (Meta)"

VGGT = public(
    vggt(),
    CONVERTER,
    (Source("facebook/VGGT-1B", "model.safetensors"), Source("facebook/VGGT-1B", "model.pt")),
    "VGGT 1B",
    1_256_537_516,
    (_META, "Non-commercial use only (CC BY-NC 4.0)"),
    "Wants a GPU.",
)
VGGT_COMMERCIAL = public(
    vggt("vggt-commercial"),
    CONVERTER,
    (Source("facebook/VGGT-1B-Commercial", "vggt_1B_commercial.pt", gated=True),),
    "VGGT 1B Commercial",
    1_256_537_516,
    (_META, f"{_META}: commercial use allowed, military use not; access on request"),
    "Wants a GPU. Gated: accept the licence on the hub first.",
)


def _recognise(shapes: Shapes) -> Entry | None:
    return VGGT if any("aggregator.global_blocks." in name for name in shapes) else None


def _host(model: nn.Module) -> Host:
    aggregator, blocks = part(model, "aggregator"), part(model, "aggregator.global_blocks")
    return Host(
        family="VGGT",
        entry=aggregator,
        attentions=tuple(block.attn for block in blocks),
        special=aggregator.patch_start_idx,
        patch=aggregator.patch_size,
        sensitive_layers=probed(VGGT.config, len(blocks)),
    )


FAMILY = Family((VGGT, VGGT_COMMERCIAL), _recognise, {"VGGT": _host})
