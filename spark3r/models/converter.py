"""Checkpoint converters: official tensor names become ours, strictly: every tensor finds its place, or is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from spark3r.errors import CheckpointError
from spark3r.models.config import ModelConfig

State = dict[str, Tensor]


@dataclass(frozen=True)
class Rename:
    """The official names that begin with `theirs` begin with `ours` here; "#" stands for a number n, which becomes
    times · n + plus, and the rule holds for the numbers `among` only."""

    theirs: str
    ours: str
    times: int = 1
    plus: int = 0
    among: range | None = None

    def __call__(self, name: str) -> str | None:
        """Our name, or None if the rule is not about this one."""
        match = re.match(re.escape(self.theirs).replace(r"\#", r"(\d+)"), name)
        if match is None:
            return None
        rest = name[match.end() :]
        if not match.groups():
            return self.ours + rest
        number = int(match.group(1))
        if self.among is not None and number not in self.among:
            return None
        return self.ours.replace("#", str(self.times * number + self.plus)) + rest


@dataclass(frozen=True)
class Converter:
    """How a family's official file becomes our tensors.

    rules      names, first match wins
    prefixes   what the file puts in front of every name; the first that occurs is taken off
    ignored    beginnings of names that no output depends on, or that only other tasks need, with the reason
    fold       what is more than a new name: joined tokens, masks, shared tensors
    """

    rules: tuple[Rename, ...]
    prefixes: tuple[str, ...] = ("",)
    ignored: dict[str, str] = field(default_factory=dict)
    fold: Callable[[State], State] = lambda state: state

    def translate(self, state: State, config: ModelConfig) -> State:
        """Our names for the tensors of an official file; raises CheckpointError naming what has no place."""
        state = self._without_prefix(state)
        state = {name: tensor for name, tensor in state.items() if not name.startswith(tuple(self.ignored))}
        try:
            folded = self.fold(state)
        except KeyError as error:
            raise CheckpointError(
                f"{config.name}: the file has no tensor {error.args[0]}: use the official weights of this model"
            ) from error
        renamed: State = {}
        leftover = []
        for name, tensor in folded.items():
            ours = next(filter(None, (rule(name) for rule in self.rules)), None)
            if ours is None:
                leftover.append(name)
            else:
                renamed[ours] = tensor
        if leftover:
            raise CheckpointError(
                f"{config.name}: {len(leftover)} tensors of the file have no place, such as {min(leftover)}: use the "
                "official weights of this model"
            )
        return renamed

    def _without_prefix(self, state: State) -> State:
        for prefix in self.prefixes:
            chosen = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
            if chosen:
                return chosen
        return state


def vit_rules(theirs: str, registers: str | None = "register_tokens", among: range | None = None) -> tuple[Rename, ...]:
    """A DINO vision transformer under the name `theirs` is our encoder; `among`: the blocks that belong to it."""
    named_registers = () if registers is None else (Rename(f"{theirs}.{registers}", "encoder.registers"),)
    return (
        Rename(f"{theirs}.cls_token", "encoder.class_token"),
        *named_registers,
        Rename(f"{theirs}.pos_embed", "encoder.position"),
        Rename(f"{theirs}.patch_embed.proj.", "encoder.embed."),
        Rename(f"{theirs}.blocks.#.", "encoder.blocks.#.", among=among),
    )


def fusion_rules(theirs: str, ours: str, suffix: str = "") -> tuple[Rename, ...]:
    """The fusion blocks `refinenet1` … `refinenet4` of a DPT."""
    parts = {"resConfUnit1": "lateral", "resConfUnit2": "refine", "out_conv": "out"}
    return tuple(
        Rename(f"{theirs}.scratch.refinenet#{suffix}.{their_part}.", f"{ours}.levels.#.{part}.", plus=-1)
        for their_part, part in parts.items()
    )


def dpt_rules(theirs: str, ours: str) -> tuple[Rename, ...]:
    """A DPT head under the name `theirs` is our DptHead `ours`."""
    return (
        Rename(f"{theirs}.norm.", f"{ours}.pyramid.norm."),
        Rename(f"{theirs}.projects.", f"{ours}.pyramid.projects."),
        Rename(f"{theirs}.resize_layers.", f"{ours}.pyramid.resizes."),
        Rename(f"{theirs}.scratch.layer#_rn.", f"{ours}.pyramid.laterals.#.", plus=-1),
        *fusion_rules(theirs, f"{ours}.fusions"),
        Rename(f"{theirs}.scratch.output_conv1.", f"{ours}.ending.narrow."),
        Rename(f"{theirs}.scratch.output_conv2.", f"{ours}.ending.last."),
    )
