"""The page as a visitor meets it: what is clicked, what is seen."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from spark3r.examples import list_clips
from tests.browser.conftest import (
    RUN_MS,
    UPLOAD_MIB,
    new_tab,
    reconstruct,
    set_number,
    turn,
    wait_done,
    wait_first,
)

FRAMES = 16
HOSTILE = "my &copy clip & more"  # gradio strips < and >; this is © where a name is taken for markup
SEEN_TOGETHER = (
    "#pane-left iframe", "#pane-right iframe", "#dial-query_factor", "#dial-kv_factor", "#run", "#stop",
    "[data-testid=verdict]", "[data-testid=speedup]", ".plot",
)  # fmt: skip

# Files dropped on an element, as a browser delivers them.
DROP = """([selector, name, text]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([text], name));
  const target = document.querySelector(selector);
  const sent = (type) => !target.dispatchEvent(
    new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: transfer }));
  sent('dragenter');
  const overlay = getComputedStyle(document.querySelector('.drop-overlay')).display;
  return [overlay, sent('dragover'), sent('drop')];
}"""
SHIFTS = """() => {
  window.shifted = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted += entry.value;
  }).observe({ type: 'layout-shift', buffered: false });
}"""
EXPECTED = """() => {
  window.expected = false;
  new MutationObserver(() => {
    for (const total of document.querySelectorAll('.bar-total')) window.expected ||= total.textContent.includes('of ~');
  }).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""
CUT_OFF = """(selector) => {
  const box = document.querySelector(selector);
  return box.scrollHeight - box.clientHeight;
}"""
SMALL_TEXT = """() => [...document.querySelectorAll('.page *')]
  .filter((e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()))
  .filter((e) => parseFloat(getComputedStyle(e).fontSize) < 12 && parseFloat(getComputedStyle(e).fontSize) > 0)
  .map((e) => e.className + ': ' + e.textContent.slice(0, 40))"""


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of the visitor's own, with markup in its name."""
    path = tmp_path_factory.mktemp("upload") / f"{HOSTILE}.mp4"
    shutil.copyfile(list_clips()[0].video, path)
    return path


def upload(page: Page, *paths: Path) -> None:
    page.locator("#upload input[type=file]").first.set_input_files([str(path) for path in paths])


@pytest.fixture(scope="module")
def first(chromium: Browser, address: str) -> Iterator[Page]:
    """A tab that is only looked at, with the first example's runs."""
    page = new_tab(chromium, address, clouds=False)
    wait_first(page)
    yield page
    page.context.close()


@pytest.fixture
def seen(first: Page) -> Page:
    """The tab that is only looked at, large and light."""
    look_at(first, 1440, 900)
    return first


def look_at(page: Page, width: int, height: int) -> None:
    """Another window: what the page does once for a small one, it does anew."""
    page.evaluate("spark3r.setWipe(false); delete document.getElementById('panes').dataset.folded")
    page.set_viewport_size({"width": width, "height": height})


def test_a_fresh_tab_shows_a_real_result_at_once(seen: Page) -> None:
    assert seen.locator(".pane-heading .badge").all_inner_texts() == ["at app start"] * 2
    expect(seen.locator("#run")).to_have_text("Measure again")
    assert re.fullmatch(r"[\d.]+×", seen.inner_text("[data-testid=speedup]"))
    assert "depth" in seen.inner_text("[data-testid=verdict]")
    assert "You waited" in seen.inner_text("[data-testid=waited]")
    expect(seen.locator("#quality tbody tr")).to_have_count(8)


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1440, 900), (1920, 1080)])
def test_the_dial_and_its_effect_are_seen_together(seen: Page, width: int, height: int) -> None:
    look_at(seen, width, height)
    for selector in SEEN_TOGETHER:
        box = seen.locator(selector).first.bounding_box()
        assert box is not None, selector
        assert box["y"] >= 0, selector
        assert box["y"] + box["height"] <= height, selector
        assert box["x"] + box["width"] <= width, selector
    pane = seen.locator("#pane-left iframe").bounding_box()
    assert pane is not None
    assert pane["width"] > pane["height"]
    assert seen.evaluate(CUT_OFF, ".readout") <= 1  # pixels
    for side, tools in zip(("left", "right"), seen.locator(".tool-group").all(), strict=True):
        pane, group = seen.locator(f"#side-{side}").bounding_box(), tools.bounding_box()
        assert pane is not None
        assert group is not None
        assert pane["x"] <= group["x"]
        assert group["x"] + group["width"] <= pane["x"] + pane["width"]
    assert seen.evaluate(SMALL_TEXT) == []


