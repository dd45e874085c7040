"""The one dial: how strongly each global layer reduces its queries and its keys/values, and in which way.

Bounds, defaults, validation and the words for it live only here; page, command line, benchmark and plug-in all show
this object and read the same words:

    dense                 no reduction                    4x25, spark3r:4x25   query factor 4, key/value factor 25
    auto, spark3r         by length, as in the paper      uniform, uniform:4   both sides merged by 4
    grid, grid:4x25       keys/values on a shifting grid  anchor, anchor:25    on a grid, with own key and mean
    register              special tokens alone attend     FILE.json            what `to_json` or `probe` wrote
    chunked:12+4          windows of 12 frames that share 4 with the next, each dense
    chunked:60+20:auto    the same, each window under another word

A policy without factors takes those of auto.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from spark3r.errors import InputError
from spark3r.reduction.policies import POLICIES
from spark3r.reduction.policy import LayerFactors
from spark3r.tokens import TokenLayout

QUERY_FACTOR_BOUNDS = (1, 64)
KV_FACTOR_BOUNDS = (1, 1024)
GROUP_SIZE_BOUNDS = (1, 100)
KV_BOOST_BOUNDS = (1, 16)
WINDOW_BOUNDS = (2, 10_000)

PolicyName = Literal["spark3r", "uniform", "grid", "anchor", "register"]

_LONGEST_WORD = 4096  # letters: what a path may have
WORDS = (
    "dense, auto, two factors such as 4x25, uniform, uniform:4, grid, grid:4x25, anchor, anchor:25, register, "
    "chunked:12+4 (or chunked:60+20:auto), or a schedule file"
)

_GIVEN = re.compile(r"(?P<factors>\d+x\d+)")
_CHUNKED = re.compile(r"chunked:(?P<window>\d+)\+(?P<overlap>\d+)(?::(?P<inner>(?!chunked).+))?")
_FACTORS = {  # as many numbers as a policy reads factors
    ("query_factor", "kv_factor"): re.compile(r"\d+x\d+"),
    ("query_factor",): re.compile(r"\d+"),
    ("kv_factor",): re.compile(r"\d+"),
    (): re.compile(r"(?!)"),
}
_LONGEST_FILE = 10_000  # characters; a schedule has a few hundred
_CONTEXT_FRAMES = 40  # the automatic schedule keeps about this many frames' worth of keys/values
_AUTO_QUERY_FACTOR = ((100, 1), (300, 2), (500, 3))  # (up to this many frames, query factor); 4 beyond


@dataclass(frozen=True)
class ReductionSchedule:
    """Factors for every global layer (the paper on asymmetric, layer-adaptive and length-adaptive reduction).

    query_factor     1 (off) … 64: tokens of this many neighbouring frames share one query; beyond ~12 quality falls
    kv_factor        1 (off) … 1024: one frame in this many keeps its patches as keys/values in sensitive layers
    group_size       frames among which queries are merged; the paper's 20 covers practically every good match
    kv_boost         insensitive layers prune this many times harder
    sensitive_layers global layers (0-based count of global layers) that use kv_factor as it is; None: all of them
    policy           "spark3r"; or a rival of it: "uniform", "grid", "anchor", "register" (see reduction/<name>.py)
    window, overlap  0 (one pass over all frames), or the length of windows and how many frames neighbours share

    >>> str(ReductionSchedule(query_factor=2, kv_factor=8, sensitive_layers=(2, 3)))
    'queries 2→1, keys/values 8→1 in layers 2–3 and 24→1 elsewhere'
    """

    query_factor: int = 1
    kv_factor: int = 1
    group_size: int = 20
    kv_boost: int = 3
    sensitive_layers: tuple[int, ...] | None = None
    policy: PolicyName = "spark3r"
    window: int = 0
    overlap: int = 0

    def __post_init__(self) -> None:
        _check("query_factor", self.query_factor, QUERY_FACTOR_BOUNDS, "4 lets four frames share one query")
        _check("kv_factor", self.kv_factor, KV_FACTOR_BOUNDS, "8 keeps the patches of one frame in eight")
        _check("group_size", self.group_size, GROUP_SIZE_BOUNDS, "20 frames is the paper's choice")
        _check("kv_boost", self.kv_boost, KV_BOOST_BOUNDS, "3 is the paper's choice")
        if not isinstance(self.policy, str) or self.policy not in POLICIES:  # JSON may hold what no dict can look up
            raise InputError(f"policy={self.policy!r}: must be one of {', '.join(POLICIES)}")
        self._check_windows()
        if self.sensitive_layers is not None:
            if any(type(layer) is not int or layer < 0 for layer in self.sensitive_layers):
                raise InputError(f"sensitive_layers={self.sensitive_layers!r}: must be layer numbers, 0 or more")
            object.__setattr__(self, "sensitive_layers", tuple(sorted(set(self.sensitive_layers))))

    def _check_windows(self) -> None:
        if self.window == self.overlap == 0 and not isinstance(self.window, bool):
            return
        _check("window", self.window, WINDOW_BOUNDS, "12 reconstructs twelve frames at a time, 0 all at once")
        _check("overlap", self.overlap, (1, self.window - 1), "windows are joined by the frames they share")

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

    @classmethod
    def parse(
        cls, word: str, num_frames: int, sensitive_layers: Sequence[int] | None = None, *, files: bool = True
    ) -> ReductionSchedule:
        """The schedule meant by a word (see the top of this file) for a clip of so many frames.

        sensitive_layers  of the model; None: not known, so all are treated as sensitive. A file has its own.
        files             whether a word may name one; not where it comes from somebody who may not read this disk

        Raises InputError for a word that is none of them.
        """
        if len(word) > _LONGEST_WORD:
            raise InputError(f"schedule {word[:20]!r}… is too long: must be {WORDS}")
        if chunks := _CHUNKED.fullmatch(word):
            window, overlap = int(chunks["window"]), int(chunks["overlap"])
            inner = cls.parse(
                chunks["inner"] or "dense", min(window or num_frames, num_frames), sensitive_layers, files=files
            )
            return inner.with_(window=window, overlap=overlap)
        if word in ("dense", "off"):
            return cls.off()
        automatic = cls.auto(num_frames, sensitive_layers)
        if found := _GIVEN.fullmatch(word):
            return automatic._given("spark3r", found["factors"])
        name, _, factors = word.partition(":")
        if word in ("auto", *POLICIES):
            return automatic.with_(policy="spark3r" if word == "auto" else word)
        if name in POLICIES and _FACTORS[POLICIES[name].reads].fullmatch(factors):
            return automatic._given(name, factors)
        if files and _is_file(word):
            return cls.read(word)
        raise InputError(f"schedule {word!r}: must be {WORDS}")

    def _given(self, policy: str, factors: str) -> ReductionSchedule:
        """This one with the factors that a word tells; keys/values at 1 are untouched in every layer."""
        values = dict(zip(POLICIES[policy].reads, map(int, factors.split("x")), strict=True))
        boost = {"kv_boost": 1} if values.get("kv_factor") == 1 else {}
        return self.with_(policy=policy, **values, **boost)

    @property
    def word(self) -> str:
        """The shortest word that `parse` reads as this schedule, for the same model and length.

        A group size or boost other than the usual, and layers other than the model's, have no word: keep the JSON.
        """
        if self.window:
            inner = "" if self.of_a_window.is_off else f":{self.of_a_window.word}"
            return f"chunked:{self.window}+{self.overlap}{inner}"
        if self.is_off:
            return "dense"
        factors = "x".join(str(getattr(self, name)) for name in POLICIES[self.policy].reads)
        is_automatic = self.kv_factor == 1 and self.kv_boost > 1 and self.sensitive_layers is not None
        if self.policy == "spark3r":
            return "auto" if is_automatic and self.query_factor == 1 else factors
        automatic = not factors or (is_automatic and "kv_factor" in POLICIES[self.policy].reads)
        return self.policy if automatic else f"{self.policy}:{factors}"

    @property
    def is_off(self) -> bool:
        """Whether every frame sees every other and every layer stays dense."""
        policy = POLICIES[self.policy]
        layers = (self.kv_factor,) if self.sensitive_layers is None else (self.kv_factor, self._boosted)
        return not self.window and not any(policy.acts(policy.factors(self.query_factor, kv)) for kv in layers)

    @property
    def name(self) -> str:
        """What kind of run it is, for tables: "dense", the policy, "chunked", or "chunked <policy>"."""
        if not self.window:
            return "dense" if self.is_off else self.policy
        return "chunked" if self.of_a_window.is_off else f"chunked {self.policy}"

    @property
    def of_a_window(self) -> ReductionSchedule:
        """The schedule that each window runs under; without windows, this one."""
        return self.with_(window=0, overlap=0)

    def frames_at_once(self, num_frames: int) -> int:
        """How many frames of a clip so long see each other."""
        return min(self.window or num_frames, num_frames)

    @property
    def _boosted(self) -> int:
        return self.kv_factor * self.kv_boost

    def at(self, layer: int) -> LayerFactors:
        """The factors of global layer number `layer` (0-based count of global layers)."""
        sensitive = self.sensitive_layers is None or layer in self.sensitive_layers
        return POLICIES[self.policy].factors(self.query_factor, self.kv_factor if sensitive else self._boosted)

    def token_counts(self, layout: TokenLayout, layer: int = 0) -> tuple[int, int]:
        """(queries, keys/values) that attend in one layer of a clip of this layout; under windows, in one of them."""
        if (frames := self.frames_at_once(layout.frames)) < layout.frames:
            layout = replace(layout, frames=frames, reference=(layout.reference or 0) * frames // layout.frames)
        return POLICIES[self.policy].token_counts(layout, layer, self)

    def with_(self, **changes: Any) -> ReductionSchedule:
        """The same schedule with some fields changed."""
        return replace(self, **changes)

    def __str__(self) -> str:
        if self.window:
            each = "dense" if self.of_a_window.is_off else self.of_a_window
            return f"windows of {self.window} frames sharing {self.overlap}, each {each}"
        if self.is_off:
            return "dense (no reduction)"
        queries = f"queries {_factor_words(self.query_factor)}"
        return {
            "spark3r": f"{queries}, keys/values {self._kv_words()}",
            "uniform": f"uniform: queries and keys/values {self.query_factor}→1, merged",
            "grid": f"{queries}, keys/values on a shifting grid {self._kv_words()}",
            "anchor": f"queries untouched, keys/values on a grid {self._kv_words()}, with own key and mean",
            "register": "special tokens alone attend",
        }[self.policy]

    def _kv_words(self) -> str:
        base, boosted = _factor_words(self.kv_factor), _factor_words(self._boosted)
        if self.sensitive_layers is None or self.kv_boost == 1:
            return base
        if not self.sensitive_layers:
            return boosted
        layers = "layer" if len(self.sensitive_layers) == 1 else "layers"
        return f"{base} in {layers} {_ranges(self.sensitive_layers)} and {boosted} elsewhere"

    def to_json(self) -> str:
        """All fields by name, as `from_json` reads them."""
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


def _factor_words(factor: int) -> str:
    return "untouched" if factor == 1 else f"{factor}→1"


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


def _is_file(word: str) -> bool:
    try:
        return Path(word).is_file()
    except (OSError, ValueError):  # no file can have this name
        return False
