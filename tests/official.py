"""The plug-in held against the official code: `python tests/official.py vggt=PATH pi3=PATH … --json FILE`.

PATH is a checkout of the official repository, which is imported from there and stays as it is; its commit is read from
git, or given as PATH@COMMIT. Each official class is built small (the widths and depths below) with random weights and
runs in float32 on the CPU, beside Spark3R's own network with the same weights. The rows become a table by
`python -m spark3r.benchmark.tables`.

    vggt        github.com/facebookresearch/vggt             pi3, pi3x   github.com/yyfz/Pi3
    da3         github.com/ByteDance-Seed/Depth-Anything-3   vggt-omega  github.com/facebookresearch/vggt-omega
"""

from __future__ import annotations

import argparse
import copy
import importlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from spark3r import ReductionSchedule, accelerate
from spark3r.measure import machine
from spark3r.models.checkpoints import fill
from spark3r.models.config import Dpt, ModelConfig, VitConfig
from spark3r.models.converter import Converter
from spark3r.models.families import da3, omega, pi3, vggt
from spark3r.models.network import Network
from spark3r.models.registry import host_of
from spark3r.parity.sizes import BUILDERS
from spark3r.reduction import SchedulePlanner

WIDTH, HEADS, DEPTH = 384, 6, 4  # of the small builds: a ViT-S
DPT: dict[str, Any] = {"features": 64, "out_channels": [48, 96, 192, 384]}
PI3X: dict[str, Any] = {
    "patch_size": 14, "img_size": 518, "embed_dim": WIDTH, "num_heads": HEADS, "depth": 2 * DEPTH,
    "encoder_depth": 12, "encoder_num_heads": HEADS, "encoder_num_register_tokens": 4, "num_register_tokens": 5,
    "head_depth": 2, "head_num_heads": HEADS, "head_embed_dim": WIDTH, "head_out_dim": WIDTH, "camera_dim": 192,
    "upsampling": [64, 32, 32], "metric_depth": 2, "metric_num_heads": 3, "metric_embed_dim": 192,
}  # fmt: skip
CLIPS = ((1, (3, 5)), (2, (4, 3)), (7, (3, 5)), (23, (3, 4)))  # (frames, patches), one after the other
TIMED = (64, (4, 6))
STRONG = ReductionSchedule(query_factor=2, kv_factor=8)
ROUNDING = 5e-6  # of the largest depth; another schedule, or another clip's tables, are thousands of times further off
MUST_HOLD = (
    "off_bit_equal", "on_same_shapes", "on_differs_from_dense", "undone_bit_equal", "weights_and_keys_unchanged",
    "gradients_after_inference", "saved_is_official", "threads_agree",
)  # fmt: skip
IMAGENET = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])


@dataclass(frozen=True)
class Case:
    """One official class: how it is built small, and our config and converter for its weights."""

    repository: str
    source: str  # the folder of the checkout that holds the package
    build: Callable[[], nn.Module]
    ours: Callable[[], tuple[ModelConfig, Converter]]
    depth: Callable[[Any], Tensor]  # of its output, [B, S, H, W]
    takes_normalised: bool = False


def _vggt() -> nn.Module:
    module = importlib.import_module("vggt.models.vggt")
    module.Aggregator = partial(module.Aggregator, depth=DEPTH, num_heads=HEADS, patch_embed="dinov2_vits14_reg")  # pyright: ignore[reportAttributeAccessIssue]
    module.DPTHead = partial(module.DPTHead, **DPT, intermediate_layer_idx=list(range(DEPTH)))  # pyright: ignore[reportAttributeAccessIssue]
    return module.VGGT(embed_dim=WIDTH, enable_track=False, enable_point=False)


def _pi3() -> nn.Module:
    module = importlib.import_module("pi3.models.pi3")
    backbones = importlib.import_module("pi3.models.dinov2.hub.backbones")
    module.dinov2_vitl14_reg = backbones.dinov2_vits14_reg  # pyright: ignore[reportAttributeAccessIssue]
    return module.Pi3(decoder_size="small")


