"""The page as a visitor meets it: what is clicked, what is seen."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from spark3r.examples import list_clips
from spark3r.reduction.schedule import ReductionSchedule
from tests.browser.conftest import (
    camera_position,
    drag,
    drawn_share,
    new_tab,
    reconstruct,
    set_number,
    turn,
    wait_done,
)

FRAMES = 16
HOSTILE = "my <b>clip<b> & more"  # a file name cannot hold a slash


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of the visitor's own, with markup in its name."""
    path = tmp_path_factory.mktemp("upload") / f"{HOSTILE}.mp4"
    shutil.copyfile(list_clips()[0].video, path)
    return path


def upload(page: Page, path: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(str(path))


def eventually(page: Page, holds: Callable[[], object], seconds: float = 45) -> None:
    """Wait until something holds; machines that run tests are of any speed."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        page.wait_for_timeout(250)


def badge(page: Page, side: str) -> str:
    return page.inner_text(f".pane-heading.{side} .badge")


def test_a_video_becomes_two_clouds_and_sliders_redo_only_one(tab: Page, video: Path) -> None:
    upload(tab, video)
    expect(tab.locator(".clip figcaption b")).to_contain_text("clip", timeout=30_000)
    assert tab.locator(".clip figcaption b b").count() == 0  # the name stayed text
    set_number(tab, "Max. frames", FRAMES)
    expect(tab.locator("#frames-plan")).to_contain_text(f"{FRAMES} of", timeout=15_000)
    expect(tab.locator("#frames-plan")).to_contain_text("rendered scenes")  # mini on foreign footage
    assert drawn_share(tab.locator("#pane-left")) < 0.2  # only the words of the empty pane

    reconstruct(tab)
    assert badge(tab, "dense") == badge(tab, "reduced") == "measured now"
    for side in ("dense", "reduced"):  # the clouds travel and are drawn
        eventually(tab, lambda pane=tab.locator(f"#pane-{side} iframe"): drawn_share(pane) > 0.05)
    assert "×" in tab.inner_text("[data-testid=speedup]")
    expect(tab.locator("#differences tbody tr")).to_have_count(4)

    dense_time = tab.inner_text(".pane-heading.dense .time")
    turn(tab, "Key/value factor", 2)
    expect(tab.locator(".pane-heading.dense .badge")).to_have_text("reused", timeout=60_000)
    wait_done(tab)
    assert badge(tab, "reduced") == "measured now"
    assert tab.inner_text(".pane-heading.dense .time") == dense_time

    before = camera_position(tab, "right")
    drag(tab, "left", 120, 30)
    eventually(tab, lambda: np.linalg.norm(camera_position(tab, "right") - before) > 0.1)
    eventually(tab, lambda: np.allclose(*(camera_position(tab, side) for side in ("right", "left")), atol=1e-2))
    together = camera_position(tab, "right")
    tab.get_by_text("View", exact=True).click()
    tab.get_by_label("Link views").uncheck()
    tab.get_by_text("View", exact=True).click()
    tab.wait_for_timeout(3000)
    drag(tab, "left", -120)
    tab.wait_for_timeout(1000)
    assert np.allclose(camera_position(tab, "right"), together, atol=1e-2)

    with tab.expect_download() as download:
        tab.locator("#downloads a", has_text="GLB").first.click()
    assert Path(download.value.path()).read_bytes()[:4] == b"glTF"


def test_a_number_far_out_of_range_is_a_sentence_and_snaps_back(
    chromium: Browser, address: str, server_log: Path
) -> None:
    page = new_tab(chromium, address)
    page.get_by_text("Frames: ").click()
    box = page.get_by_label("number input for Max. frames")
    box.fill("5000")
    expect(page.locator("#frames-plan")).to_contain_text("Max frames is 5000: enter 1 to 1000.", timeout=15_000)
    box.blur()
    expect(box).to_have_value("1000")
    expect(page.locator("#frames-plan dl")).to_be_visible(timeout=15_000)
    page.get_by_text("View", exact=True).click()
    set_number(page, "Point size", 99)
    expect(page.locator(".toast-body")).to_contain_text("Point size is 99: enter 1 to 30.", timeout=15_000)
    page.context.close()
    assert "Traceback" not in server_log.read_text()


def test_a_schedule_file_takes_the_place_of_the_sliders(chromium: Browser, address: str, tmp_path: Path) -> None:
    page = new_tab(chromium, address)
    page.get_by_text("From a file").click()
    expect(page.locator("#frames-plan")).to_contain_text("Choose a schedule file", timeout=15_000)
    for name, text, said in (
        ("wrong.json", '{"factor": 2}', "a schedule is an object with the keys"),
        ("right.json", ReductionSchedule(3, 5, sensitive_layers=(2,)).to_json(), "keys/values in sensitive layers"),
    ):
        (tmp_path / name).write_text(text)
        page.locator(".schedule input[type=file]").set_input_files(str(tmp_path / name))
        expect(page.locator("#frames-plan, #kv-factor-dial").first).to_be_visible()
        expect(page.locator("body")).to_contain_text(said, timeout=15_000)
        if name == "wrong.json":
            page.get_by_label("Remove this file").or_(page.locator(".schedule button[aria-label=Clear]")).first.click()
    page.close()


def test_stop_stops_and_the_page_goes_on(tab: Page) -> None:
    set_number(tab, "Max. frames", 1000)
    tab.click("#run")
    tab.wait_for_selector("#progress .progress[data-phase=dense], #progress .progress[data-phase=preparing]")
    expect(tab.locator("#stop")).to_be_enabled(timeout=10_000)
    tab.click("#stop")
    tab.wait_for_selector("#progress .progress[data-phase=stopped]", timeout=20_000)
    assert "nothing you set was lost" in tab.inner_text("#progress")
    expect(tab.locator("#run")).to_be_enabled(timeout=10_000)


def test_what_is_not_a_video_is_said_and_the_chosen_clip_stays(tab: Page, tmp_path: Path) -> None:
    wrong = tmp_path / "notes & <i>more<i>.mp4"
    wrong.write_text("not a video")
    chosen = tab.inner_text(".clip figcaption b")
    upload(tab, wrong)
    alert = tab.locator(".note.error")
    expect(alert).to_contain_text("notes", timeout=20_000)
    assert alert.locator("i").count() == 0
    set_number(tab, "Max. frames", FRAMES)
    reconstruct(tab)
    assert tab.inner_text(".clip figcaption b") == chosen
    assert tab.locator("[data-testid=speedup]").count() == 1


def test_two_tabs_are_apart_and_a_closed_one_ends(chromium: Browser, tab: Page, address: str) -> None:
    other = new_tab(chromium, address)
    keys = [page.get_attribute("#pane-left iframe", "data-pane") for page in (tab, other)]
    assert keys[0] != keys[1]
    set_number(tab, "Max. frames", 8)
    reconstruct(tab)
    assert other.locator("#progress .progress[data-phase=done]").count() == 0
    assert other.locator(".pane-heading .badge").count() == 0
    other.context.close()
    tab.wait_for_timeout(15_000)  # the grace time, and the reaper; to ask earlier would count as coming back
    assert tab.request.get(f"{address}viewer/{keys[1]}/").status == 404
    assert tab.request.get(f"{address}viewer/{keys[0]}/").status == 200
