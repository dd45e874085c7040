"""Reading and writing weights: always strict, cast tensor by tensor while loading, so that little more memory is needed
than the model itself takes."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from spark3r.errors import CheckpointError, InputError
from spark3r.installation import require
from spark3r.models.config import ModelConfig, config_from_json, config_to_json
from spark3r.models.converter import Converter
from spark3r.models.family import ModelCard
from spark3r.models.fetch import Progress
from spark3r.models.hub import cached, download
from spark3r.models.network import Network
from spark3r.models.registry import ENTRIES, WEIGHTS, list_models, named, recognise
from spark3r.processor import BFLOAT16, extensions

__all__ = [
    "ModelCard",
    "list_models",
    "load_model",
    "load_weights",
    "needs_download",
    "pick_device",
    "pick_dtype",
    "random_model",
    "save_checkpoint",
    "skeleton",
]

# What building a network from arbitrary values raises.
_NO_CONFIG = (
    ValueError, TypeError, KeyError, AttributeError, IndexError, AssertionError, ArithmeticError, RecursionError,
    RuntimeError, MemoryError,
)  # fmt: skip
_BYTES_AT_ONCE = 256 << 20  # of the file mapped into memory while casting
_FILES_OF_A_FOLDER = ("model.safetensors", "model.pt", "vggt_1B_commercial.pt", "vggt_omega_1b_512.pt")


def load_model(
    name_or_path: str | Path,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    *,
    offload: bool = False,
    compile: bool = False,
    progress: Progress | None = None,
    cancel: Callable[[], bool] | None = None,
) -> Network:
    """A network ready to run: by name (see `list_models`), or from a file or folder with official weights, or from a
    file that `save_checkpoint` wrote.

    device: default CUDA if there is one, else the CPU. dtype: of the fast layers; default bfloat16 where the device
    computes in it, else float32. offload: what the heads will read waits in the computer's memory, so that longer clips
    fit on a GPU. compile: elementwise functions are compiled on a CPU before the first run, which is told as the stage
    "compile" (needs a C++ compiler; a GPU has kernels anyway). progress, cancel: of a download, (bytes so far, bytes in
    all). Raises CheckpointError for an unknown name, weights that cannot be fetched or read, or tensors that do not
    fit; InputError for no compiler.
    """
    target = pick_device(device)
    precision = pick_dtype(dtype, target)
    entry = ENTRIES.get(str(name_or_path))
    if compile and target.type == "cpu":
        _check_compiler()
    if entry is not None and entry.converter is not None:
        network = load_weights(download(entry, progress, cancel), entry.config, entry.converter, target, precision)
    else:
        path = WEIGHTS / f"{entry.card.name}.safetensors" if entry else _file_of(Path(name_or_path))
        network = load_weights(path, *_what_it_is(path), target, precision)
    network.offload, network.compiled = offload, compile
    return network


def _check_compiler() -> None:
    if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "cl")):
        raise InputError("--compile needs a C++ compiler, and none was found: install g++ or clang, or leave it out")


def needs_download(name_or_path: str | Path) -> bool:
    """Whether `load_model` would have to fetch these weights first."""
    entry = ENTRIES.get(str(name_or_path))
    if entry is None or entry.converter is None:
        return False
    require(f"Looking for {entry.card.name} on this disk", "huggingface_hub")
    return cached(entry) is None


def load_weights(
    path: Path, config: ModelConfig, converter: Converter | None, device: torch.device, dtype: torch.dtype
) -> Network:
    """The network of a config with the weights of a file, translated by `converter` if the layout is official."""
    network = skeleton(config).set_dtype(dtype)
    wanted = network.state_dict()
    _check(wanted, _translated(path, config, converter), path.name, config.name)
    ready: dict[str, Tensor] = {}
    for names in _batches(wanted):
        state = _translated(path, config, converter)  # mapped anew, so that what was read before leaves memory
        for name in names:
            ready[name] = state[name].to(device=device, dtype=wanted[name].dtype, copy=True).contiguous()
    network.load_state_dict(ready, strict=True, assign=True)
    return network.set_dtype(dtype).eval().requires_grad_(False)  # once more, for the memory format of convolutions


def skeleton(config: ModelConfig) -> Network:
    """A network without memory behind its weights (on torch's "meta" device)."""
    with torch.device("meta"):
        return Network(config)


def random_model(
    name: str, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None, seed: int = 0
) -> Network:
    """A named model with random weights, for measuring speed and memory without a checkpoint."""
    target = pick_device(device)
    network = skeleton(named(name).config).set_dtype(pick_dtype(dtype, target)).to_empty(device=target)
    generator = torch.Generator(target).manual_seed(seed)
    for tensor_name, tensor in network.state_dict().items():
        if tensor.ndim <= 1:
            scale = "gamma" in tensor_name or "norm" in tensor_name or "periods" in tensor_name
            tensor.fill_(1.0 if scale and not tensor_name.endswith("bias") else 0.0)
        elif tensor_name.endswith("normalise.std"):
            tensor.fill_(0.25)
        else:
            tensor.normal_(0.0, 0.7 / tensor[0].numel() ** 0.5, generator=generator)
    return network.eval().requires_grad_(False)


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


def fill(network: Network, state: dict[str, Tensor], file: str) -> None:
    """Puts float32 tensors in their places; every tensor must have one of its shape, and every place a tensor."""
    _check(network.state_dict(), state, file, network.config.name)
    network.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=True, assign=True)


