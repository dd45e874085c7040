"""Finding, reading and writing weights: safetensors, always strict, and the cards that describe each model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from spark3r.errors import CheckpointError
from spark3r.models.config import config_from_json, config_to_json
from spark3r.models.network import Network

WEIGHTS = Path(__file__).resolve().parents[2] / "assets" / "weights"


@dataclass(frozen=True)
class ModelCard:
    """What a person wants to know before choosing a model."""

    name: str
    title: str
    parameters: int
    download_bytes: int  # 0: comes with the package
    code_licence: str
    weights_licence: str
    note: str
    bundled: bool
    suits_cpu: bool


MINI_CARD = ModelCard(
    name="mini",
    title="mini — bundled, small",
    parameters=6_250_411,
    download_bytes=0,
    code_licence="Apache-2.0",
    weights_licence="Apache-2.0",
    note="A small model trained on rendered scenes only; it shows what reduction does, offline on a CPU. "
    "Real footage is the business of the public checkpoints.",
    bundled=True,
    suits_cpu=True,
)

_CARDS = {card.name: card for card in (MINI_CARD,)}


def list_models() -> tuple[ModelCard, ...]:
    """Every model that `load_model` knows by name."""
    return tuple(_CARDS.values())


def load_model(
    name_or_path: str | Path, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> Network:
    """A network ready to run, by name ("mini") or from a file that `save_checkpoint` wrote.

    device: default CUDA if there is one, else the CPU. dtype: of the fast layers; default bfloat16 where the device
    computes in it, else float32. Raises CheckpointError for an unknown name, a missing or unreadable file, or tensors
    that do not fit.
    """
    card = _CARDS.get(str(name_or_path))
    path = WEIGHTS / f"{card.name}.safetensors" if card else Path(name_or_path)
    if not path.is_file():
        raise CheckpointError(
            f"no model {str(name_or_path)!r}: must be one of {', '.join(_CARDS)} or the path of a .safetensors file"
        )
    state, metadata = _read(path)
    if "config" not in metadata:
        raise CheckpointError(f"{path.name} was not written by Spark3R (no config in its metadata): use another file")
    network = Network(config_from_json(metadata["config"]))
    fill(network, state, path.name)
    target = pick_device(device)
    return network.to(target).set_dtype(pick_dtype(dtype, target)).eval().requires_grad_(False)


def save_checkpoint(
    network: Network, path: Path, info: dict[str, str] | None = None, dtype: torch.dtype = torch.float16
) -> None:
    """Writes weights with their own constructor arguments, so that loading needs only the path."""
    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in network.state_dict().items()}
    metadata = {"config": config_to_json(network.config), **(info or {})}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file(state, temporary, metadata)
    temporary.replace(path)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name} is not a readable safetensors file ({error}): use another file") from error


def fill(network: Network, state: dict[str, Tensor], file: str) -> None:
    """Puts tensors in their places; every tensor must have one of its shape, and every place a tensor."""
    wanted = network.state_dict()
    missing, leftover = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    misfits = sorted(name for name in set(wanted) & set(state) if wanted[name].shape != state[name].shape)
    for problem, names in (("missing", missing), ("left over", leftover), ("of another shape", misfits)):
        if names:
            raise CheckpointError(
                f"{file} does not fit {network.config.name}: {len(names)} tensors {problem}, such as {names[0]}; "
                "use the weights of this model"
            )
    network.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=True)


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the best there is."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise CheckpointError(f"device={device!r}: must be 'cpu' or 'cuda', or 'cuda:1' for the second GPU") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise CheckpointError(f"device={str(device)!r}: this machine has no usable CUDA GPU; use 'cpu'")
    return chosen


_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The type asked for, or bfloat16 where the device's matrix units compute in it, else float32."""
    if dtype is None:
        return torch.bfloat16 if _has_fast_bfloat16(device) else torch.float32
    chosen = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen not in _DTYPES.values():
        raise CheckpointError(f"dtype={dtype!r}: must be one of {', '.join(_DTYPES)}")
    if device.type == "cpu" and chosen == torch.float16:
        raise CheckpointError("dtype='float16' is slow and coarse on a CPU: use 'bfloat16' or 'float32'")
    return chosen


def _has_fast_bfloat16(device: torch.device) -> bool:
    """Measured on AVX512-BF16: linear layers 4–5 times faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
