"""Numbers as HTML: nothing a visitor names can become markup, and every number says where it is from."""

import math
from dataclasses import replace
from typing import ClassVar

import pytest

from spark3r.errors import InputError
from spark3r.metrics import Scores
from spark3r.reconstruction import Cost
from viewer import charts
from viewer.state import RunReport, SideReport

ATTACK = '<img src=x onerror="alert(1)">.mp4'
DENSE = Cost({"decode": 10.0, "global_attention": 800.0, "heads": 190.0, "total": 1000.0}, 3 * 2**20, 5000, 5000, 5000)
REDUCED = replace(DENSE, milliseconds={"decode": 10.0, "global_attention": 200.0, "heads": 190.0, "total": 400.0})
DONE = RunReport(
    "done",
    dense=SideReport("reused", fraction=1.0, cost=DENSE),
    reduced=SideReport("measured", fraction=1.0, cost=REDUCED),
)


@pytest.mark.parametrize(
    "html",
    [
        charts.message(ATTACK),
        charts.clip_preview(ATTACK, ATTACK, (), (ATTACK,)),
        charts.plan({ATTACK: ATTACK}, ATTACK),
        charts.progress(RunReport("failed", doing=ATTACK, message=ATTACK, notes=(ATTACK,))),
        charts.progress(RunReport("dense", doing=ATTACK, dense=SideReport("running", stage=ATTACK))),
        charts.pane_heading("reduced", RunReport(schedule=ATTACK)),
        charts.readout(RunReport(conditions=ATTACK)),
        charts.downloads([(ATTACK, [(ATTACK, ATTACK, ATTACK)])]),
        charts.iframe("left", ATTACK),
    ],
)
def test_what_a_visitor_names_stays_text(html: str) -> None:
    assert "&lt;img" in html
    assert "<img src=x" not in html


def test_both_factors_are_quoted() -> None:
    html = charts.readout(DONE)
    assert "4.00×" in html  # 800 / 200: aggregator
    assert "2.50×" in html  # 1000 / 400: whole


def test_each_run_says_whether_it_was_measured() -> None:
    assert "reused" in charts.pane_heading("dense", DONE)
    assert "measured now" in charts.pane_heading("reduced", DONE)


def test_bars_share_one_scale_and_grow_while_running() -> None:
    half = SideReport("running", "heads", 0.5, {"global_attention": 250.0}, elapsed_ms=500.0)
    html = charts.readout(replace(DONE, phase="reduced", reduced=half))
    assert "width:80.000%" in html  # dense global attention of the longest run
    assert "width:25.000%" in html  # the growing one, against the same longest run
    assert "aggregator speed-up" in html
    assert "×<" not in html  # no factor before both are done


def test_the_first_bar_has_room_to_grow() -> None:
    running = SideReport("running", "heads", 0.25, {"global_attention": 200.0}, elapsed_ms=250.0)
    html = charts.readout(RunReport("dense", dense=running))
    assert "width:20.000%" in html  # 200 ms of the 1000 ms to be expected


def test_an_empty_page_has_no_numbers() -> None:
    assert "measured" not in charts.readout(RunReport())


def test_undefined_differences_are_a_dash() -> None:
    class Undefined:
        abs_rel = ate_relative = rotation_deg = chamfer = math.nan

    class Comparison:
        difference = Undefined
        truth: ClassVar[dict[str, Scores]] = {}

    rows = charts.difference_rows(Comparison)  # pyright: ignore[reportArgumentType]
    assert [row.reduced_to_dense for row in rows] == ["–"] * 4


def test_progress_of_a_reused_baseline_starts_at_zero() -> None:
    running = SideReport("running", fraction=0.25)
    html = charts.progress(replace(DONE, phase="reduced", reduced=running))
    assert "width:25.0%" in html


def test_an_error_is_announced() -> None:
    assert 'role="alert"' in charts.progress(RunReport("failed", message=str(InputError("no"))))