def pi3x_of(facts: dict[str, Any]) -> nn.Module:
    """The official Pi3X without what conditions it, its sizes, which are written into the class, exchanged for these;
    `facts` are named as in the parity oracles."""
    module = importlib.import_module("pi3.models.pi3x")
    width, decoded, metric = facts["embed_dim"], facts["head_out_dim"], facts["metric_embed_dim"]
    outputs = {1024: decoded, 512: facts["camera_dim"]}
    decoder = {"dec_embed_dim": facts["head_embed_dim"], "dec_num_heads": facts["head_num_heads"]}
    of_metric = {"out_dim": metric, "dec_embed_dim": metric, "dec_num_heads": facts["metric_num_heads"]}
    small: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "BlockRope": lambda given: {"dim": width, "num_heads": facts["num_heads"]},
        "TransformerDecoder": lambda given: {
            "in_dim": 2 * width, "out_dim": outputs[given["out_dim"]], "depth": facts["head_depth"], **decoder,
        },
        "ContextOnlyTransformerDecoder": lambda given: {
            "in_dim": 2 * width, "depth": facts["metric_depth"], **of_metric,
        },
        "ConvHead": lambda given: {"dim_in": decoded, "dim_proj": decoded, "dim_upsample": facts["upsampling"]},
        "CameraHead": lambda given: {"dim": facts["camera_dim"]},
    }  # fmt: skip

    def exchanged(make: Callable[..., nn.Module], sizes: Callable[[dict[str, Any]], dict[str, Any]]):
        return lambda **given: make(**{**given, **sizes(given)})

    changes = {name: exchanged(getattr(module, name), sizes) for name, sizes in small.items()}
    changes["dinov2_vitl14_reg"] = lambda **_: _pi3_encoder(facts)
    with mock.patch.dict(vars(module), changes):
        model = module.Pi3X(use_multimodal=False)
    model.decoder = model.decoder[: facts["depth"]]
    model.dec_embed_dim = width
    model.register_token = nn.Parameter(torch.zeros(1, 1, facts["num_register_tokens"], width))
    model.metric_token = nn.Parameter(torch.zeros(1, 1, 2 * width))
    model.metric_head = nn.Linear(metric, 1)
    return model


def _pi3_encoder(facts: dict[str, Any]) -> nn.Module:
    module = importlib.import_module("pi3.models.dinov2.models.vision_transformer")
    sizes = {"img_size": facts["img_size"], "embed_dim": facts["embed_dim"], "depth": facts["encoder_depth"]}
    return module.DinoVisionTransformer(
        **sizes, num_heads=facts["encoder_num_heads"], patch_size=14, init_values=1.0, block_chunks=0,
        num_register_tokens=facts["encoder_num_register_tokens"], interpolate_antialias=True, interpolate_offset=0.0,
        block_fn=partial(module.Block, attn_class=module.MemEffAttention),
    )  # fmt: skip


def _shortened(encoder: nn.Module, name: str) -> nn.Module:
    blocks = getattr(encoder, name)
    setattr(encoder, name, nn.ModuleList(list(blocks)[:DEPTH]))
    return encoder


def _da3() -> nn.Module:
    net, dinov2 = (importlib.import_module(f"depth_anything_3.model.{name}") for name in ("da3", "dinov2.dinov2"))
    head, camera = (importlib.import_module(f"depth_anything_3.model.{name}") for name in ("dualdpt", "cam_dec"))
    backbone = dinov2.DinoV2("vits", [5, 7, 9, 11], alt_start=4, qknorm_start=4, rope_start=4, cat_token=True)
    dpt = head.DualDPT(dim_in=768, output_dim=2, features=64, out_channels=[48, 96, 192, 384])
    model = net.DepthAnything3Net(backbone, dpt)
    model.cam_dec = camera.CameraDec(dim_in=768)
    return model


