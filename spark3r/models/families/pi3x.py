"""Pi3X (2025): π³ trained on, with points enlarged by convolutions and a scale in metres, from images alone.

The poses, intrinsics and depths that it can be given as well are not taken: its weights for these are left out, as its
authors leave them out where only images are given. The rest is as in π³, whose sensitive layers are taken for its own.
"""

from __future__ import annotations

from dataclasses import replace

from spark3r.models.config import DecoderConfig, ModelConfig, PatchCamera, PointDense, VitConfig
from spark3r.models.converter import Converter, Rename
from spark3r.models.families import pi3
from spark3r.models.family import NON_COMMERCIAL, Entry, Family, Shapes, Source, public

_LARGEST_LOG_DEPTH = 15.0


def pi3x(
    name: str = "pi3x",
    width: int = 1024,
    heads: int = 16,
    depth: int = 36,
    registers: int = 5,
    encoder: VitConfig = pi3.ENCODER,
    decoder: DecoderConfig = DecoderConfig(),
    dense_width: int = 1024,
    upsampling: tuple[int, ...] = (256, 128, 64),
    camera_width: int = 512,
    metric: DecoderConfig = DecoderConfig(heads=8, width=512),
) -> ModelConfig:
    """The released model, or one of other sizes."""
    config = pi3.pi3(name, width, heads, depth, registers, encoder, decoder, dense_width, camera_width)
    dense = PointDense(decoder, dense_width, upsampling, _LARGEST_LOG_DEPTH)
    return replace(config, camera=PatchCamera(decoder, camera_width), dense=dense, metric=metric)


def _upsampling_rules(theirs: str, ours: str) -> tuple[Rename, ...]:
    return (
        Rename(f"{theirs}.upsample_blocks.#.0.0.", f"{ours}.levels.#.enlarge."),
        Rename(f"{theirs}.upsample_blocks.#.0.1.", f"{ours}.levels.#.smooth."),
        Rename(f"{theirs}.upsample_blocks.#.1.layers.", f"{ours}.levels.#.residuals.0."),
        Rename(f"{theirs}.upsample_blocks.#.2.layers.", f"{ours}.levels.#.residuals.1."),
        Rename(f"{theirs}.output_block.", f"{ours}.endings."),
    )


CONVERTER = Converter(
    rules=(
        *pi3.RULES,
        *_upsampling_rules("point_head", "dense_head.point"),
        *_upsampling_rules("conf_head", "dense_head.confidence"),
        Rename("metric_token", "metric_head.token"),
        Rename("metric_decoder.projects_x.", "metric_head.project_token."),
        Rename("metric_decoder.projects_y.", "metric_head.project."),
        Rename("metric_decoder.blocks.#.norm2.", "metric_head.blocks.#.norm."),
        Rename("metric_decoder.blocks.#.norm_y.", "metric_head.blocks.#.context_norm."),
        Rename("metric_decoder.blocks.#.norm3.", "metric_head.blocks.#.mlp_norm."),
        Rename("metric_decoder.blocks.#.cross_attn.q_proj.", "metric_head.blocks.#.query."),
        Rename("metric_decoder.blocks.#.cross_attn.k_proj.", "metric_head.blocks.#.key."),
        Rename("metric_decoder.blocks.#.cross_attn.v_proj.", "metric_head.blocks.#.value."),
        Rename("metric_decoder.blocks.#.cross_attn.proj.", "metric_head.blocks.#.proj."),
        Rename("metric_decoder.blocks.#.mlp.", "metric_head.blocks.#.mlp."),
        Rename("metric_decoder.linear_out.", "metric_head.out."),
        Rename("metric_head.", "metric_head.log_metres."),
    ),
    ignored={
        "depth_encoder.": "given depths are not taken",
        "depth_emb": "given depths are not taken",
        "ray_embed.": "given intrinsics are not taken",
        "pose_inject_blk.": "given poses are not taken",
    },
    fold=pi3.reshape,
)

PI3X = public(
    pi3x(),
    CONVERTER,
    (Source("yyfz233/Pi3X", "model.safetensors"),),
    "Pi3X",
    1_360_032_433,
    ("BSD 3-Clause", NON_COMMERCIAL),
    "π³ with smoother points and a scale in metres, roughly. Wants a GPU.",
)


def _recognise(shapes: Shapes) -> Entry | None:
    return PI3X if "metric_token" in shapes else None


FAMILY = Family((PI3X,), _recognise, {"Pi3X": lambda model: pi3.host(model, PI3X)})
