"""Times that can be believed: repeated, summed up with their range, and held against the machine's own speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from statistics import median, stdev

import torch

STEADY = 0.10  # the machine's speed may move by this share before times of then and now are no longer divided
SLOWED = 0.50  # beyond this share below its best the machine is doing something else, however evenly
BUSY = 0.20  # a spread beyond this is told as a busy machine
_OUTER = 5  # one value in so many is left out of the spread, at either end

_SIDE = 1024  # of the reference product
_FEWEST, _MOST = 4, 12  # how many of them; the first does not count
_ENOUGH_SECONDS = 0.04


@dataclass(frozen=True)
class Samples:
    """The same thing measured once or several times: milliseconds, factors, speeds."""

    values: tuple[float, ...]  # at least one, in the order measured

    @property
    def median(self) -> float:
        """The middle one, or the mean of the two in the middle."""
        return median(self.values)

    @property
    def low(self) -> float:
        """The smallest."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest."""
        return max(self.values)

    @property
    def spread(self) -> float:
        """Range ÷ median, a fifth of the values left out at either end (so nothing below five); 0 for one value."""
        ordered = sorted(self.values)
        outer = len(ordered) // _OUTER
        kept = ordered[outer : len(ordered) - outer]
        middle = self.median
        return (kept[-1] - kept[0]) / middle if middle else 0.0

    @property
    def uncertainty(self) -> float:
        """Standard error of their mean ÷ median; 0 for one value."""
        return stdev(self.values) / len(self) ** 0.5 / self.median if len(self) > 1 and self.median else 0.0

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Factor:
    """How many times less the second of two things takes than the first."""

    median: float  # of the ratios pair by pair, where a pair saw the same machine; else of all with all
    low: float  # their range
    high: float
    spread: float  # of the ratios, as `Samples.spread`
    uncertainty: float = 0.0  # of the ratios, as `Samples.uncertainty`

    @classmethod
    def of(cls, before: Samples, after: Samples, *, paired: bool = True) -> Factor | None:
        """before ÷ after; None where nothing was measured that could be divided by.

        paired: equally many values were measured in turns, one of each side.
        """
        if after.low <= 0:
            return None
        in_turns = paired and len(before) == len(after)
        pairs = zip(before.values, after.values, strict=True) if in_turns else product(before.values, after.values)
        ratios = Samples(tuple(one / other for one, other in pairs))
        return cls(ratios.median, ratios.low, ratios.high, ratios.spread, ratios.uncertainty)


def reference_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a square matrix product here and now; the median of some tries.

    It takes some hundredths of a second on a CPU and tells a busy or throttled machine from a free one.
    """
    generator = torch.Generator(device).manual_seed(0)  # the caller's random numbers are not used up
    a = torch.randn(_SIDE, _SIDE, generator=generator, device=device).to(dtype)
    product = torch.empty_like(a)
    spent: list[float] = []
    while len(spent) < _FEWEST or (len(spent) < _MOST and sum(spent) < _ENOUGH_SECONDS):
        start = time.perf_counter()
        torch.mm(a, a, out=product)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        spent.append(time.perf_counter() - start)
    return 2 * _SIDE**3 / median(spent[1:])


def changed(before: float, after: float) -> float:
    """How far two speeds or times are apart, as a share of the smaller one; 0 where they agree."""
    return max(before, after) / min(before, after) - 1


class Stopwatch:
    """Where the seconds went, by name, in the order in which each was first spent."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.seconds: dict[str, float] = {}
        self._clock = clock

    @contextmanager
    def spending(self, on: str) -> Iterator[None]:
        """Counts the time in the context, whether or not it ends well."""
        started = self._clock()
        try:
            yield
        finally:
            self.add(on, self._clock() - started)

    def add(self, on: str, seconds: float) -> None:
        """Counts seconds that were measured elsewhere."""
        self.seconds[on] = self.seconds.get(on, 0.0) + seconds


def is_busy(speeds: Sequence[float], *factors: Factor | None, fastest: float = 0.0) -> bool:
    """Whether the numbers are to be taken with doubt: the machine's speed drifted or is far from its `fastest`, or what
    was measured spreads.

    speeds: in order of time; the first half of them is held against the second, so that a moment's work tells nothing.
    """
    slowed = len(speeds) > 0 and fastest > (1 + SLOWED) * median(speeds)
    half = len(speeds) // 2
    drifted = half > 0 and changed(median(speeds[:half]), median(speeds[-half:])) > STEADY
    return slowed or drifted or any(factor is not None and factor.spread > BUSY for factor in factors)
