"""Numbers as a person reads them."""

import math

import pytest

from spark3r.formatting import byte_count, count, factor, factor_range, milliseconds, number, percent, waiting


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.4, "3.4 ms"), (999.4, "999 ms"), (1500, "1.50 s"), (99_994, "99.99 s"), (3_599_900, "60 min 0 s")],
)
def test_durations(value: float, text: str) -> None:
    assert milliseconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(900, "900 B"), (3 * 2**20, "3 MiB"), (3 * 2**30, "3.0 GiB")])
def test_sizes(value: int, text: str) -> None:
    assert byte_count(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.523, "0.52×"), (14.26, "14.3×"), (120.4, "120×"), (math.nan, "–")])
def test_factors(value: float, text: str) -> None:
    assert factor(value) == text


def test_a_range_is_one_number_where_both_ends_read_the_same() -> None:
    assert factor_range(2.61, 3.08) == "2.6–3.1×"
    assert factor_range(2.61, 2.64) == "2.6×"


def test_what_is_unknown_is_a_dash() -> None:
    assert [factor(None), number(None), number(math.inf), percent(math.nan)] == ["–"] * 4


def test_counts_have_thin_spaces() -> None:
    assert count(50_000) == "50\u202f000"


def test_waiting_accounts_for_every_second() -> None:
    seconds = {"reading": 0.3, "warm-up": 1.2, "dense": 6.6, "reduced": 2.4, "scores": 0.4}
    text = "10.9 s: reading 0.3, warm-up 1.2, dense 3 × 2.2, reduced 3 × 0.8, scores 0.4"
    assert waiting(seconds, {"dense": 3, "reduced": 3}) == text
