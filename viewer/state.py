"""What the page knows, as data: what was asked for, how it is drawn, and how far a run is (no gradio, no viser)."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, Self, cast

from spark3r.errors import InputError
from spark3r.reconstruction import USUAL_PERCENTILE, Cost
from spark3r.reduction.schedule import PolicyName, ReductionSchedule

Side = Literal["left", "right"]  # of the page: any run may stand in either pane
SIDES: tuple[Side, Side] = ("left", "right")
Kind = Literal["dense", "reduced"]
TITLES: dict[Kind, str] = {"dense": "Dense", "reduced": "Spark3R"}
CHUNKED = "chunked"  # no policy of attention: windows of a few frames, each dense, joined on what they share
WINDOW, OVERLAP = 12, 4  # frames
POLICIES: tuple[tuple[str, str], ...] = (
    ("Spark3R: merge queries, prune keys/values", "spark3r"),
    ("Uniform: merge both sides alike", "uniform"),
    ("Grid: keys/values of a few patches per frame", "grid"),
    ("Anchor: a grid, own key and mean", "anchor"),
    ("Register: special tokens alone", "register"),
    (f"Chunked: windows of {WINDOW} frames sharing {OVERLAP}", CHUNKED),
)

Colour = Literal["image", "depth", "confidence", "difference", "error"]

# What the sliders offer; what a schedule allows is decided by ReductionSchedule alone.
QUERY_FACTORS = (1, 16)
KV_FACTORS = (1, 256)
FRAMES = (1, 1000)
GROUP_SIZES = (2, 60)
KV_BOOSTS = (1, 8)
HIDDEN_PERCENT = (0, 95)
THOUSAND_POINTS = (10, 1000)
POINT_SIZES = (20, 400)  # percent of the size that closes walls
MOVED_PERCENT = (0.1, 100)  # of the scene's diagonal, at the upper end of the scale of differences and errors


@dataclass(frozen=True)
class ExampleClip:
    """An example clip as its card shows it."""

    name: str
    title: str
    facts: str
    thumbnail: str  # data URL


class _Settings:
    """Read from the values of a group of components, by name. Bounds are annotated: number boxes take anything."""

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Settings from {field name: value}; one that is out of range or no number raises an InputError naming it."""
        return cls(**{item.name: _value(item.name, item.type, values[item.name]) for item in fields(cls)})  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class SamplingSettings(_Settings):
    """Which frames of the clip, at which size, through which model."""

    max_frames: Annotated[int, FRAMES]
    fps: float  # 0 takes every frame
    model: str
    resolution: int  # longer side of the network input in pixels; 0 is the model's own


@dataclass(frozen=True)
class ReductionSettings(_Settings):
    """The reduction as the sliders say it; `schedule` makes the one object that counts."""

    mode: str  # "auto", "manual" or "file"
    query_factor: Annotated[int, QUERY_FACTORS]
    kv_factor: Annotated[int, KV_FACTORS]
    group_size: Annotated[int, GROUP_SIZES]
    kv_boost: Annotated[int, KV_BOOSTS]
    policy: str
    file: str = ""  # of a schedule, as `python -m spark3r probe` writes it; "" while there is none

    def schedule(self, num_frames: int, sensitive_layers: tuple[int, ...] | None) -> ReductionSchedule:
        """The schedule for a clip of `num_frames`; raises InputError for a factor out of range or an unusable file."""
        if self.mode == "auto":
            return ReductionSchedule.auto(num_frames, sensitive_layers)
        if self.mode == "file":
            if not self.file:
                raise InputError("Choose a schedule file (.json) below: `python -m spark3r probe` writes one.")
            return ReductionSchedule.read(self.file)
        if self.policy == CHUNKED:
            return chunked()
        policy = cast(PolicyName, self.policy)  # a name that there is not is refused by the schedule
        boost = 1 if self.kv_factor == 1 else self.kv_boost  # a factor of 1 is off, everywhere
        return ReductionSchedule(self.query_factor, self.kv_factor, self.group_size, boost, sensitive_layers, policy)


