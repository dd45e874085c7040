"""What the page's values become, and which of them are refused."""

from dataclasses import replace

import pytest

from spark3r.errors import InputError
from viewer.state import ReductionSettings, SamplingSettings, ViewSettings

SLIDERS = {"mode": "manual", "query_factor": 4.0, "kv_factor": 8, "group_size": 20, "kv_boost": 3, "policy": "spark3r"}


def test_sliders_deliver_floats_for_whole_numbers() -> None:
    settings = ReductionSettings.from_values(SLIDERS)
    assert settings.query_factor == 4
    assert isinstance(settings.query_factor, int)
    assert settings.schedule(50, (1,)).kv_boost == 3


def test_automatic_ignores_the_sliders() -> None:
    settings = ReductionSettings.from_values({**SLIDERS, "mode": "auto"})
    assert settings.schedule(1000, None).query_factor == 4
    assert settings.schedule(50, None).is_off


def test_the_policy_reaches_the_schedule() -> None:
    assert ReductionSettings.from_values({**SLIDERS, "policy": "uniform"}).schedule(50, None).policy == "uniform"


@pytest.mark.parametrize(("name", "value"), [("query_factor", 65), ("kv_factor", 0), ("kv_factor", 100_000)])
def test_a_factor_out_of_range_is_named(name: str, value: int) -> None:
    with pytest.raises(InputError, match=f"{name}={value}"):
        replace(ReductionSettings.from_values(SLIDERS), **{name: value}).schedule(50, None)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("kv_factor", 5000, "Key/value factor is 5000: enter 1 to 256."),
        ("query_factor", 0, "Query factor is 0: enter 1 to 16."),
        ("group_size", float("inf"), "Group size is inf: enter a number."),
    ],
)
def test_what_no_slider_offers_is_one_sentence(name: str, value: float, sentence: str) -> None:
    with pytest.raises(InputError) as told:
        ReductionSettings.from_values({**SLIDERS, name: value})
    assert str(told.value) == sentence


def test_an_emptied_number_box_is_named() -> None:
    with pytest.raises(InputError, match="Max frames"):
        SamplingSettings.from_values({"max_frames": None, "fps": 0, "model": "mini", "resolution": 0})


def test_points_are_counted_in_thousands() -> None:
    values = {
        "min_confidence_percentile": 5,
        "thousand_points": 20,
        "point_size": 3,
        "colour": "depth",
        "cameras": False,
    }
    assert ViewSettings.from_values(values).max_points == 20_000
