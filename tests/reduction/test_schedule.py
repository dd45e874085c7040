"""The one dial: bounds, the paper's automatic factors, words, and JSON in and out."""

import json
from pathlib import Path

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
        {"window": 1, "overlap": 1},
        {"window": True, "overlap": 1},
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
        (ReductionSchedule(4, 9, policy="grid"), "queries 4→1, keys/values on a shifting grid 9→1"),
        (
            ReductionSchedule(4, 9, sensitive_layers=(), policy="anchor"),
            "queries untouched, keys/values on a grid 27→1, with own key and mean",
        ),
        (ReductionSchedule(policy="register"), "special tokens alone attend"),
        (ReductionSchedule(window=12, overlap=4), "windows of 12 frames sharing 4, each dense"),
        (
            ReductionSchedule(2, 8, window=60, overlap=20),
            "windows of 60 frames sharing 20, each queries 2→1, keys/values 8→1",
        ),
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
        ReductionSchedule(policy="register", window=12, overlap=4),
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
        (ReductionSchedule(16, 1, policy="anchor"), True),  # which reads no query factor
    ],
)
def test_off_means_that_no_layer_reduces(schedule: ReductionSchedule, off: bool):
    assert schedule.is_off is off
    assert all(schedule.at(layer) == (1, 1) for layer in range(24)) is off


LAYERS = (1, 2)


@pytest.mark.parametrize(
    ("word", "schedule"),
    [
        ("dense", ReductionSchedule.off()),
        ("off", ReductionSchedule.off()),
        ("auto", ReductionSchedule.auto(300, LAYERS)),
        ("spark3r", ReductionSchedule.auto(300, LAYERS)),
        ("4x25", ReductionSchedule(4, 25, sensitive_layers=LAYERS)),
        ("spark3r:4x25", ReductionSchedule(4, 25, sensitive_layers=LAYERS)),
        ("4x1", ReductionSchedule(4, 1, kv_boost=1, sensitive_layers=LAYERS)),
        ("uniform", ReductionSchedule.auto(300, LAYERS).with_(policy="uniform")),
        ("grid:2x9", ReductionSchedule(2, 9, sensitive_layers=LAYERS, policy="grid")),
        ("anchor:9", ReductionSchedule.auto(300, LAYERS).with_(kv_factor=9, policy="anchor")),
        ("register", ReductionSchedule.auto(300, LAYERS).with_(policy="register")),
        ("chunked:12+4", ReductionSchedule(window=12, overlap=4)),
        ("chunked:120+4:auto", ReductionSchedule.auto(120, LAYERS).with_(window=120, overlap=4)),
        ("chunked:400+4:auto", ReductionSchedule.auto(300, LAYERS).with_(window=400, overlap=4)),
        ("chunked:60+20:uniform:4", ReductionSchedule(4, 1, 20, 3, LAYERS, "uniform", 60, 20)),
    ],
)
def test_a_word_means_a_schedule(word: str, schedule: ReductionSchedule):
    assert ReductionSchedule.parse(word, 300, LAYERS) == schedule


@pytest.mark.parametrize(
    "word",
    ["dense", "auto", "1x25", "4x25", "4x1", "uniform:4", "grid:4x25", "grid:1x9", "anchor:25", "register",
     "chunked:12+4", "chunked:60+20:4x25", "chunked:60+20:auto", "chunked:60+20:register"],
)  # fmt: skip
@pytest.mark.parametrize("frames", [50, 300])
def test_a_schedule_finds_its_word_again(word: str, frames: int):
    schedule = ReductionSchedule.parse(word, frames, LAYERS)
    assert ReductionSchedule.parse(schedule.word, frames, LAYERS) == schedule
    if "auto" not in word:
        assert schedule.word == word


@pytest.mark.parametrize(
    "word",
    ["", "fast", "4x", "4x25x3", "uniform:", "uniform:4x4", "anchor:4x4", "register:2", "auto:4", "spark3r:4",
     "chunked", "chunked:12", "chunked:12+4:chunked:6+2", "chunked:12+4:", "4 x 25", "-1x2", "missing.json"],
)  # fmt: skip
def test_other_words_are_refused_with_those_that_there_are(word: str):
    with pytest.raises(InputError, match="must be dense, auto"):
        ReductionSchedule.parse(word, 300, LAYERS)


@pytest.mark.parametrize("word", ["0x4", "65x4", "4x2000", "uniform:0", "chunked:12+12", "chunked:12+0", "chunked:1+0"])
def test_a_number_out_of_range_is_named(word: str):
    with pytest.raises(InputError, match="must be a whole number"):
        ReductionSchedule.parse(word, 300, LAYERS)


@pytest.mark.parametrize(
    ("word", "name"),
    [("dense", "dense"), ("4x25", "spark3r"), ("grid:1x4", "grid"), ("chunked:12+4", "chunked"),
     ("chunked:60+20:4x8", "chunked spark3r")],
)  # fmt: skip
def test_the_kind_of_run_has_a_name(word: str, name: str):
    assert ReductionSchedule.parse(word, 300).name == name


def test_under_windows_the_tokens_of_one_window_are_counted():
    layout, schedule = TokenLayout(300, 2, (3, 3), reference=150), ReductionSchedule.parse("chunked:12+4:2x3", 300)
    one = TokenLayout(12, 2, (3, 3), reference=6)
    assert schedule.token_counts(layout) == ReductionSchedule.parse("2x3", 300).token_counts(one)


@pytest.mark.parametrize("word", ["x" * 300, "9" * 5000, "2x" + "9" * 5000, "{" * 4000, "\0", "chunked:" * 500])
def test_words_beyond_reason_are_one_sentence(word: str) -> None:
    with pytest.raises(InputError, match="must be"):
        ReductionSchedule.parse(word, 300, LAYERS)


def test_a_word_of_a_stranger_names_no_file(tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    path.write_text("{}")
    told = []
    for word in (str(path), f"chunked:60+20:{path}", str(tmp_path / "nothing.json")):
        with pytest.raises(InputError) as refused:
            ReductionSchedule.parse(word, 300, LAYERS, files=False)
        told.append(str(refused.value).replace(word, ""))
    assert told[0] == told[-1]  # whether it is there is not told
