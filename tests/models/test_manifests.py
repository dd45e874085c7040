"""The full-size networks take exactly the tensors of the released files: names and shapes, on the meta device."""

import gzip
import json
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch

from spark3r.errors import CheckpointError
from spark3r.models.checkpoints import skeleton
from spark3r.models.converter import Converter
from spark3r.models.registry import ENTRIES, recognise

GOLDEN = Path(__file__).parents[1] / "golden" / "parity"
MANIFESTS = {
    "vggt": ("vggt/manifest.json.gz",),
    "vggt-commercial": ("vggt/manifest.json.gz",),
    "pi3": ("pi3/manifest.json.gz",),
    "pi3x": ("pi3x/manifest.json.gz",),
    "vggt-omega": ("vggt_omega/manifest.json.gz", "vggt_omega/manifest_text.json.gz"),
    "da3-small": ("da3/manifest_small.json.gz",),
    "da3-base": ("da3/manifest_base.json.gz",),
    "da3-large": ("da3/manifest_large.json.gz",),
    "da3-giant": ("da3/manifest_giant.json.gz",),
}
CASES = [(name, GOLDEN / file) for name, files in MANIFESTS.items() for file in files]


def official(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """A manifest and its tensors, under the names of the released file, without memory behind them."""
    manifest = json.loads(gzip.decompress(path.read_bytes()))
    prefix, absent = manifest.get("checkpoint_key_prefix", ""), set(manifest.get("absent_from_official_file", ()))
    with torch.device("meta"):
        keys = {name: shape for name, (shape, _) in manifest["keys"].items() if name not in absent}
        state = {prefix + name: torch.empty(shape) for name, shape in keys.items()}
    return manifest, state


def converter(name: str) -> Converter:
    found = ENTRIES[name].converter
    assert found is not None
    return found


@pytest.mark.parametrize(("name", "path"), CASES, ids=lambda value: getattr(value, "stem", value))
def test_every_tensor_of_the_released_file_has_its_place(name: str, path: Path):
    manifest, state = official(path)
    config = ENTRIES[name].config
    wanted = skeleton(config).state_dict()
    given = converter(name).translate(state, config)
    assert {name: tensor.shape for name, tensor in given.items()} == {n: t.shape for n, t in wanted.items()}
    found = recognise({name: tuple(tensor.shape) for name, tensor in state.items()})
    assert found is not None
    assert found.config.width == config.width
    assert found.config.blocks == config.blocks
    assert found.config.dense == config.dense
    if path.name != "manifest_text.json.gz":
        assert manifest["num_parameters"] == ENTRIES[name].card.parameters
        buffers = {*manifest.get("buffers_in_state_dict", ())}
        counted = sum(prod(shape) for key, (shape, _) in manifest["keys"].items() if key not in buffers)
        assert counted >= ENTRIES[name].card.parameters


@pytest.mark.parametrize("name", ["vggt", "pi3", "pi3x", "vggt-omega", "da3-small"])
def test_a_tensor_too_many_or_too_few_is_named(name: str):
    _, state = official(GOLDEN / MANIFESTS[name][0])
    stray = "model.surprise.weight" if name.startswith("da3") else "surprise.weight"
    with pytest.raises(CheckpointError, match=rf"{name}: 1 tensors .* no place, such as surprise\.weight"):
        converter(name).translate({**state, stray: torch.empty(1)}, ENTRIES[name].config)
    wanted = skeleton(ENTRIES[name].config).state_dict()
    few = {key: value for key, value in state.items() if not key.endswith("blocks.2.mlp.fc1.bias")}
    given = converter(name).translate(few, ENTRIES[name].config)
    assert set(wanted) - set(given)


def test_the_released_files_of_a_nested_model_are_taken_too():
    _, state = official(GOLDEN / "da3" / "manifest_large.json.gz")
    nested = {name.replace("model.", "model.da3.", 1): tensor for name, tensor in state.items()}
    nested["model.da3_metric.head.bias"] = torch.empty(1)
    config = ENTRIES["da3-large"].config
    assert set(converter("da3-large").translate(nested, config)) == set(skeleton(config).state_dict())
