"""Do our families say what the official networks say? Oracle files hold weights, inputs and every number to match.

An oracle is a safetensors file with `state.*` (weights under official names), `input.*`, `mid.*`, `out.*`, and a JSON
`config` in its metadata. Tolerances are those of float32 rounding.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from spark3r.errors import CheckpointError
from spark3r.models.checkpoints import fill, skeleton
from spark3r.parity.predictions import Values, predictions_of
from spark3r.parity.sizes import BUILDERS, Facts

LARGEST_ERROR = 2e-5  # of the largest value
LARGEST_RMS_ERROR = 1e-5  # of the root mean square


@dataclass(frozen=True)
class Parity:
    """How near one oracle file is reproduced."""

    model: str
    file: str
    errors: dict[str, tuple[float, float]]  # name → (e, r)

    @property
    def worst_e(self) -> float:
        """Largest max|x − ref| / max|ref| of all tensors."""
        return max(e for e, _ in self.errors.values())

    @property
    def worst_r(self) -> float:
        """Largest rms(x − ref) / rms(ref) of all tensors."""
        return max(r for _, r in self.errors.values())

    @property
    def ok(self) -> bool:
        """Whether both stay within the tolerance."""
        return self.worst_e <= LARGEST_ERROR and self.worst_r <= LARGEST_RMS_ERROR

    def to_json(self) -> dict[str, Any]:
        """One row of `python -m spark3r models --check DIR`."""
        return {
            "model": self.model, "file": self.file, "worst_e": self.worst_e, "worst_r": self.worst_r, "ok": self.ok,
        }  # fmt: skip


def oracles(folder: Path) -> list[Path]:
    """Every oracle file of a folder: FOLDER/<model>/*.safetensors and FOLDER/<model>.safetensors, sorted."""
    found = sorted(path for pattern in ("*.safetensors", "*/*.safetensors") for path in Path(folder).glob(pattern))
    if not found:
        raise CheckpointError(f"{folder}: holds no <model>/*.safetensors oracle file; name the folder that does")
    return found


def check(path: Path) -> Parity:
    """Runs one oracle file in float32 on the CPU and compares every number."""
    facts, expected, state = read_oracle(path)
    family = str(facts["model"])
    if family not in BUILDERS:
        raise CheckpointError(f"{path.name}: model {family!r} is not one of {', '.join(BUILDERS)}")
    config, converter = BUILDERS[family](facts)
    network = skeleton(config).eval().requires_grad_(False)
    fill(network, converter.translate(state, config), path.name)
    with torch.inference_mode():
        predictions = predictions_of(network, family, expected)
    named = {name: value for name, value in expected.items() if name.startswith(("mid.", "out."))}
    missing = sorted(set(named) - set(predictions))
    if missing:
        raise CheckpointError(f"{path.name}: no prediction for {', '.join(missing)}")
    return Parity(family, path.name, {name: _error(name, predictions[name], value) for name, value in named.items()})


def read_oracle(path: Path) -> tuple[Facts, Values, Values]:
    """Hyper-parameters, expected values and inputs, weights."""
    try:
        with safe_open(path, framework="pt") as file:
            values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            facts = json.loads((file.metadata() or {})["config"])
    except (SafetensorError, OSError, KeyError) as error:
        raise CheckpointError(f"{path.name} is not an oracle file ({error}): use one with a config") from error
    state = {name.removeprefix("state."): value for name, value in values.items() if name.startswith("state.")}
    return facts, {name: value for name, value in values.items() if not name.startswith("state.")}, state


def _error(name: str, ours: Tensor, reference: Tensor) -> tuple[float, float]:
    """(largest, rms) difference relative to the reference's; intrinsics element by element, as focal lengths differ by
    orders of magnitude; indices must be equal."""
    if ours.shape != reference.shape:
        raise CheckpointError(f"{name}: {list(ours.shape)} where {list(reference.shape)} is expected")
    ours, reference = ours.double(), reference.double()
    difference = ours - reference
    if name.endswith("ref_index"):
        return (0.0, 0.0) if not difference.any() else (1.0, 1.0)
    if name.endswith("intrinsics"):
        relative = (difference / reference.abs().clamp_min(1e-30))[reference != 0].abs()
        return relative.max().item(), relative.square().mean().sqrt().item()
    largest, rms = reference.abs().max().item(), reference.square().mean().sqrt().item()
    return difference.abs().max().item() / largest, difference.square().mean().sqrt().item() / rms