def chunked() -> ReductionSchedule:
    """What many do with long clips instead: windows, each of them dense."""
    return ReductionSchedule.off().with_(window=WINDOW, overlap=OVERLAP)


@dataclass(frozen=True)
class ViewSettings(_Settings):
    """How both panes draw their clouds."""

    min_confidence_percentile: Annotated[float, HIDDEN_PERCENT] = float(USUAL_PERCENTILE)
    thousand_points: Annotated[int, THOUSAND_POINTS] = 150
    point_size: Annotated[float, POINT_SIZES] = 100.0  # percent of the size that closes walls
    colour: str = "image"
    moved_percent: Annotated[float, MOVED_PERCENT] = 2.0  # upper end of the scale of differences and errors
    cameras: bool = True

    @property
    def max_points(self) -> int:
        """How many points each pane shows at most."""
        return 1000 * self.thousand_points

    @property
    def content(self) -> tuple[float, int]:
        """What decides which points are drawn."""
        return self.min_confidence_percentile, self.thousand_points

    @property
    def colouring(self) -> tuple[str, float]:
        """What decides their colours."""
        return self.colour, self.moved_percent


@dataclass(frozen=True)
class LiveRun:
    """One of the runs of a comparison, while that is under way."""

    state: Literal["waiting", "running", "measured"] = "waiting"
    stage: str = ""
    fraction: float = 0.0  # 0 to 1, of the turn
    milliseconds: Mapping[str, float] = field(default_factory=dict)  # per stage, of the turn so far
    elapsed_ms: float = 0.0
    expected_ms: float | None = None  # what this run took before on this machine
    turn: int = 0
    turns: int = 1
    cost: Cost | None = None  # medians, once a turn has ended
    heard_at: float = 0.0  # `time.monotonic()` of this snapshot

    @property
    def elapsed_now_ms(self) -> float:
        """Since the turn began, though the network has not spoken since this snapshot."""
        return self.elapsed_ms + 1e3 * (time.monotonic() - self.heard_at)


Phase = Literal["idle", "waiting", "preparing", "measuring", "scoring", "done", "stopped", "failed"]
WORKING: tuple[Phase, ...] = ("waiting", "preparing", "measuring")  # nothing else of this visitor can run
BUSY: tuple[Phase, ...] = (*WORKING, "scoring")  # something of it is still to come
ENDED: tuple[Phase, ...] = ("done", "stopped", "failed")


@dataclass(frozen=True)
class RunReport:
    """A snapshot of the latest job of one visitor; a new one replaces it at every step."""

    phase: Phase = "idle"
    doing: str = ""  # what happens right now, in words
    fraction: float | None = None  # of what happens right now, where it is known
    message: str = ""  # what the visitor should read, in one sentence
    notes: tuple[str, ...] = ()  # about the input: skipped files, cropped sizes
    clip: str = ""
    schedule: str = ""
    live: Mapping[str, LiveRun] = field(default_factory=dict)  # by name: "dense", "reduced"
    point: int = 0  # of a sweep, from 1; 0: no sweep
    points: int = 0
    seconds_left: float | None = None  # of a sweep, as an estimate

    @property
    def is_busy(self) -> bool:
        """Whether something is still to come, be it only scores."""
        return self.phase in BUSY

    @property
    def is_working(self) -> bool:
        """Whether runs are measured or about to be."""
        return self.phase in WORKING

    @property
    def is_sweep(self) -> bool:
        """Whether it fills the grid of the sweep."""
        return self.points > 0


def _value(name: str, kind: Any, value: Any) -> Any:
    """`value` as the field's type, within its bounds; sliders deliver 4.0 for 4, an emptied box None."""
    name = name.replace("kv_", "key/value_").replace("_", " ").capitalize()
    if kind is str:
        if not isinstance(value, str | None):
            raise InputError(f"{name} is no word: choose one of those there are.")
        return value or ""
    try:
        made = getattr(kind, "__origin__", kind)(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} is {value!r}: enter a number.") from error
    for least, most in getattr(kind, "__metadata__", ()):
        if not least <= made <= most:
            raise InputError(f"{name} is {made:g}: enter {least} to {most}.")
    return made
