"""The one dial: how strongly each global layer reduces its queries and its keys/values.

Bounds, defaults and validation live only here; page, command line, benchmark and plug-in all show this object.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from spark3r.errors import InputError
from spark3r.tokens import TokenLayout

QUERY_FACTOR_BOUNDS = (1, 64)
KV_FACTOR_BOUNDS = (1, 1024)
GROUP_SIZE_BOUNDS = (1, 100)
KV_BOOST_BOUNDS = (1, 16)

Policy = Literal["spark3r", "uniform"]

_LONGEST_FILE = 10_000  # characters; a schedule has a few hundred
_CONTEXT_FRAMES = 40  # the automatic schedule keeps about this many frames' worth of keys/values
_AUTO_QUERY_FACTOR = ((100, 1), (300, 2), (500, 3))  # (up to this many frames, query factor); 4 beyond


class LayerFactors(NamedTuple):
    """The factors of one layer: every query_factor-th and every kv_factor-th frame keeps its patches."""

    query_factor: int
    kv_factor: int


@dataclass(frozen=True)
class ReductionSchedule:
    """Factors for every global layer (the paper on asymmetric, layer-adaptive and length-adaptive reduction).

    query_factor     1 (off) … 64: tokens of this many neighbouring frames share one query; beyond ~12 quality falls
    kv_factor        1 (off) … 1024: one frame in this many keeps its patches as keys/values in sensitive layers
    group_size       frames among which queries are merged; the paper's 20 covers practically every good match
    kv_boost         insensitive layers prune this many times harder
    sensitive_layers global layers (0-based count of global layers) that use kv_factor as it is; None: all of them
    policy           "spark3r", or "uniform": query_factor on both sides, by merging, as earlier accelerators do

    >>> str(ReductionSchedule(query_factor=2, kv_factor=8, sensitive_layers=(2, 3)))
    'queries 2→1, keys/values 8→1 in layers 2–3 and 24→1 elsewhere'
    """

    query_factor: int = 1
    kv_factor: int = 1
    group_size: int = 20
    kv_boost: int = 3
    sensitive_layers: tuple[int, ...] | None = None
    policy: Policy = "spark3r"

    def __post_init__(self) -> None:
        _check("query_factor", self.query_factor, QUERY_FACTOR_BOUNDS, "4 lets four frames share one query")
        _check("kv_factor", self.kv_factor, KV_FACTOR_BOUNDS, "8 keeps the patches of one frame in eight")
        _check("group_size", self.group_size, GROUP_SIZE_BOUNDS, "20 frames is the paper's choice")
        _check("kv_boost", self.kv_boost, KV_BOOST_BOUNDS, "3 is the paper's choice")
        if self.policy not in ("spark3r", "uniform"):
            raise InputError(f"policy={self.policy!r}: must be 'spark3r' or 'uniform'")
        if self.sensitive_layers is not None:
            if any(type(layer) is not int or layer < 0 for layer in self.sensitive_layers):
                raise InputError(f"sensitive_layers={self.sensitive_layers!r}: must be layer numbers, 0 or more")
            object.__setattr__(self, "sensitive_layers", tuple(sorted(set(self.sensitive_layers))))

    @classmethod
    def off(cls) -> ReductionSchedule:
        """No reduction: bit-equal to dense attention."""
        return cls(sensitive_layers=None)

    @classmethod
    def auto(cls, num_frames: int, sensitive_layers: Sequence[int] | None = None) -> ReductionSchedule:
        """The paper's length-adaptive factors: about 40 frames of keys/values remain at any length."""
        query_factor = next((factor for limit, factor in _AUTO_QUERY_FACTOR if num_frames <= limit), 4)
        kv_factor = 1 if num_frames <= 100 else math.ceil(num_frames / _CONTEXT_FRAMES)
        layers = None if sensitive_layers is None else tuple(sensitive_layers)
        return cls(query_factor, min(kv_factor, KV_FACTOR_BOUNDS[1]), sensitive_layers=layers)

    @property
    def is_off(self) -> bool:
        """Whether every layer stays dense."""
        boosted = self.sensitive_layers is not None and self.kv_boost > 1 and self.policy == "spark3r"
        kv_factor = self.kv_factor if self.policy == "spark3r" else 1
        return self.query_factor == 1 and kv_factor == 1 and not boosted

    def at(self, layer: int) -> LayerFactors:
        """The factors of global layer number `layer` (0-based count of global layers)."""
        if self.policy == "uniform":
            return LayerFactors(self.query_factor, self.query_factor)
        sensitive = self.sensitive_layers is None or layer in self.sensitive_layers
        return LayerFactors(self.query_factor, self.kv_factor if sensitive else self.kv_factor * self.kv_boost)

    def token_counts(self, layout: TokenLayout, layer: int = 0) -> tuple[int, int]:
        """(queries, keys/values) that attend in one layer of a clip of this layout."""
        level = self.at(layer)
        full, rest = divmod(layout.frames, self.group_size)
        query_frames = full * math.ceil(self.group_size / level.query_factor) + math.ceil(rest / level.query_factor)
        queries = layout.tokens_keeping_patches_of(query_frames)
        if self.policy == "uniform":
            return queries, queries
        kept = math.ceil(layout.frames / level.kv_factor) + (layout.reference % level.kv_factor != 0)
        return queries, layout.tokens_keeping_patches_of(kept)

    def with_(self, **changes: Any) -> ReductionSchedule:
        """The same schedule with some fields changed."""
        return replace(self, **changes)

    def __str__(self) -> str:
        if self.is_off:
            return "dense (no reduction)"
        queries = "queries untouched" if self.query_factor == 1 else f"queries {self.query_factor}→1"
        if self.policy == "uniform":
            return f"uniform: queries and keys/values {self.query_factor}→1, merged"
        return f"{queries}, keys/values {self._kv_words()}"

    def _kv_words(self) -> str:
        def words(factor: int) -> str:
            return "untouched" if factor == 1 else f"{factor}→1"

        base, boosted = words(self.kv_factor), words(self.kv_factor * self.kv_boost)
        if self.sensitive_layers is None or self.kv_boost == 1:
            return base
        if not self.sensitive_layers:
            return boosted
        layers = "layer" if len(self.sensitive_layers) == 1 else "layers"
        return f"{base} in {layers} {_ranges(self.sensitive_layers)} and {boosted} elsewhere"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, path: str | Path) -> ReductionSchedule:
        """The schedule in a file that holds what `to_json` wrote; raises an InputError where it holds none."""
        name = Path(path).name
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read(_LONGEST_FILE + 1)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{name} cannot be read as text: choose the .json that `probe` wrote") from error
        if len(text) > _LONGEST_FILE:
            raise InputError(f"{name} is far too long for a schedule: choose the .json that `probe` wrote")
        return cls.from_json(text)

    @classmethod
    def from_json(cls, text: str) -> ReductionSchedule:
        """Reads what `to_json` wrote; unknown or malformed fields raise an InputError naming them."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:  # no JSON, or numbers and nesting beyond all use
            raise InputError("the schedule is not JSON: write it with `python -m spark3r probe`") from error
        known = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or not set(values) <= known:
            raise InputError(f"a schedule is an object with the keys {', '.join(sorted(known))}")
        layers = values.get("sensitive_layers")
        if isinstance(layers, list):
            values["sensitive_layers"] = tuple(layers)
        elif layers is not None:
            raise InputError(f"sensitive_layers={layers!r}: must be a list of layer numbers or null")
        return cls(**values)


def _check(name: str, value: object, bounds: tuple[int, int], example: str) -> None:
    low, high = bounds
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"{name}={value!r}: must be a whole number from {low} to {high}; {example}")


def _ranges(numbers: tuple[int, ...]) -> str:
    """(1, 2, 3, 7) → '1–3, 7'."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)
