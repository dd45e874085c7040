"""Every number of the official networks, at small sizes: e ≤ 2e-5 and r ≤ 1e-5 in float32.

One small oracle per family lies beside the tests. A folder with more is taken from SPARK3R_PARITY, or from
shared/parity beside the checkout.
"""

import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from spark3r.errors import CheckpointError
from spark3r.parity import check, oracles

BUNDLED = Path(__file__).parents[1] / "golden" / "parity"
LARGER = os.environ.get("SPARK3R_PARITY")  # a folder of more oracles, laid out as the bundled ones
FILES = oracles(BUNDLED) + (oracles(Path(LARGER)) if LARGER else [])


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_number_of_the_official_network(path: Path):
    parity = check(path)
    wrong = {name: error for name, error in parity.errors.items() if error[0] > 2e-5 or error[1] > 1e-5}
    assert not wrong
    assert parity.ok
    with safe_open(path, framework="pt") as file:
        wanted = {name for name in file.keys() if name.startswith(("mid.", "out."))}  # noqa: SIM118
    assert set(parity.errors) == wanted


def rewritten(source: Path, target: Path, change: dict[str, torch.Tensor | None]) -> Path:
    with safe_open(source, framework="pt") as file:
        values = {name: file.get_tensor(name) for name in file.keys()} | change  # noqa: SIM118
        metadata = file.metadata()
    save_file({name: value for name, value in values.items() if value is not None}, target, metadata)
    return target


def test_a_weight_that_is_slightly_off_is_seen(tmp_path: Path):
    source = BUNDLED / "vggt" / "tiny_s.safetensors"
    name = "state.aggregator.frame_blocks.0.attn.qkv.bias"
    with safe_open(source, framework="pt") as file:
        value = file.get_tensor(name)
    assert not check(rewritten(source, tmp_path / "off.safetensors", {name: value * 1.01})).ok


def test_a_missing_weight_is_named(tmp_path: Path):
    source = BUNDLED / "pi3" / "tiny_s.safetensors"
    with pytest.raises(CheckpointError, match=r"register_token"):
        check(rewritten(source, tmp_path / "less.safetensors", {"state.register_token": None}))


def test_a_folder_without_oracles_says_so(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"no <model>/\*\.safetensors oracle"):
        oracles(tmp_path)
