"""What the page's values become, and which of them are refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from spark3r.errors import InputError
from spark3r.reduction.schedule import ReductionSchedule
from viewer.state import ReductionSettings, SamplingSettings, ViewSettings

SLIDERS = {
    "mode": "manual", "query_factor": 4.0, "kv_factor": 8, "group_size": 20, "kv_boost": 3, "policy": "spark3r",
    "file": None,
}  # fmt: skip


def test_sliders_deliver_floats_for_whole_numbers() -> None:
    settings = ReductionSettings.from_values(SLIDERS)
    assert settings.query_factor == 4
    assert isinstance(settings.query_factor, int)
    assert settings.schedule(50, (1,)).kv_boost == 3


def test_automatic_ignores_the_sliders() -> None:
    settings = ReductionSettings.from_values({**SLIDERS, "mode": "auto"})
    assert settings.schedule(1000, None).query_factor == 4
    assert settings.schedule(50, None).is_off


def test_a_schedule_file_replaces_the_sliders(tmp_path: Path) -> None:
    schedule = ReductionSchedule(3, 5, sensitive_layers=(0, 2))
    (tmp_path / "schedule.json").write_text(schedule.to_json())
    from_file = ReductionSettings.from_values({**SLIDERS, "mode": "file", "file": str(tmp_path / "schedule.json")})
    assert from_file.schedule(50, (1,)) == schedule


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "Choose a schedule file"),
        (b"{", "not JSON"),
        (b'{"factor": 2}', "a schedule is an object with the keys"),
        (b'{"query_factor": 0}', "must be a whole number from 1 to 64"),
        (b"\xff\xfe\x00", "cannot be read as text"),
        (b" " * 20_000, "far too long"),
    ],
)
def test_a_file_without_a_schedule_is_one_sentence(content: bytes | None, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    if content is not None:
        path.write_bytes(content)
    values = {**SLIDERS, "mode": "file", "file": None if content is None else str(path)}
    with pytest.raises(InputError, match=sentence):
        ReductionSettings.from_values(values).schedule(50, None)


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
        ("group_size", "5000", "Group size is 5000: enter 2 to 60."),
        ("policy", ["spark3r"], "Policy is no word: choose one of those there are."),
    ],
)
def test_what_no_slider_offers_is_one_sentence(name: str, value: object, sentence: str) -> None:
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
        "point_size": 120,
        "colour": "depth",
        "moved_percent": 2,
        "cameras": False,
    }
    assert ViewSettings.from_values(values).max_points == 20_000