@pytest.mark.parametrize(("width", "height"), [(390, 844), (820, 1180)])
def test_small_screens_cut_nothing_off(seen: Page, width: int, height: int) -> None:
    look_at(seen, width, height)
    expect(seen.locator("#panes")).to_have_attribute("data-wipe", "yes")  # one pair
    assert seen.evaluate("document.documentElement.scrollWidth") <= width
    for selector in ("#run", "#stop", "#dial-kv_factor", ".examples button"):
        box = seen.locator(selector).first.bounding_box()
        assert box is not None
        assert box["height"] >= 39.5, selector
        assert box["x"] >= 0, selector
        assert box["x"] + box["width"] <= width, selector


def test_a_dial_measures_keeps_and_restores(chromium: Browser, address: str) -> None:
    page = new_tab(chromium, address, query=f"?clip=table_orbit&q=2&kv=8&frames={FRAMES}", clouds=False)
    expect(page.locator(".examples button[aria-pressed=true]")).to_contain_text("table")
    expect(page.locator("#frames-line")).to_contain_text(f"{FRAMES} of")
    # Until it was run, the clip's name stands over no clouds but its own.
    page.wait_for_function(
        "!document.querySelector('#side-left .badge') || document.querySelectorAll('[data-state=stale]').length === 2"
    )
    reconstruct(page)
    page.evaluate(SHIFTS)
    page.evaluate(EXPECTED)
    turn(page, "Key/value factor", 4)
    expect(page.locator(".pane-note").first).to_be_visible()
    expect(page.locator("#stop")).to_be_enabled(timeout=RUN_MS)
    wait_done(page)
    assert page.evaluate("window.expected")  # how long it would take was seen, however short it was
    assert page.evaluate("window.shifted") < 0.1
    assert "kv=4" in page.url
    expect(page.locator(".chip")).to_have_count(5)  # two of the first example, dense, two factors
    expect(page.locator("#side-right .badge")).to_have_text(re.compile(r"median of \d+|measured once"))
    page.reload()
    expect(page.locator(".chip")).to_have_count(5)
    expect(page.locator("output[for=dial-kv_factor]")).to_have_text("4")
    expect(page.locator("#side-right .subtitle")).to_contain_text("keys/values 4→1")
    page.locator(".chip", has_text="q 2 · kv 8").first.locator("button").first.click()
    expect(page.locator("output[for=dial-kv_factor]")).to_have_text("8")
    expect(page.locator("#side-right .subtitle")).to_contain_text("keys/values 8→1")
    page.locator(".chip", has_text="q 2 · kv 4").first.get_by_text("A", exact=True).click()
    expect(page.locator("#side-left .subtitle")).to_contain_text("keys/values 4→1")
    assert "Not measured in turns" in page.inner_text("#readout")
    page.context.close()


def test_a_dial_stays_where_the_hand_left_it_however_late_the_page_answers(chromium: Browser, address: str) -> None:
    page = new_tab(chromium, address, query="?clip=table_orbit&q=2&kv=2&frames=16", clouds=False)
    expect(page.locator("#frames-line")).to_contain_text("16 of")
    expect(page.locator(".chip")).to_have_count(2, timeout=RUN_MS)  # of the first example: something to compare to
    page.locator("#frames-line > button").click()
    dial = page.locator("#dial-kv_factor")
    box = dial.bounding_box()
    assert box is not None
    stops = [int(stop) for stop in (dial.get_attribute("data-stops") or "").split()]
    share = box["width"] / (len(stops) - 1)
    page.mouse.move(box["x"] + share * stops.index(2), box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + share * stops.index(4), box["y"] + box["height"] / 2, steps=4)
    expect(page.locator("output[for=dial-kv_factor]")).to_have_text("4")
    set_number(page, "Max. frames", 20)  # its answer redraws the dial under the hand
    expect(page.locator("#frames-line")).to_contain_text("20 of")
    page.mouse.up()
    wait_done(page)
    expect(page.locator("output[for=dial-kv_factor]")).to_have_text("4")
    expect(page.locator("#side-right .subtitle")).to_contain_text("keys/values 4→1")
    expect(page.locator("[data-state=stale]")).to_have_count(0)
    page.context.close()