def _omega() -> nn.Module:
    module = importlib.import_module("vggt_omega.models.vggt_omega")
    inner = importlib.import_module("vggt_omega.models.aggregator")
    build = inner._build_patch_embed
    inner._build_patch_embed = lambda patch_size, embed_dim: _shortened(build(patch_size, embed_dim), "blocks")  # pyright: ignore[reportAttributeAccessIssue]
    module.Aggregator = partial(  # pyright: ignore[reportAttributeAccessIssue]
        module.Aggregator, depth=DEPTH, register_attention_block_indices=[1], cached_layer_indices=tuple(range(DEPTH))
    )
    module.DenseHead = partial(module.DenseHead, **DPT, intermediate_layer_idx=list(range(DEPTH)))  # pyright: ignore[reportAttributeAccessIssue]
    return module.VGGTOmega()


def _encoder(given: VitConfig, blocks: int, heads: int) -> VitConfig:
    return replace(given, blocks=given.blocks[:1] * blocks, heads=heads)


def _our_vggt() -> tuple[ModelConfig, Converter]:
    encoder = _encoder(vggt.VGGT.config.encoder, 12, HEADS)  # type: ignore[arg-type]
    dense = Dpt(DPT["features"], tuple(DPT["out_channels"]), skip_relu=True)
    config = vggt.vggt("vggt", WIDTH, HEADS, DEPTH, tuple(range(DEPTH)), encoder=encoder, dense=dense)
    return replace(config, points=None), vggt.CONVERTER


def _our_pi3() -> tuple[ModelConfig, Converter]:
    return pi3.pi3("pi3", WIDTH, HEADS, 24, encoder=_encoder(pi3.ENCODER, 12, HEADS)), pi3.CONVERTER


def _our_omega() -> tuple[ModelConfig, Converter]:
    encoder = _encoder(omega.OMEGA.config.encoder, DEPTH, 16)  # type: ignore[arg-type]
    dense = Dpt(DPT["features"], tuple(DPT["out_channels"]), ending="shuffle")
    sizes = {"depth": DEPTH, "register_layers": (1,), "taps": tuple(range(DEPTH))}
    return omega.vggt_omega(**sizes, encoder=encoder, dense=dense), omega.CONVERTER


CASES = {
    "vggt": Case("facebookresearch/vggt", ".", _vggt, _our_vggt, lambda out: out["depth"][..., 0]),
    "pi3": Case("yyfz/Pi3", ".", _pi3, _our_pi3, lambda out: out["local_points"][..., 2]),
    "pi3x": Case(
        "yyfz/Pi3", ".", partial(pi3x_of, PI3X), partial(BUILDERS["pi3x"], PI3X),
        lambda out: out["local_points"][..., 2],
    ),
    "da3": Case(
        "ByteDance-Seed/Depth-Anything-3", "src", _da3, lambda: (da3.DA3_SMALL, da3.converter_of(da3.DA3_SMALL)),
        lambda out: out["depth"], takes_normalised=True,
    ),
    "vggt-omega": Case("facebookresearch/vggt-omega", ".", _omega, _our_omega, lambda out: out["depth"][..., 0]),
}  # fmt: skip


