"""VGGT-Ω (2026): rotary positions in place of a table, some layers among registers only, depth spread from channels.

The world is about the first frame's camera. Confidence: the network says 1 + exp(c); ours is sigmoid(c) = 1 − 1 / it.
"""

from __future__ import annotations

import torch
from torch import nn

from spark3r.models.config import BlockConfig, Dpt, ModelConfig, RegisterCamera, ResizeRule, TokenConfig, VitConfig
from spark3r.models.converter import Converter, Rename, State, dpt_rules, vit_rules
from spark3r.models.family import Entry, Family, Host, Shapes, Source, part, probed, public

ENCODER_BLOCK = BlockConfig("frame", rope="whole", qk_norm=False)
_SENSITIVE = (*range(10, 14), *range(15, 18), 21)  # as the paper counts: inter-frame blocks


def vggt_omega(
    name: str = "vggt-omega",
    width: int = 1024,
    heads: int = 16,
    depth: int = 24,
    register_layers: tuple[int, ...] = (2, 6, 9, 14, 20),
    taps: tuple[int, ...] = (4, 11, 17, 23),
    registers: int = 16,
    encoder: VitConfig = VitConfig((ENCODER_BLOCK,) * 24, position=None, final_norm_eps=1e-5),
    camera: RegisterCamera = RegisterCamera(),
    dense: Dpt = Dpt(ending="shuffle"),
) -> ModelConfig:
    """The released model, or one of other sizes; layers count pairs of a frame and an inter-frame block."""
    frame = BlockConfig("frame", rope="whole")
    across = (BlockConfig("register" if i in register_layers else "global", rope=None) for i in range(depth))
    global_layers = [i for i in range(depth) if i not in register_layers]
    return ModelConfig(
        name=name,
        patch=16,
        width=width,
        heads=heads,
        blocks=tuple(block for pair in across for block in (frame, pair)),
        taps=tuple(2 * tap + 1 for tap in taps),
        resize=ResizeRule(512, 16, "balanced"),
        encoder=encoder,
        camera=camera,
        dense=dense,
        tokens=TokenConfig(camera=1, registers=registers, reference="first"),
        sensitive_layers=tuple(layer for layer, index in enumerate(global_layers) if index in _SENSITIVE),
    )


def _fold(state: State) -> State:
    """Special tokens become one table; every qkv bias is multiplied by its stored mask, once and for all."""
    camera, registers = state.pop("aggregator.camera_token"), state.pop("aggregator.register_token")
    masks = {name: state.pop(name) for name in list(state) if name.endswith(".qkv.bias_mask")}
    for name in [name for name in state if name.endswith(".qkv.bias")]:
        state[name] = state[name] * masks.get(f"{name}_mask", _documented_mask(state[name]))
    return {**state, "special": torch.cat((camera, registers), dim=2)[0]}


def _documented_mask(bias: torch.Tensor) -> torch.Tensor:
    """One for queries and values, zero for keys; for files that hold no mask."""
    mask = torch.ones_like(bias).unflatten(0, (3, -1))
    mask[1] = 0
    return mask.flatten()


CONVERTER = Converter(
    rules=(
        Rename("special", "trunk.special"),
        *vit_rules("aggregator.patch_embed", registers="storage_tokens"),
        Rename("aggregator.patch_embed.rope_embed.periods", "encoder.periods"),
        Rename("aggregator.patch_embed.norm.", "encoder.norm."),
        Rename("aggregator.rope_embed.periods", "trunk.periods"),
        Rename("aggregator.frame_blocks.#.", "trunk.blocks.#.", times=2),
        Rename("aggregator.inter_frame_blocks.#.", "trunk.blocks.#.", times=2, plus=1),
        Rename("camera_head.trunk.#.", "camera_head.blocks.#."),
        Rename("camera_head.trunk_norm.", "camera_head.norm."),
        Rename("camera_head.camera_branch.0.", "camera_head.branch.fc1."),
        Rename("camera_head.camera_branch.2.", "camera_head.branch.fc2."),
        Rename("camera_head.", "camera_head."),
        *dpt_rules("dense_head", "dense_head"),
        Rename("dense_head.proj.", "dense_head.ending.values.0."),
        Rename("dense_head.proj_conf.", "dense_head.ending.values.1."),
    ),
    ignored={
        "aggregator.patch_embed.mask_token": "multiplied by zero",
        "text_alignment_head.": "language is another task",
    },
    fold=_fold,
)

_LICENCE = "FAIR Noncommercial Research License v1"

OMEGA = public(
    vggt_omega(),
    CONVERTER,
    (Source("facebook/VGGT-Omega", "vggt_omega_1b_512.pt", gated=True),),
    "VGGT-Ω 1B",
    1_143_814_185,
    (_LICENCE, f"{_LICENCE} — non-commercial research"),
    "Wants a GPU. Gated: ask for access on the hub first.",
)


def _recognise(shapes: Shapes) -> Entry | None:
    return OMEGA if any("aggregator.inter_frame_blocks." in name for name in shapes) else None


def _host(model: nn.Module) -> Host:
    """Register-only layers see no patches and stay as they are."""
    aggregator, kinds = part(model, "aggregator"), part(model, "aggregator.inter_frame_attention_types")
    blocks = [
        block
        for block, kind in zip(part(model, "aggregator.inter_frame_blocks"), kinds, strict=True)
        if kind == "global"
    ]
    return Host(
        family="VGGT-Ω",
        entry=aggregator,
        attentions=tuple(block.attn for block in blocks),
        special=aggregator.patch_token_start,
        patch=aggregator.patch_size,
        sensitive_layers=probed(OMEGA.config, len(blocks)),
    )


FAMILY = Family((OMEGA,), _recognise, {"VGGTOmega": _host})