def test_a_sweep_fills_the_plot_and_a_dot_brings_its_run_back(chromium: Browser, address: str) -> None:
    page = new_tab(chromium, address, query="?clip=table_orbit&q=2&kv=8&frames=8", clouds=False)
    expect(page.locator("#frames-line")).to_contain_text("8 of")
    page.locator(".menu summary", has_text="Grid").click()
    page.locator("[data-grid=queries]").fill("1, 2")
    page.locator("[data-grid=keys]").fill("1, 2")
    page.locator("[data-grid=others]").uncheck()
    page.locator("[data-action=sweep]").click()
    expect(page.locator("[data-action=stop-sweep]")).to_be_visible(timeout=RUN_MS)
    page.locator("#measure").select_option("path")  # heard while the sweep goes on
    expect(page.locator(".plot")).to_have_attribute("aria-label", re.compile("Camera path"))
    expect(page.locator("[data-action=stop-sweep]")).to_have_count(0, timeout=RUN_MS)
    expect(page.locator(".dot")).to_have_count(4)
    expect(page.locator(".dot.dense")).to_have_count(1)
    page.locator(".dot[aria-label^='q 1 · kv 2']").click()
    page.locator("#measure").select_option("depth")  # at once: neither is lost
    expect(page.locator("output[for=dial-query_factor]")).to_have_text("1")
    expect(page.locator(".plot")).to_have_attribute("aria-label", re.compile("Depth"))
    page.locator(".menu summary", has_text="Grid").click()
    page.locator("[data-grid=keys]").fill("1, 2, 3, 4, 8, 16")
    page.locator("[data-action=sweep]").click()
    page.locator("[data-action=stop-sweep]").click(timeout=RUN_MS)
    expect(page.locator("[data-action=sweep]")).to_be_enabled(timeout=RUN_MS)
    assert 4 <= page.locator(".dot").count() < 12  # what was measured stays
    page.context.close()


def test_a_failed_upload_disables_run_and_says_why(tab: Page, tmp_path: Path) -> None:
    wrong = tmp_path / "notes & <i>more<i>.mp4"
    wrong.write_text("not a video")
    wait_first(tab)
    upload(tab, wrong)
    alert = tab.locator("#clip .note.error")
    expect(alert).to_contain_text("notes")
    assert alert.locator("i").count() == 0
    expect(tab.locator("#run")).to_be_disabled()
    assert tab.locator(".examples button[aria-pressed=true]").count() == 0
    tab.locator(".examples button").first.click()
    expect(tab.locator("#run")).to_be_enabled()
    expect(alert).to_have_count(0)


@pytest.mark.parametrize(
    ("mebibytes", "words"),
    [
        ((UPLOAD_MIB[0] + 1,), "A file may take 6 MiB at most"),
        ((UPLOAD_MIB[0] - 1,) * 3, "Your files take more than 10 MiB"),
    ],
)
def test_an_upload_beyond_the_limits_is_told_beside_the_field_before_a_byte_travels(
    tab: Page, tmp_path: Path, video: Path, mebibytes: tuple[int, ...], words: str
) -> None:
    paths = [tmp_path / f"{number}.mp4" for number in range(len(mebibytes))]
    for path, size in zip(paths, mebibytes, strict=True):
        path.write_bytes(b"x" * (size << 20))
    upload(tab, video)
    expect(tab.locator(".clip figcaption b")).to_contain_text(HOSTILE)
    sent: list[str] = []
    tab.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    upload(tab, *paths)
    alert = tab.locator("#clip .note.error")
    expect(alert).to_contain_text(words)
    expect(tab.locator("#run")).to_be_disabled()
    expect(tab.locator(".toast-body")).to_have_count(0)  # one sentence is enough
    assert [url for url in sent if "/gradio_api/upload" in url] == []
    tab.locator(".examples button").first.click()
    expect(tab.locator("#run")).to_be_enabled()
    expect(alert).to_have_count(0)


