"""From the hyper-parameters in an oracle's metadata to our configs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spark3r.models.config import DecoderConfig, Dpt, ModelConfig, RefiningCamera, RegisterCamera, VitConfig
from spark3r.models.converter import Converter
from spark3r.models.families import da3 as da3_family
from spark3r.models.families import omega as omega_family
from spark3r.models.families import pi3 as pi3_family
from spark3r.models.families import pi3x as pi3x_family
from spark3r.models.families import vggt as vggt_family

Facts = dict[str, Any]


def _encoder(facts: Facts, **changes: Any) -> VitConfig:
    side = facts.get("img_size", 518) // facts["patch_size"]
    blocks = (changes.pop("block"),) * facts["encoder_depth"]
    heads, registers = facts["encoder_num_heads"], facts["encoder_num_register_tokens"]
    return VitConfig(blocks, heads, registers, position_side=side, **changes)


def _sizes(facts: Facts) -> dict[str, Any]:
    return {"width": facts["embed_dim"], "heads": facts["num_heads"], "depth": facts["depth"]}


def _vggt(facts: Facts) -> tuple[ModelConfig, Converter]:
    config = vggt_family.vggt(
        **_sizes(facts),
        taps=tuple(facts["dpt_layers"]),
        registers=facts["num_register_tokens"],
        encoder=_encoder(facts, block=vggt_family.ENCODER_BLOCK),
        camera=RefiningCamera(facts["camera_trunk_depth"], facts["camera_num_heads"], facts["camera_iterations"]),
        dense=Dpt(facts["dpt_features"], tuple(facts["dpt_out_channels"]), skip_relu=True),
    )
    return config, vggt_family.CONVERTER


def _pi3_sizes(facts: Facts) -> dict[str, Any]:
    return {
        **_sizes(facts),
        "registers": facts["num_register_tokens"],
        "encoder": _encoder(facts, block=vggt_family.ENCODER_BLOCK, stores_normalisation=True),
        "decoder": DecoderConfig(facts["head_depth"], facts["head_num_heads"], facts["head_embed_dim"]),
        "dense_width": facts["head_out_dim"],
        "camera_width": facts["camera_dim"],
    }


def _pi3(facts: Facts) -> tuple[ModelConfig, Converter]:
    return pi3_family.pi3(**_pi3_sizes(facts)), pi3_family.CONVERTER


def _pi3x(facts: Facts) -> tuple[ModelConfig, Converter]:
    metric = DecoderConfig(facts["metric_depth"], facts["metric_num_heads"], facts["metric_embed_dim"])
    config = pi3x_family.pi3x(**_pi3_sizes(facts), upsampling=tuple(facts["upsampling"]), metric=metric)
    return config, pi3x_family.CONVERTER


def _omega(facts: Facts) -> tuple[ModelConfig, Converter]:
    config = omega_family.vggt_omega(
        **_sizes(facts),
        register_layers=tuple(facts["register_attention_layers"]),
        taps=tuple(facts["dpt_layers"]),
        registers=facts["num_register_tokens"],
        encoder=_encoder(facts, block=omega_family.ENCODER_BLOCK, position=None, final_norm_eps=1e-5),
        camera=RegisterCamera(facts["camera_trunk_depth"], facts["camera_num_heads"]),
        dense=Dpt(facts["dpt_features"], tuple(facts["dpt_out_channels"]), ending="shuffle"),
    )
    return config, omega_family.CONVERTER


def _da3(facts: Facts) -> tuple[ModelConfig, Converter]:
    config = da3_family.da3(
        "da3",
        **_sizes(facts),
        alt_start=facts["alt_start"],
        taps=tuple(facts["out_layers"]),
        dense=Dpt(facts["dpt_features"], tuple(facts["dpt_out_channels"]), global_norm=True, rays=True),
        mlp="swiglu" if facts["ffn"] == "swiglu" else "gelu",
        mlp_hidden=facts["swiglu_hidden"] or 0,
        position_side=facts["img_size"] // facts["patch_size"],
    )
    return config, da3_family.converter_of(config)


BUILDERS: dict[str, Callable[[Facts], tuple[ModelConfig, Converter]]] = {
    "vggt": _vggt,
    "pi3": _pi3,
    "pi3x": _pi3x,
    "da3": _da3,
    "vggt_omega": _omega,
}
