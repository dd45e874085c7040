"""Convolutions of the dense heads in lower precision, on the oracles: what it does to depth, relative to float32.

On a GPU they run in TF32, torch's own default for cuDNN: ten bits of each input, sums in float32. It is imitated here
by rounding every convolution's input and weight. `torch.backends.cudnn.allow_tf32 = False` keeps float32.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from spark3r.models.checkpoints import fill, skeleton
from spark3r.parity.check import read_oracle
from spark3r.parity.sizes import BUILDERS

ORACLES = Path(__file__).parents[1] / "golden" / "parity"
BOUND = 1e-3  # of the depth, on average


def tf32(x: Tensor) -> Tensor:
    """Rounded to ten bits of mantissa."""
    return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def bfloat16(x: Tensor) -> Tensor:
    return x.bfloat16().float()


def depth_error(folder: str, rounded: Callable[[Tensor], Tensor]) -> float:
    """Mean relative difference of depth when inputs and weights of the head's convolutions are rounded."""
    facts, expected, state = read_oracle(next((ORACLES / folder).glob("*.safetensors")))
    config, converter = BUILDERS[str(facts["model"])](facts)
    network = skeleton(config).eval().requires_grad_(False)
    fill(network, converter.translate(state, config), folder)
    images = expected["input.images"]
    size = (images.shape[-2], images.shape[-1])
    with torch.inference_mode():
        encoded = network.encode(images.flatten(0, 1))
        taps = network.aggregate(encoded.patches, network.trunk.layout(images.shape[1], network.grid(*size)))
        exact = network.dense(taps, None, slice(None), *size).depth
        for layer in network.dense_head.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.weight.copy_(rounded(layer.weight))
                layer.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))
        depth = network.dense(taps, None, slice(None), *size).depth
    return float(((depth - exact) / exact).abs().mean())


@pytest.mark.parametrize("folder", ["vggt", "da3", "vggt_omega"])
def test_tf32_convolutions_keep_depth_and_bfloat16_ones_do_not(folder: str):
    assert 0 < depth_error(folder, tf32) < BOUND
    assert depth_error(folder, bfloat16) > BOUND, "if this holds no longer, bfloat16 is the faster choice"