def test_an_upload_that_the_server_refuses_or_loses_is_told_too(chromium: Browser, address: str, video: Path) -> None:
    tab = new_tab(chromium, address, clouds=False)  # of its own: Gradio tells of the errors too, for ten seconds
    alert, address = tab.locator("#clip .note.error"), "**/gradio_api/upload?*"
    tab.route(address, lambda route: route.fulfill(status=507, content_type="text/plain", body="The disk is full."))
    upload(tab, video)
    expect(alert).to_have_text("The disk is full.")
    tab.unroute(address)
    tab.route(address, lambda route: route.fulfill(status=413, content_type="text/html", body="<h1>Too large</h1>"))
    upload(tab, video)
    expect(alert).to_contain_text("The server refused the upload (413)")
    tab.unroute(address)
    tab.route(address, lambda route: route.abort())
    upload(tab, video)
    expect(alert).to_contain_text("broke off")
    expect(tab.locator("#run")).to_be_disabled()
    tab.unroute(address)
    upload(tab, video)
    expect(tab.locator(".clip figcaption b")).to_contain_text(HOSTILE)
    expect(tab.locator("#run")).to_be_enabled()
    tab.context.close()


def test_the_whole_page_takes_a_drop(tab: Page) -> None:
    wait_first(tab)
    before = tab.url
    overlay, over, dropped = tab.evaluate(DROP, ["#readout", "words.mp4", "not a video"])
    assert (overlay, over, dropped) == ("grid", True, True)  # shown; and nothing is left to the browser
    expect(tab.locator("#clip .note.error")).to_contain_text("words.mp4")
    assert tab.url.split("?")[0] == before.split("?")[0]


def test_real_footage_is_told_apart(tab: Page, video: Path) -> None:
    wait_first(tab)
    upload(tab, video)
    expect(tab.locator(".clip figcaption b")).to_contain_text(HOSTILE)
    expect(tab.locator(".footage")).to_contain_text("Rough shape at best")
    expect(tab.locator(".footage button")).to_contain_text("Use Depth Anything 3 Small")
    expect(tab.locator("[data-state=stale]")).to_have_count(2)
    assert "living room" in tab.inner_text("#side-left .subtitle")  # never under the name of another clip


def test_stop_stops_and_the_page_goes_on(chromium: Browser, address: str) -> None:
    page = new_tab(chromium, address, query="?frames=120", clouds=False)
    expect(page.locator("#frames-line")).to_contain_text("120 of")
    page.click("#run")
    expect(page.locator("#stop")).to_be_enabled()
    page.click("#stop")
    page.wait_for_selector("#progress .progress[data-phase=stopped]")
    expect(page.locator("#run")).to_be_enabled()
    page.context.close()


def test_a_number_far_out_of_range_is_a_sentence_and_snaps_back(
    chromium: Browser, address: str, server_log: Path
) -> None:
    page = new_tab(chromium, address, clouds=False)
    wait_first(page)
    page.locator("#frames-line > button").click()
    box = page.get_by_label("number input for Max. frames")
    box.fill("5000")
    expect(page.locator("#frames-plan")).to_contain_text("Max frames is 5000: enter 1 to 1000.")
    box.blur()
    expect(box).to_have_value("1000")
    expect(page.locator("#frames-plan dl")).to_be_visible()
    page.context.close()
    assert "Traceback" not in server_log.read_text()


def test_automatic_and_by_hand_change_places(tab: Page) -> None:
    wait_first(tab)
    set_number(tab, "Max. frames", 8)
    tab.get_by_text("Auto", exact=True).click()
    expect(tab.locator("output[for=dial-kv_factor]")).to_have_text("1")
    turn(tab, "Query factor", 2)
    expect(tab.get_by_label("By hand")).to_be_checked()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_in_the_way_of_anybody(seen: Page, scheme: Literal["light", "dark"]) -> None:
    seen.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # colours change at once
    expect(seen.locator("body.dark")).to_have_count(int(scheme == "dark"))
    found = Axe().run(seen, options={"iframes": False, "runOnly": ["wcag2a", "wcag2aa"]})
    grave = [
        f"{issue['id']}: {node['target']} {node.get('failureSummary', '')[:200]}"
        for issue in found.response["violations"] if issue["impact"] in ("serious", "critical")
        for node in issue["nodes"]
    ]  # fmt: skip
    assert grave == []
