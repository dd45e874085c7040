"""Repeated times: medians, ranges, factors, doubts."""

import random

import pytest
import torch

from spark3r.timing import Factor, Samples, Stopwatch, changed, is_busy, reference_speed


def test_the_spread_leaves_out_a_fifth_at_either_end() -> None:
    assert Samples((1.0, 1.1, 2.0)).spread == pytest.approx(1.0 / 1.1)
    assert Samples((1.0, 1.1, 1.0, 1.1, 50.0)).spread == pytest.approx(0.1 / 1.1)
    assert Samples((7.0,)).spread == 0


def test_the_factor_lies_within_the_range_of_its_pairs() -> None:
    """Also where the order of the pairs is shuffled, and where one side was measured more often."""
    for seed in range(50):
        rng = random.Random(seed)
        before = Samples(tuple(rng.uniform(2, 9) for _ in range(rng.randint(1, 6))))
        for length in (len(before.values), 3):
            factor = Factor.of(before, Samples(tuple(rng.uniform(1, 5) for _ in range(length))))
            assert factor is not None
            assert factor.low <= factor.median <= factor.high


def test_what_slows_both_alike_does_not_touch_the_factor() -> None:
    factor = Factor.of(Samples((2.0, 4.0, 3.0)), Samples((1.0, 2.0, 1.5)))
    assert factor == Factor(2.0, 2.0, 2.0, 0.0)


def test_uncertainty_is_the_standard_error() -> None:
    assert Samples((1.0, 2.0, 3.0)).uncertainty == pytest.approx(1.0 / 3**0.5 / 2.0)
    assert Samples((3.0,)).uncertainty == 0.0


def test_nothing_is_divided_by_nothing() -> None:
    assert Factor.of(Samples((2.0,)), Samples((0.0,))) is None


def test_busy_is_a_drifting_machine_or_a_spreading_factor() -> None:
    steady, wide = Factor(2.0, 1.9, 2.1, 0.1), Factor(2.0, 1.5, 2.5, 0.5)
    assert not is_busy((100.0, 104.0, 99.0), steady, None)
    assert not is_busy((100.0, 120.0, 99.0), steady)  # a moment
    assert is_busy((100.0, 120.0), steady)
    assert is_busy((100.0, 104.0, 99.0), wide)
    assert not is_busy((100.0, 114.0, 99.0, 100.0, 113.0, 99.0), steady)  # unsure, but not moving
    assert is_busy((100.0, 99.0, 100.0, 114.0, 113.0, 112.0), steady)
    assert changed(2.0, 1.0) == changed(1.0, 2.0) == 1.0


def test_the_stopwatch_counts_every_second_once() -> None:
    ticks = iter([0.0, 1.0, 1.0, 4.0, 4.0, 6.0])
    stopwatch = Stopwatch(lambda: next(ticks))
    with stopwatch.spending("warm-up"):
        pass
    with pytest.raises(KeyError), stopwatch.spending("dense"):
        raise KeyError
    with stopwatch.spending("warm-up"):
        pass
    stopwatch.add("sending", 0.5)
    assert stopwatch.seconds == {"warm-up": 3.0, "dense": 3.0, "sending": 0.5}


def test_the_reference_product_tells_a_speed() -> None:
    assert reference_speed(torch.device("cpu"), torch.float32) > 1e6
