"""Runs of one clip under several schedules, measured in turns, so that every one of them sees the same machine."""

from __future__ import annotations

import itertools
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Literal
from weakref import WeakKeyDictionary

import torch

from spark3r.compare.result import DENSE, Measurement, Run, alignment
from spark3r.errors import Cancelled
from spark3r.estimate import network_size
from spark3r.frames import Frames
from spark3r.inference import Progress, reconstruct
from spark3r.kernels import forced_kernel
from spark3r.kernels.choice import seconds_choosing
from spark3r.models.network import Network
from spark3r.reconstruction import Reconstruction
from spark3r.reduction import ReductionSchedule
from spark3r.timing import BUSY, Factor, Stopwatch, changed, reference_speed

SHORT_SECONDS = 5.0  # turns that take less are repeated
LEAST_TURNS = 3
ENOUGH_SPREAD = 0.15  # repeated beyond the least while factors spread further …
SURE = 0.025  # … or their mean is less certain than that, so that the next press tells the same …
PATIENCE_SECONDS = 10.0  # … and no more than this was spent
LOOKS = 7  # at the machine's speed, before it is said to have changed
MOST_CARRIED = 12  # turns of earlier comparisons that count on
WARM_UP_FRAMES = 2  # enough to load kernels and libraries, too few to cost much

_REMEMBERED = 256  # times of past runs

Phase = Literal["warm-up", "run", "scores"]


@dataclass(frozen=True)
class RunProgress(Progress):
    """Progress, and of which run; `fraction`, `milliseconds` and `elapsed_ms` are that one run's own."""

    run: str = DENSE  # its name
    phase: Phase = "run"
    turn: int = 0  # which of its repeats, from 0
    turns: int = 1  # as many as are planned by now; more may follow where times spread
    expected_ms: float | None = None  # what this run took the last time in this process; None: never measured


@dataclass(frozen=True)
class Listener:
    """Who hears of a comparison, and may stop it."""

    progress: Callable[[RunProgress], None] | None = None
    finished: Callable[[Run], None] | None = None
    cancel: Callable[[], bool] | None = None

    def check(self) -> None:
        """Raises Cancelled once the caller wants to stop."""
        if self.cancel is not None and self.cancel():
            raise Cancelled("the comparison was stopped")


class Turns:
    """The measurements of one comparison, as they come in."""

    def __init__(
        self,
        frames: Frames,
        network: Network,
        schedules: Mapping[str, ReductionSchedule],
        resolution: int | None,
        listener: Listener,
        stopwatch: Stopwatch,
        earlier: Mapping[str, Sequence[Measurement]],
    ):
        self.runs: dict[str, Run] = {}
        self._frames, self._network, self._schedules, self._resolution = frames, network, schedules, resolution
        self._listener, self._stopwatch = listener, stopwatch
        self._earlier = earlier
        self._carried: dict[str, tuple[Measurement, ...]] = {}  # what of that counts on
        self._planned = 1
        self._last_speed = 0.0  # after a run is before the next one

    def warm_up(self) -> None:
        """Every schedule once on a few frames, unless this process has done it before."""
        with self._stopwatch.spending("warm-up"):
            for name, schedule in self._schedules.items():
                heard = self._heard(name, "warm-up", None)
                warm_up(
                    self._frames, self._network, schedule, self._resolution, progress=heard,
                    cancel=self._listener.cancel,
                )  # fmt: skip

    def measure(self, names: Sequence[str], repeats: int | None, reused_seconds: float = 0.0) -> None:
        """Runs `names` in turns: `repeats` times each, or as often as short runs need.

        reused_seconds: what a baseline that is not run again takes; it counts as part of a turn.
        """
        self._last_speed = self._speed()
        if self._earlier:
            looks = [self._speed() for _ in range(LOOKS)]
            self._last_speed = looks[-1]
            self._carried = _of_this_speed(self._earlier, names, max(looks))
        started = self._clock()
        self._planned = repeats or self._expected_turns(names, reused_seconds)
        self._turn(names)
        if repeats is None:
            self._planned = self._turns_for(self._clock() - started + reused_seconds)
        for _ in range(1, self._planned):
            self._turn(names)
        patience = started + PATIENCE_SECONDS
        while repeats is None and self._planned > 1 and self._doubts(DENSE in names) and self._clock() < patience:
            self._planned += 1
            self._turn(names)

    def _turn(self, names: Sequence[str]) -> None:
        number = next(_NUMBERS)
        for name in names:
            self._run(name, number)

    def _run(self, name: str, turn: int) -> None:
        """One timed run between two looks at the machine's speed."""
        key = self._key(name)
        before = self._last_speed
        started, chose = self._clock(), seconds_choosing()
        scene = reconstruct(
            self._frames, self._network, self._schedules[name], resolution=self._resolution,
            progress=self._heard(name, "run", _PAST.get(key)), cancel=self._listener.cancel,
        )  # fmt: skip
        seconds = self._clock() - started
        self._stopwatch.add(name, seconds)
        if seconds_choosing() > chose:  # once for a machine, as a warm-up is for a process
            self._stopwatch.add("warm-up", seconds_choosing() - chose)
        _remember(key, seconds * 1e3)
        self._last_speed = self._speed()
        self._keep(name, scene, Measurement(scene.cost, seconds, (before, self._last_speed), turn, self._fastest))

    def _keep(self, name: str, scene: Reconstruction, measurement: Measurement) -> None:
        """Adds a measurement; the result is that of the first run, in the world of the dense one."""
        earlier, carried = self.runs.get(name), self._carried.get(name, ())
        before = carried if earlier is None or earlier.reused else earlier.measured
        if earlier is not None:  # a baseline that is measured anew keeps its result, too
            placed = earlier.scene
        else:
            with self._stopwatch.spending("scores"):
                dense = self.runs.get(DENSE)
                placed = scene if dense is None else scene.transformed(alignment(scene, dense.scene))
        run = Run(name, placed, (*before, measurement), time.monotonic(), carried=len(carried))
        self.runs[name] = run
        if self._listener.finished is not None:
            self._listener.finished(run)

    @staticmethod
    def _clock() -> float:
        """Seconds, but for those that kernels are chosen in."""
        return time.perf_counter() - seconds_choosing()

    def _speed(self) -> float:
        self._listener.check()
        with self._stopwatch.spending("speed checks"):
            speed = reference_speed(self._network.device, self._network.dtype)
        _FASTEST[self._product] = max(speed, self._fastest)
        return speed

    @property
    def _product(self) -> tuple[torch.device, torch.dtype]:
        return self._network.device, self._network.dtype

    @property
    def _fastest(self) -> float:
        return _FASTEST.get(self._product, 0.0)

    def _doubts(self, pairs: bool) -> bool:
        """pairs: both sides are measured; beside a reused time a point of a sweep need not be so sure."""
        dense = self.runs[DENSE]
        others = (run for name, run in self.runs.items() if name != DENSE)
        factors = (Factor.of(dense.total, run.total, paired=pairs) for run in others)
        sure = SURE if pairs else math.inf
        return any(one is not None and (one.spread > ENOUGH_SPREAD or one.uncertainty > sure) for one in factors)

    def _turns_for(self, seconds: float) -> int:
        return LEAST_TURNS if seconds < SHORT_SECONDS else 1

    def _expected_turns(self, names: Sequence[str], reused_seconds: float) -> int:
        past = [_PAST.get(self._key(name)) for name in names]
        return 1 if None in past else self._turns_for(sum(ms or 0.0 for ms in past) / 1e3 + reused_seconds)

    def _heard(self, name: str, phase: Phase, expected_ms: float | None) -> Callable[[Progress], None] | None:
        tell = self._listener.progress
        if tell is None:
            return None
        turn = 0 if phase == "warm-up" or name not in self.runs else self.runs[name].turns

        def heard(now: Progress) -> None:
            about = (name, phase, turn, self._planned, expected_ms)
            tell(RunProgress(now.stage, now.fraction, now.milliseconds, now.elapsed_ms, *about))

        return heard

    def _key(self, name: str) -> tuple[object, ...]:
        frames = self._frames.images.shape[:3]
        return (*conditions(self._network, self._schedules[name]), frames, self._resolution)


