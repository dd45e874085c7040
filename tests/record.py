"""Records the parity oracle of Pi3X from the official code: `python -m tests.record PATH [--into FOLDER]`.

PATH is a checkout of github.com/yyfz/Pi3, which is imported from there and stays as it is; its commit is read from git,
or given as PATH@COMMIT. Written are FOLDER/pi3x/tiny_s.safetensors, a network of small sizes with random weights and
what it says of random images (float32, CPU, one thread), and FOLDER/pi3x/manifest.json.gz, the names and shapes of the
released file.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tests.official import checkout, pi3x_of, with_random_weights

FACTS: dict[str, Any] = {
    "model": "pi3x", "patch_size": 14, "img_size": 70, "embed_dim": 24, "mlp_ratio": 4, "encoder_depth": 2,
    "encoder_num_heads": 3, "encoder_num_register_tokens": 4, "depth": 4, "num_heads": 2, "num_register_tokens": 5,
    "head_embed_dim": 32, "head_num_heads": 2, "head_depth": 2, "head_out_dim": 24, "camera_dim": 12,
    "upsampling": [32, 16, 16], "metric_embed_dim": 32, "metric_num_heads": 4, "metric_depth": 2,
    "small_stream": 0.02, "seed": 0, "batch": 2, "frames": 2, "grid": [3, 2],
}  # fmt: skip
FULL: dict[str, Any] = {
    "img_size": 518, "embed_dim": 1024, "encoder_depth": 24, "encoder_num_heads": 16, "depth": 36, "num_heads": 16,
    "head_embed_dim": 1024, "head_num_heads": 16, "head_depth": 5, "head_out_dim": 1024, "camera_dim": 512,
    "upsampling": [256, 128, 64], "metric_embed_dim": 512, "metric_num_heads": 8, "metric_depth": 5,
}  # fmt: skip
CONDITIONING = ("depth_encoder.", "depth_emb", "ray_embed.", "pose_inject_blk.")  # used where more than images is given

SEEN = {  # name → (module, whether its input; else its output)
    "mid.tokens_in": ("decoder.0", True),
    "mid.frame0": ("decoder.0", False),
    "mid.global0": ("decoder.1", False),
    "mid.last": ("decoder.3", False),
    "mid.encoder_block0": ("encoder.blocks.0", False),
    "mid.point_decoder": ("point_decoder", False),
    "mid.conf_decoder": ("conf_decoder", False),
    "mid.camera_decoder": ("camera_decoder", False),
    "mid.camera_t": ("camera_head.fc_t", False),
    "mid.camera_rot9": ("camera_head.fc_rot", False),
    "mid.point_maps": ("point_head.upsample_blocks.2.2", False),
    "mid.metric_decoder": ("metric_decoder", False),
}


def oracle(commit: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of the oracle and its metadata."""
    torch.manual_seed(FACTS["seed"])
    model = with_small_stream(with_random_weights(pi3x_of(FACTS)))
    height, width = (FACTS["patch_size"] * side for side in FACTS["grid"])
    images = torch.rand(FACTS["batch"], FACTS["frames"], 3, height, width)
    values: dict[str, Tensor] = {}

    with torch.inference_mode(), ExitStack() as hooks:
        for name, (path, is_input) in SEEN.items():
            hooks.callback(_watched(model.get_submodule(path), name, is_input, values).remove)
        out = model(images)
        encoder = model.get_submodule("encoder")
        normalised = (images - model.get_buffer("image_mean")) / model.get_buffer("image_std")
        values["mid.encoder"] = encoder(normalised.flatten(0, 1), is_training=True)["x_norm_patchtokens"]
    values["mid.metric_decoder"] = values["mid.metric_decoder"][:, 0]  # of the one token
    values |= {f"out.{name}": value for name, value in out.items()} | {"input.images": images}
    values |= {f"state.{name}": value for name, value in model.state_dict().items()}
    facts = {**FACTS, "height": height, "width": width, "upstream": f"yyfz/Pi3 @ {commit}"}
    return {name: value.contiguous().clone() for name, value in values.items()}, {"config": json.dumps(facts)}


def _watched(module: nn.Module, name: str, is_input: bool, values: dict[str, Tensor]) -> RemovableHandle:
    """Puts a copy of what the module is given, or says, into `values`."""
    if is_input:
        return module.register_forward_pre_hook(lambda _, given: values.update({name: given[0].clone()}))
    return module.register_forward_hook(lambda _, given, out: values.update({name: out.clone()}))


def with_small_stream(model: nn.Module) -> nn.Module:
    """Weights in front of norms so small that the epsilons of the norms show in the numbers."""
    before_norms = ("patch_embed", "pos_embed", "cls_token", "register_token", "projects")
    for name, tensor in model.named_parameters():
        if any(part in name for part in before_norms):
            tensor.data *= FACTS["small_stream"]
        if name.startswith("decoder.") and ".attn.qkv." in name:  # queries and keys are normalised, values are not
            tensor.data[: 2 * len(tensor) // 3] *= FACTS["small_stream"]
    return model


def manifest(commit: str) -> dict[str, Any]:
    """Names and shapes of the full-size class, which the released file has."""
    module = importlib.import_module("pi3.models.pi3x")
    on_cpu = partial(torch.linspace, device="cpu")  # numbers are read from it
    with torch.device("meta"), mock.patch.object(torch, "linspace", on_cpu):
        model = module.Pi3X()
    return {
        "config": {**{name: FACTS[name] for name in FACTS if "_" in name and name != "small_stream"}, **FULL},
        "model": "Pi3X",
        "upstream": f"yyfz/Pi3 @ {commit}",
        "checkpoints": [{"hf_repo": "yyfz233/Pi3X", "files": ["model.safetensors"]}],
        "checkpoint_key_prefix": "",
        "ignored_prefixes": CONDITIONING,
        "license_code": "BSD 3-Clause (LICENSE)",
        "license_weights": "CC BY-NC 4.0 (README)",
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "num_keys": len(model.state_dict()),
        "buffers_in_state_dict": ["image_mean", "image_std"],
        "keys": {name: [list(value.shape), "float32"] for name, value in model.state_dict().items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", metavar="PATH[@COMMIT]")
    parser.add_argument("--into", type=Path, default=Path(__file__).parent / "golden" / "parity")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    _, commit = checkout(f"pi3x={arguments.checkout}")
    folder = arguments.into / "pi3x"
    folder.mkdir(parents=True, exist_ok=True)
    values, metadata = oracle(commit)
    save_file(values, folder / "tiny_s.safetensors", metadata)
    text = json.dumps(manifest(commit)).encode()
    (folder / "manifest.json.gz").write_bytes(gzip.compress(text, mtime=0))


if __name__ == "__main__":
    main()
