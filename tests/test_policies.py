"""Quality against time for all policies: what is measured is joined, and what is beaten is not on the front."""

import json
from pathlib import Path

import cv2
import pytest

from spark3r.__main__ import main
from spark3r.benchmark.policies import QUALITIES, SCHEDULES, summary
from spark3r.benchmark.unseen import SCORES
from spark3r.reduction import ReductionSchedule
from spark3r.reduction.policies import POLICIES

WORDS = ("dense", "1x2", "chunked:3+1")


@pytest.fixture(scope="module")
def measured(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    folder = tmp_path_factory.mktemp("policies")
    target, chart = folder / "policies.json", folder / "policies.png"
    flags = ["--model", str(untrained), "--device", "cpu", "--dtype", "float32", "--clips", "1", "--repeats", "1"]
    outputs = ["--json", str(target), "--chart", str(chart), "--quiet"]
    assert main(["policies", *flags, "--frames", "4", "6", "--schedule", *WORDS, *outputs]) == 0
    return json.loads(target.read_text()), chart


def test_every_policy_is_among_the_usual_schedules():
    names = {ReductionSchedule.parse(word, 300, (1, 2)).name for word in SCHEDULES}
    assert names == {"dense", "chunked", *POLICIES}


@pytest.mark.slow
def test_a_row_for_every_length_and_schedule_with_time_and_quality(measured: tuple[dict, Path]):
    rows = measured[0]["summary"]
    assert [(row["frames"], row["schedule"]) for row in rows] == [(n, word) for n in (4, 6) for word in WORDS]
    assert all(row["total_ms"] > 0 and row["abs_rel"] > 0 and row["clips"] == 1 for row in rows)
    assert [row["speedup_total"] for row in rows if row["schedule"] == "dense"] == [1, 1]
    scored = [row for row in measured[0]["rows"] if (row["frames"], row["schedule"]) == (6, "1x2")]
    assert rows[4]["auc_30"] == pytest.approx(scored[0]["auc_30"])
    fastest = min(rows[:3], key=lambda row: row["total_ms"])
    assert set(fastest["front"]) == set(QUALITIES), "nothing is faster"


@pytest.mark.slow
def test_the_chart_is_a_picture(measured: tuple[dict, Path]):
    picture = cv2.imread(str(measured[1]))
    assert picture.shape[0] > 600  # pyright: ignore[reportOptionalMemberAccess]
    assert len(set(map(tuple, picture[::7, ::7].reshape(-1, 3).tolist()))) > 6  # pyright: ignore[reportOptionalSubscript]


@pytest.mark.slow
def test_times_measured_before_serve_again(measured, untrained: Path, tmp_path: Path, capsys):
    before = measured[1].with_suffix(".json")
    flags = ["--model", str(untrained), "--device", "cpu", "--dtype", "float32", "--clips", "1", "--quiet"]
    again = [*flags, "--frames", "4", "--schedule", "dense", "--json", "-"]
    assert main(["policies", *again, "--times", str(before)]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["times"] == measured[0]["times"]
    assert [row["schedule"] for row in content["summary"]] == ["dense"]
    assert main(["policies", *again, "--times", str(tmp_path / "none.json")]) == 1
    assert "holds no times" in capsys.readouterr().err


def row(schedule: str, seconds: float, **scores: float | None) -> tuple[dict, dict]:
    time = {"frames": 9, "schedule": schedule, "policy": schedule, "words": schedule, "aggregator_ms": seconds}
    time |= {"total_ms": seconds, "speedup_total": 1.0, "speedup_aggregator": 1.0}
    return time, {"frames": 9, "schedule": schedule, **dict.fromkeys(SCORES, 0.5), **scores}


def test_on_the_front_is_what_nothing_beats_in_time_and_quality():
    pairs = [
        row("quick", 1, abs_rel=0.3, auc_3=0.1, auc_30=None),
        row("slow", 9, abs_rel=0.1, auc_3=0.1),
        row("beaten", 5, abs_rel=0.4, auc_3=0.3),
        row("twin", 9, abs_rel=0.1, auc_3=0.05),
    ]
    front = {r["schedule"]: r["front"] for r in summary(*map(list, zip(*pairs, strict=True)))}
    assert front == {
        "quick": ["abs_rel", "auc_3"],
        "slow": ["abs_rel"],
        "beaten": ["auc_3", "auc_30"],
        "twin": ["abs_rel"],
    }


def test_what_did_not_fit_or_was_not_scored_has_no_row():
    time, scored = row("dense", 1)
    assert summary([{**time, "skipped": "too long"}], [scored]) == []
    assert summary([time], []) == []
