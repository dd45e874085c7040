"""Numbers as HTML: nothing a visitor names can become markup, and every number says where it is from."""

import pytest

from spark3r.errors import InputError
from viewer import charts
from viewer.state import ExampleClip, LiveRun, RunReport

ATTACK = '<img src=x onerror="alert(1)">.mp4'


@pytest.mark.parametrize(
    "html",
    [
        charts.message(ATTACK),
        charts.clip_preview(ATTACK, ATTACK, (), (ATTACK,)),
        charts.plan({ATTACK: ATTACK}, ATTACK),
        charts.progress(RunReport("failed", doing=ATTACK, message=ATTACK, notes=(ATTACK,))),
        charts.progress(RunReport("measuring", doing=ATTACK, live={"dense": LiveRun("running", stage=ATTACK)})),
        charts.pane_heading("right", charts.Heading(ATTACK, ATTACK, note=ATTACK)),
        charts.downloads([(ATTACK, [(ATTACK, ATTACK, ATTACK)])], ATTACK),
        charts.examples([ExampleClip("room", ATTACK, ATTACK, "data:")], ""),
        charts.iframe("left", ATTACK),
    ],
)
def test_what_a_visitor_names_stays_text(html: str) -> None:
    assert "&lt;img" in html
    assert "<img src=x" not in html


def test_an_error_is_announced() -> None:
    assert 'role="alert"' in charts.progress(RunReport("failed", message=str(InputError("no"))))
