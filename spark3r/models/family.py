"""What a model family is made of; each family fills this in, in one file under `families/`.

A family is its sizes (ModelConfig, with the rule by which images are resized), the conversion of its checkpoints, the
cards of its named models, how its files are recognised, and where the plug-in finds its parts in the official classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from torch import nn

from spark3r.errors import InputError
from spark3r.models.config import ModelConfig
from spark3r.models.converter import Converter

NON_COMMERCIAL = "CC BY-NC 4.0 — non-commercial use only"
Shapes = Mapping[str, tuple[int, ...]]  # of the tensors of a file, by name


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
        """Where a person can read about the file."""
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


def public(
    config: ModelConfig,
    converter: Converter,
    sources: tuple[Source, ...],
    title: str,
    parameters: int,
    licences: tuple[str, str],  # of code, of weights
    note: str,
    suits_cpu: bool = False,
) -> Entry:
    """A model whose weights (float32) lie on the hub."""
    code, weights = licences
    card = ModelCard(config.name, title, parameters, 4 * parameters, code, weights, note, False, suits_cpu)
    return Entry(card, config, converter, sources)


@dataclass(frozen=True)
class Host:
    """Where an instance of an official class keeps what the method needs."""

    family: str
    entry: nn.Module  # the part whose call receives the clip, [B, S, 3, H, W], as its first argument
    attentions: tuple[nn.Module, ...]  # of the global layers, in order
    special: int  # tokens in front of every frame's patches
    patch: int  # pixels
    sensitive_layers: tuple[int, ...] | None  # as the paper found them; None: not known, treat all so


Finder = Callable[[nn.Module], Host]


def part(model: nn.Module, path: str) -> Any:
    """A part of an official model; raises InputError where the class lacks it."""
    try:
        return attrgetter(path)(model)
    except AttributeError as error:
        raise InputError(
            f"this {type(model).__name__} has no {path}, which the official class has: use the official code"
        ) from error


def probed(config: ModelConfig, num_layers: int) -> tuple[int, ...] | None:
    """The layers found sensitive in the released model; None for a model of another depth, where they mean nothing."""
    return config.sensitive_layers if num_layers == len(config.global_blocks) else None


@dataclass(frozen=True)
class Family:
    """One architecture with its named models."""

    entries: tuple[Entry, ...]
    recognise: Callable[[Shapes], Entry | None] = lambda shapes: None  # the model whose official file has these tensors
    hosts: Mapping[str, Finder] = field(default_factory=dict)  # by the name of the official class
