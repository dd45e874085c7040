"""The report as a file: everything inside, nothing from elsewhere, every number where it belongs."""

import dataclasses
import html
import json
import re

import pytest

from spark3r.compare import Difference, Factor, Samples
from spark3r.metrics import Consistency, Scores
from tests.analytic import reconstruction
from viewer.report import Compared, Content, Dot, recording
from viewer.state import ViewSettings
from viewer.world import Baseline

SCORES = Scores(0.05, 0.99, 0.1, 0.02, 1.5, 0.4, 0.8, 0.01, 0.02, 0.9)
FIT = Consistency(0.5, 0.7, 0.9, 1.0, 1.25, 1000)


@pytest.fixture(scope="module")
def content() -> Content:
    dense = reconstruction(5, 12, 16)
    reduced = dataclasses.replace(dense, depth=dense.depth * 1.01)
    left = Compared("Dense", dense, dense.cost, Samples((4000.0, 4200.0, 4100.0)), SCORES, FIT)
    worse = dataclasses.replace(SCORES, abs_rel=0.0723, delta_1_25=0.995)
    right = Compared("Spark3R", reduced, reduced.cost, Samples((1000.0,)), worse, FIT)
    return Content(
        "a <b>walk</b>", "python -m spark3r compare 'a b.mp4' --kv-factor 8", Baseline(dense), left, right,
        Difference(0.0123, 1.0, 0.1, 0.034, 1.7, 0.9, 0.95, 0.004), Factor(4.1, 3.9, 4.3, 0.1), None, 5.25,
        {"processor": "a chip", "threads": 2, "torch": "2.13", "system": "Linux"},
        dots=(Dot("queries 4→1", 0.7, 0.09),), doubt="The machine was busy meanwhile.",
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(content: Content) -> str:
    return content.html()


def words(page: str) -> str:
    """What a person reads."""
    body = re.sub(r"<(script|style)\b.*?</\1>|<iframe\b.*?</iframe>", " ", page, flags=re.S)
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", body).split()))


def test_every_number_is_told(page: str) -> None:
    told = words(page)
    for part in ("a <b>walk</b>", "4.10×", "3.9–4.3×", "5.25×", "median of 3", "5.00 % 7.23 % +2.23 %",
                 "99.0 % 99.5 % +0.5 %", "0.50 px 0.50 px", "1.23 %", "0.40 %", "a chip, 2 threads · torch 2.13",
                 "The machine was busy meanwhile.", "--kv-factor 8", "5 frames at 16 × 12"):  # fmt: skip
        assert part in told, part


def test_better_and_worse_follow_the_direction_of_each_score(page: str) -> None:
    assert re.search(r'class="worse">\s*\+2\.23 %', page)  # a larger depth error
    assert re.search(r'class="better">\s*\+0\.5 %', page)  # a larger share of close pixels
    assert re.search(r'class="">\s*\+0\.00 px', page)


def test_nothing_is_asked_from_elsewhere(page: str) -> None:
    shell = re.sub(r'srcdoc="[^"]*"', "", page)
    assert not re.findall(r'(?:src|href)\s*=\s*["\'](?!data:)', re.sub(r"<script\b.*?</script>", "", shell, flags=re.S))
    assert "@import" not in shell
    assert "url(" not in shell


def test_frames_and_clouds_are_inside(page: str, content: Content) -> None:
    described = re.search(r'<script type="application/json" id="world">(.*?)</script>', page, re.S)
    assert described is not None
    world = json.loads(described[1])
    assert world["frames"] == 5
    assert set(world["sheets"]) == {"input-0", "left-0", "right-0", "difference-0"}
    assert page.count("__VISER_EMBED_DATA__=") == 2
    assert len(re.findall(r"<circle class=", page)) == 3


def test_a_recording_is_visers_own_format(content: Content) -> None:
    few, many = (
        recording(content.right.scene, content.baseline, ViewSettings(thousand_points=thousand, cameras=False))
        for thousand in (10, 1000)
    )
    assert few[:4] == many[:4]
    assert len(few) > 1000