def _of_this_speed(
    earlier: Mapping[str, Sequence[Measurement]], names: Sequence[str], speed: float
) -> dict[str, tuple[Measurement, ...]]:
    """The latest turns that all `names` were measured in, if the machine, undisturbed, was about as fast then as it is
    now; else none.

    About: within a turn all runs see the same machine. speed: the best of some looks. What else runs for a moment, a
    page that draws say, only ever makes a look slower, so the earlier ones are told by their upper quartile.
    """
    by_turn = {name: {one.turn: one for one in earlier.get(name, ())} for name in names}
    shared = sorted(set.intersection(*map(set, by_turn.values())))[-MOST_CARRIED:]
    carried = {name: tuple(known[turn] for turn in shared) for name, known in by_turn.items()}
    speeds = [one for some in carried.values() for measured in some for one in measured.speeds]
    return carried if speeds and changed(quantiles(speeds, n=4)[2], speed) <= BUSY else {}


def conditions(network: Network, schedule: ReductionSchedule) -> tuple[object, ...]:
    """What, beside the clip, decides how long a run takes."""
    return network.config.name, network.device, network.dtype, forced_kernel(), schedule


_FASTEST: dict[tuple[torch.device, torch.dtype], float] = {}  # FLOP/s of the reference product in this process
_NUMBERS = itertools.count()  # of turns in this process
_PAST: OrderedDict[tuple[object, ...], float] = OrderedDict()  # milliseconds of earlier runs in this process


def _remember(key: tuple[object, ...], milliseconds: float) -> None:
    _PAST[key] = milliseconds
    _PAST.move_to_end(key)
    while len(_PAST) > _REMEMBERED:
        _PAST.popitem(last=False)


_WARM: WeakKeyDictionary[Network, set[tuple[object, ...]]] = WeakKeyDictionary()


def warm_up(
    frames: Frames,
    network: Network,
    schedule: ReductionSchedule,
    resolution: int | None = None,
    *,
    num_frames: int = WARM_UP_FRAMES,
    progress: Callable[[Progress], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> None:
    """A few frames through a network, so that no timed run pays for what happens once per process.

    Done once for each network, size, schedule and number of frames; after that it returns at once. Raises as
    `reconstruct` does.
    """
    height, width = frames.images.shape[1:3]
    size = network_size(network, height, width, resolution)
    key = (*conditions(network, schedule), size, num_frames)
    warm = _WARM.setdefault(network, set())
    if key not in warm:
        few = frames.select(slice(0, num_frames))
        reconstruct(few, network, schedule, resolution=resolution, progress=progress, cancel=cancel)
        warm.add(key)
