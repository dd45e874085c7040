"""Every model that has a name: what a person should know of it, what it is built as, where its weights come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spark3r.errors import CheckpointError
from spark3r.installation import assets
from spark3r.models.config import ModelConfig
from spark3r.models.converter import Converter
from spark3r.models.families.da3 import DA3_BASE, DA3_GIANT, DA3_LARGE, DA3_SMALL, da3_door
from spark3r.models.families.mini import MINI_CONFIG
from spark3r.models.families.omega import OMEGA_DOOR, vggt_omega
from spark3r.models.families.pi3 import PI3_DOOR, pi3
from spark3r.models.families.vggt import VGGT_DOOR, vggt

WEIGHTS = assets("weights")


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

    @property
    def is_non_commercial(self) -> bool:
        """Whether the weights may not be used commercially."""
        return "non-commercial" in self.weights_licence.casefold()

    @property
    def is_step_up(self) -> bool:
        """Whether it is what to take on a CPU where the bundled model will not do."""
        return self.suits_cpu and not self.bundled


@dataclass(frozen=True)
class Source:
    """A file of a repository on the Hugging Face hub."""

    repository: str
    file: str
    gated: bool = False  # its licence must be accepted on the hub first

    @property
    def page(self) -> str:
        return f"https://huggingface.co/{self.repository}"

    @property
    def folder(self) -> str:
        """Of the repository in the hub's cache."""
        return f"models--{self.repository.replace('/', '--')}"


@dataclass(frozen=True)
class Entry:
    """A named model. Sources are tried in order; the next one only where the hub does not have a file."""

    card: ModelCard
    config: ModelConfig
    converter: Converter | None = None  # None: our own layout
    sources: tuple[Source, ...] = ()


_META = "VGGT License v1 (Meta)"
_NON_COMMERCIAL = "CC BY-NC 4.0 — non-commercial use only"
_STEP_UP = "The recommended step up from mini for real footage on a CPU; begin with about 30 frames there."

_MINI = Entry(
    ModelCard(
        name="mini",
        title="mini — bundled, small",
        parameters=6_258_665,
        download_bytes=0,
        code_licence="Apache-2.0",
        weights_licence="Apache-2.0",
        note="Trained on rendered scenes only: it shows what reduction does, offline on a CPU. "
        "For real footage take a public model.",
        bundled=True,
        suits_cpu=True,
    ),
    MINI_CONFIG,
)


def _public(
    config: ModelConfig,
    converter: Converter,
    sources: tuple[Source, ...],
    title: str,
    parameters: int,
    licences: tuple[str, str],  # of code, of weights
    note: str,
    suits_cpu: bool = False,
) -> Entry:
    code, weights = licences
    card = ModelCard(config.name, title, parameters, 4 * parameters, code, weights, note, False, suits_cpu)
    return Entry(card, config, converter, sources)


def _da3(config: ModelConfig, repository: str, title: str, parameters: int, weights_licence: str, note: str) -> Entry:
    return _public(
        config,
        da3_door(config),
        (Source(f"depth-anything/{repository}", "model.safetensors"),),
        title,
        parameters,
        ("Apache-2.0", weights_licence),
        note,
        suits_cpu=weights_licence == "Apache-2.0",
    )


_ENTRIES = (
    _MINI,
    _da3(DA3_SMALL, "DA3-SMALL", "Depth Anything 3 Small", 34_299_463, "Apache-2.0", _STEP_UP),
    _da3(DA3_BASE, "DA3-BASE", "Depth Anything 3 Base", 135_366_599, "Apache-2.0", f"{_STEP_UP} Slower than Small."),
    _da3(DA3_LARGE, "DA3-LARGE-1.1", "Depth Anything 3 Large", 410_941_767, _NON_COMMERCIAL, "Wants a GPU."),
    _da3(DA3_GIANT, "DA3-GIANT-1.1", "Depth Anything 3 Giant", 1_355_674_125, _NON_COMMERCIAL, "Wants a GPU."),
    _public(
        vggt(),
        VGGT_DOOR,
        (Source("facebook/VGGT-1B", "model.safetensors"), Source("facebook/VGGT-1B", "model.pt")),
        "VGGT 1B",
        1_256_537_516,
        (_META, "Non-commercial use only (CC BY-NC 4.0)"),
        "Wants a GPU.",
    ),
    _public(
        vggt("vggt-commercial"),
        VGGT_DOOR,
        (Source("facebook/VGGT-1B-Commercial", "vggt_1B_commercial.pt", gated=True),),
        "VGGT 1B Commercial",
        1_256_537_516,
        (_META, f"{_META}: commercial use allowed, military use not; access on request"),
        "Wants a GPU. Gated: accept the licence on the hub first.",
    ),
    _public(
        pi3(),
        PI3_DOOR,
        (Source("yyfz233/Pi3", "model.safetensors"),),
        "π³",
        958_696_732,
        ("BSD 3-Clause", _NON_COMMERCIAL),
        "No reference frame: the order of frames does not matter. Wants a GPU.",
    ),
    _public(
        vggt_omega(),
        OMEGA_DOOR,
        (Source("facebook/VGGT-Omega", "vggt_omega_1b_512.pt", gated=True),),
        "VGGT-Ω 1B",
        1_143_814_185,
        ("FAIR Noncommercial Research License v1", "FAIR Noncommercial Research License v1 — non-commercial research"),
        "Wants a GPU. Gated: ask for access on the hub first.",
    ),
)

ENTRIES: dict[str, Entry] = {entry.card.name: entry for entry in _ENTRIES}


def named(name: str) -> Entry:
    """The entry of that name; raises CheckpointError listing the names there are."""
    if name not in ENTRIES:
        raise CheckpointError(f"no model {name!r}: must be one of {', '.join(ENTRIES)}")
    return ENTRIES[name]


def list_models() -> tuple[ModelCard, ...]:
    """Every model that `load_model` knows by name; those that suit a CPU first."""
    return tuple(entry.card for entry in _ENTRIES)


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> Entry | None:
    """The model whose official file has tensors of these names and shapes, or None."""
    names = tuple(shapes)
    if any("aggregator.inter_frame_blocks." in name for name in names):
        return ENTRIES["vggt-omega"]
    if any("aggregator.global_blocks." in name for name in names):
        return ENTRIES["vggt"]
    if "register_token" in shapes and any(name.startswith("decoder.") for name in names):
        return ENTRIES["pi3"]
    width = next((shape[-1] for name, shape in shapes.items() if name.endswith("pretrained.camera_token")), None)
    by_width = {entry.config.width: entry for entry in _ENTRIES if entry.card.name.startswith("da3-")}
    return by_width.get(width) if width is not None else None