def with_random_weights(model: nn.Module) -> nn.Module:
    """Weights under which every part matters: no layer scale of 1e-5, no zero bias."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.named_parameters():
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            tensor.data = noise * 0.7 / max(1, tensor[0].numel()) ** 0.5
        elif name.endswith("bias"):
            tensor.data = 0.02 * noise
        else:
            tensor.data = (0.3 if "gamma" in name else 1.0) + 0.05 * noise
    for name, mask in model.named_buffers():
        if name.endswith("bias_mask"):  # VGGT-Ω: not a number until a file is read, which has ones, and zeros for keys
            mask.fill_(1).unflatten(0, (3, -1))[1] = 0
    return model.eval().requires_grad_(False)


def measured(name: str, case: Case, commit: str, with_times: bool) -> dict[str, Any]:
    """The row of one class."""
    model = with_random_weights(case.build())
    host = host_of(model)
    clips = [clip(frames, host.patch, grid, case) for frames, grid in CLIPS]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.inference_mode():
        dense = [case.depth(model(images)) for images in clips]
        with accelerate(model, ReductionSchedule.off()):
            off = [case.depth(model(images)) for images in clips]
        with accelerate(model, STRONG) as acceleration:
            reduced = [case.depth(model(images)) for images in clips]
            layers = acceleration.num_layers
        undone = [case.depth(model(images)) for images in clips]
        kept = model.state_dict()
        ours = against_ours(case, state, clips[-1], dense[-1], reduced[-1])
        times = timed(model, clip(TIMED[0], host.patch, TIMED[1], case)) if with_times else {}
    return {
        "model": name,
        "code": f"{case.repository}@{commit[:7]}",
        "class": type(model).__name__,
        "global_layers": layers,
        "clips": [frames for frames, _ in CLIPS],
        "off_bit_equal": all(map(torch.equal, off, dense)),
        "on_same_shapes": [x.shape for x in reduced] == [x.shape for x in dense],
        "on_differs_from_dense": not any(map(torch.equal, reduced[1:], dense[1:])),  # one frame has nothing to reduce
        "undone_bit_equal": all(map(torch.equal, undone, dense)),
        "weights_and_keys_unchanged": list(kept) == list(state) and all(torch.equal(kept[k], state[k]) for k in state),
        "gradients_after_inference": gradients_after_inference(model, case, clips[2]),
        "saved_is_official": torch.equal(saved_and_read(model, case, clips[2]), dense[2]),
        "threads_agree": threads_agree(model, case, clips[2:], reduced[2:]),
        **ours,
        **times,
    }


def gradients_after_inference(model: nn.Module, case: Case, images: Tensor) -> bool:
    """Whether the patched model gives gradients after it ran in inference mode, as tables made there are kept."""
    images = images.clone().requires_grad_()
    with accelerate(model, STRONG):
        with torch.inference_mode():
            model(images)
        case.depth(model(images)).mean().backward()
    return images.grad is not None and bool(images.grad.isfinite().all() and images.grad.any())


@torch.inference_mode()
def saved_and_read(model: nn.Module, case: Case, images: Tensor) -> Tensor:
    """What a copy says that `torch.save` wrote while the model was patched."""
    file = io.BytesIO()
    with accelerate(model, STRONG):
        torch.save(model, file)
    file.seek(0)
    return case.depth(torch.load(file, weights_only=False)(images))


def threads_agree(model: nn.Module, case: Case, clips: list[Tensor], expected: list[Tensor]) -> bool:
    """Whether clips of several lengths that run side by side give what each gives alone, but for rounding.

    The fused attention of torch 2.5 and before is not bit for bit the same in every thread.
    """

    def apart(found: Tensor, wanted: Tensor) -> float:
        return float((found - wanted).abs().max() / wanted.abs().max())

    @torch.inference_mode()
    def run(images: Tensor) -> Tensor:
        return case.depth(model(images))

    with accelerate(model, STRONG), ThreadPoolExecutor(len(clips)) as pool:
        return all(max(map(apart, pool.map(run, clips), expected)) < ROUNDING for _ in range(2))


def clip(frames: int, patch: int, grid: tuple[int, int], case: Case) -> Tensor:
    """Images [1, S, 3, H, W]: a few patterns that move, as a camera would see them, with a little noise."""
    generator = torch.Generator().manual_seed(frames)
    height, width = patch * grid[0], patch * grid[1]
    wide = torch.rand(3, height // 7 + 1, (width + 4 * frames) // 7 + 1, generator=generator)
    wide = nn.functional.interpolate(wide[None], scale_factor=7, mode="bilinear")[0]
    images = torch.stack([wide[:, :height, 4 * s : 4 * s + width] for s in range(frames)])
    images = (0.95 * images + 0.05 * torch.rand(images.shape, generator=generator))[None]
    mean, std = IMAGENET[..., None, None]
    return (images - mean) / std if case.takes_normalised else images


def against_ours(
    case: Case, state: dict[str, Tensor], images: Tensor, dense: Tensor, reduced: Tensor
) -> dict[str, Any]:
    """Largest difference of depth between the official code and our own network, over the largest depth."""
    config, converter = case.ours()
    network = Network(config).eval()
    fill(network, converter.translate(copy.copy(state), config), case.repository)
    mean, std = IMAGENET[..., None, None]
    given = images * std + mean if case.takes_normalised else images
    with torch.inference_mode():
        ours, ours_reduced = network(given).depth, network(given, SchedulePlanner(STRONG)).depth
    return {
        "dense_against_ours": float((dense - ours).abs().max() / dense.abs().max()),
        "reduced_against_ours": float((reduced - ours_reduced).abs().max() / reduced.abs().max()),
    }


def timed(model: nn.Module, images: Tensor, repeats: int = 3) -> dict[str, Any]:
    """Milliseconds of all global attention modules together, matching included: medians, taken in turns."""
    spent: dict[str, list[float]] = {"dense": [], "given": []}
    for _ in range(repeats):
        spent["dense"].append(_global_attention_ms(model, images))
        with accelerate(model, STRONG):
            spent["given"].append(_global_attention_ms(model, images))
    dense, given = (median(times) for times in spent.values())
    return {
        "frames": TIMED[0],
        "schedule_given": str(STRONG),
        "global_attention_dense_ms": round(dense, 1),
        "global_attention_given_ms": round(given, 1),
        "speedup_global_attention_given": round(dense / given, 2),
    }


def _global_attention_ms(model: nn.Module, images: Tensor) -> float:
    starts: list[float] = []
    spent: list[float] = []
    hooks = []
    for attention in host_of(model).attentions:
        hooks.append(attention.register_forward_pre_hook(lambda *_: starts.append(time.perf_counter())))
        hooks.append(attention.register_forward_hook(lambda *_: spent.append(time.perf_counter() - starts[-1])))
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return 1000 * sum(spent)


def checkout(given: str) -> tuple[str, str]:
    """NAME=PATH or NAME=PATH@COMMIT, whose code can be imported from here on → name and commit."""
    name, _, place = given.partition("=")
    path, commit = path_and_commit(place)
    sys.path.insert(0, str(Path(path) / CASES[name].source))
    return name, commit


def path_and_commit(place: str) -> tuple[str, str]:
    """PATH or PATH@COMMIT → both."""
    path, _, commit = place.partition("@")
    return path, commit or subprocess.check_output(["git", "-C", path, "rev-parse", "HEAD"], text=True).strip()


def main() -> int:
    """Writes one row per class; 1 if one is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="+", metavar="NAME=PATH[@COMMIT]")
    parser.add_argument("--json", type=Path, help="write machine and rows to this file")
    parser.add_argument("--no-times", action="store_true", help="on a machine that is busy with other work")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for given in arguments.checkouts:
        name, commit = checkout(given)
        row = measured(name, CASES[name], commit, not arguments.no_times)
        print(json.dumps(row, ensure_ascii=False))
        rows.append(row)
    about = {**machine(torch.device("cpu")), "numpy": np.__version__, "command": "python tests/official.py"}
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": about, "rows": rows}, indent=1, ensure_ascii=False) + "\n")
    return int(not all(row[name] for row in rows for name in MUST_HOLD))


if __name__ == "__main__":
    sys.exit(main())