def _file_of(path: Path) -> Path:
    """The weights a path means: itself, or the official file in that folder."""
    if path.is_dir():
        found = [path / name for name in _FILES_OF_A_FOLDER if (path / name).is_file()]
        found = found or sorted(path.glob("*.safetensors"))
        if not found:
            raise CheckpointError(f"{path} holds no {', '.join(_FILES_OF_A_FOLDER[:-1])} or {_FILES_OF_A_FOLDER[-1]}")
        return found[0]
    if not path.is_file():
        raise CheckpointError(
            f"no model {str(path)!r}: must be one of {', '.join(ENTRIES)}, or the path of a file or folder of weights"
        )
    return path


def _what_it_is(path: Path) -> tuple[ModelConfig, Converter | None]:
    """The config of a file: written in it by us, or told from the names of its tensors."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: install Spark3R anew, or choose another model")
    state, metadata = _read(path)
    if "config" in metadata:
        return _config_of(metadata["config"], path.name), None
    entry = recognise({name: tuple(tensor.shape) for name, tensor in state.items()})
    if entry is None:
        raise CheckpointError(
            f"{path.name} holds the weights of no model that Spark3R knows: use the official file of VGGT, π³, Pi3X, "
            "Depth Anything 3 or VGGT-Ω, or one that Spark3R wrote"
        )
    return entry.config, entry.converter


def _config_of(text: str, file: str) -> ModelConfig:
    """The config that a file tells of itself; raises CheckpointError where no network can be built by it."""
    try:
        config = config_from_json(text)
        skeleton(config)
    except _NO_CONFIG as error:
        raise CheckpointError(f"{file} describes no model that can be built: use a file that Spark3R wrote") from error
    return config


def _translated(path: Path, config: ModelConfig, converter: Converter | None) -> dict[str, Tensor]:
    state, _ = _read(path)
    return state if converter is None else converter.translate(state, config)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A file's tensors, mapped rather than read, and its metadata; safetensors or a torch pickle of plain tensors."""
    try:
        if zipfile.is_zipfile(path):
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
                raise CheckpointError(f"{path.name} is not a plain table of tensors: use the official file")
            return state, {}
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        if isinstance(error, CheckpointError):
            raise
        reason = str(error).splitlines()[0].rstrip(".:") if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path.name} is damaged, incomplete or no file of weights ({reason}): delete {path} and fetch it again"
        ) from error


def _check(wanted: dict[str, Tensor], state: dict[str, Tensor], file: str, model: str) -> None:
    """Every tensor must have a place of its shape, and every place a tensor."""
    missing, leftover = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    misfits = sorted(name for name in set(wanted) & set(state) if wanted[name].shape != state[name].shape)
    for problem, names in (("missing", missing), ("left over", leftover), ("of another shape", misfits)):
        if names:
            raise CheckpointError(
                f"{file} does not fit {model}: {len(names)} tensors {problem}, such as {names[0]}; "
                "use the weights of this model"
            )


def _batches(tensors: dict[str, Tensor]) -> Iterator[list[str]]:
    """Names in groups that take a bounded part of a float32 file."""
    batch, size = [], 0
    for name, tensor in tensors.items():
        batch.append(name)
        size += 4 * tensor.numel()
        if size > _BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
    yield batch


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the best there is."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise CheckpointError(f"device={device!r}: must be 'cpu' or 'cuda', or 'cuda:1' for the second GPU") from error
    if chosen.type not in ("cpu", "cuda"):
        raise CheckpointError(f"device={str(device)!r}: Spark3R runs on 'cpu' and 'cuda' only")
    if chosen.type == "cuda":
        _check_gpu(chosen)
    return chosen


def _check_gpu(device: torch.device) -> None:
    if not torch.cuda.is_available():
        raise CheckpointError(f"device={str(device)!r}: this machine has no usable CUDA GPU; use 'cpu'")
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise CheckpointError(f"device={str(device)!r}: this machine has {count} CUDA GPU(s); use 'cuda:{count - 1}'")


_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The type asked for, or bfloat16 where the device's matrix units compute in it, else float32."""
    if dtype is None:
        return torch.bfloat16 if _has_fast_bfloat16(device) else torch.float32
    chosen = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen is None or chosen not in _DTYPES.values():
        raise CheckpointError(f"dtype={dtype!r}: must be one of {', '.join(_DTYPES)}")
    if device.type == "cpu" and chosen == torch.float16:
        raise CheckpointError("dtype='float16' is slow and coarse on a CPU: use 'bfloat16' or 'float32'")
    return chosen


def _has_fast_bfloat16(device: torch.device) -> bool:
    """Measured on AVX512-BF16: linear layers 4–5 times faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return not extensions().isdisjoint(BFLOAT16)
