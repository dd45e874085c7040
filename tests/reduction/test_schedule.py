"""The one dial: bounds, the paper's automatic factors, words, and JSON in and out."""

import json

import pytest

from spark3r.errors import InputError
from spark3r.reduction import ReductionSchedule
from spark3r.tokens import TokenLayout


@pytest.mark.parametrize(
    ("frames", "query_factor", "kv_factor"),
    [
        (1, 1, 1),
        (100, 1, 1),
        (101, 2, 3),
        (120, 2, 3),
        (300, 2, 8),
        (301, 3, 8),
        (500, 3, 13),
        (501, 4, 13),
        (1000, 4, 25),
    ],
)
def test_auto_follows_the_paper(frames: int, query_factor: int, kv_factor: int):
    schedule = ReductionSchedule.auto(frames, sensitive_layers=(1, 2))
    assert schedule.at(1) == (query_factor, kv_factor)
    assert schedule.at(0) == (query_factor, 3 * kv_factor)


def test_auto_keeps_about_forty_frames_of_context_at_any_length():
    for frames in (120, 300, 700, 1000, 5000):
        layout = TokenLayout(frames, 0, (1, 1))
        assert 34 <= ReductionSchedule.auto(frames).token_counts(layout)[1] <= 40


def test_without_sensitive_layers_named_every_layer_uses_the_base_factor():
    assert ReductionSchedule(2, 8).at(0) == ReductionSchedule(2, 8).at(99) == (2, 8)


def test_uniform_has_one_factor_for_both_sides():
    schedule = ReductionSchedule(4, 64, policy="uniform", sensitive_layers=())
    assert schedule.at(0) == (4, 4)
    queries, keys = schedule.token_counts(TokenLayout(40, 2, (3, 3)))
    assert queries == keys


@pytest.mark.parametrize(
    "wrong",
    [
        {"query_factor": 0},
        {"query_factor": 65},
        {"query_factor": 2.0},
        {"query_factor": True},
        {"kv_factor": 0},
        {"kv_factor": 1025},
        {"group_size": 0},
        {"kv_boost": 0},
        {"policy": "fast"},
        {"sensitive_layers": (-1,)},
    ],
)
def test_out_of_range_is_one_sentence_naming_field_value_and_remedy(wrong: dict):
    with pytest.raises(InputError) as caught:
        ReductionSchedule(**wrong)
    (name, value), message = next(iter(wrong.items())), str(caught.value)
    assert name in message
    assert repr(value) in message
    assert "must be" in message


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (ReductionSchedule.off(), "dense (no reduction)"),
        (ReductionSchedule(4, 8), "queries 4→1, keys/values 8→1"),
        (ReductionSchedule(1, 8), "queries untouched, keys/values 8→1"),
        (ReductionSchedule(2, 1), "queries 2→1, keys/values untouched"),
        (ReductionSchedule(2, 8, sensitive_layers=()), "queries 2→1, keys/values 24→1"),
        (
            ReductionSchedule(2, 8, sensitive_layers=(1, 2, 3, 7)),
            "queries 2→1, keys/values 8→1 in layers 1–3, 7 and 24→1 elsewhere",
        ),
        (
            ReductionSchedule(1, 1, sensitive_layers=(1,)),
            "queries untouched, keys/values untouched in layer 1 and 3→1 elsewhere",
        ),
        (ReductionSchedule(4, 8, policy="uniform"), "uniform: queries and keys/values 4→1, merged"),
    ],
)
def test_a_schedule_speaks(schedule: ReductionSchedule, words: str):
    assert str(schedule) == words


@pytest.mark.parametrize(
    "schedule",
    [
        ReductionSchedule.off(),
        ReductionSchedule(4, 25, 12, 5, (1, 4), "spark3r"),
        ReductionSchedule(3, policy="uniform"),
        ReductionSchedule.auto(300, ()),
    ],
)
def test_json_round_trip(schedule: ReductionSchedule):
    assert ReductionSchedule.from_json(schedule.to_json()) == schedule


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"r_q": 2}', '{"sensitive_layers": 3}', '{"query_factor": "2"}', '{"sensitive_layers": ["1"]}'],
)
def test_foreign_json_is_refused_with_a_sentence(text: str):
    with pytest.raises(InputError):
        ReductionSchedule.from_json(text)


def test_json_is_plain():
    assert json.loads(ReductionSchedule(2, 8).to_json())["kv_factor"] == 8


@pytest.mark.parametrize(
    ("schedule", "off"),
    [
        (ReductionSchedule.off(), True),
        (ReductionSchedule(1, 1, kv_boost=1, sensitive_layers=()), True),
        (ReductionSchedule(1, 1, sensitive_layers=()), False),  # insensitive layers still prune 3→1
        (ReductionSchedule(1, 64, policy="uniform"), True),
        (ReductionSchedule(2, 1), False),
        (ReductionSchedule(1, 2), False),
    ],
)
def test_off_means_that_no_layer_reduces(schedule: ReductionSchedule, off: bool):
    assert schedule.is_off is off
    assert all(schedule.at(layer) == (1, 1) for layer in range(24)) is off
