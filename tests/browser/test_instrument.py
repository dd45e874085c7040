"""What the panes and the strip show, by their pixels: colours, frames, views, wipe, and the report from disk."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from spark3r.examples import list_clips
from tests.browser.conftest import RUN_MS, camera_position, drag, drawn_share, new_tab
from viewer.palette import PALETTES

SIDES = ("left", "right")
EXTENT = ("clientWidth", "clientHeight")


@pytest.fixture(scope="module")
def visit(chromium: Browser, address: str) -> Iterator[Page]:
    """One tab for all, with the first example, which the app reconstructs when it starts."""
    page = new_tab(chromium, address, 1280, 720)
    expect(page.locator(".strip-tile")).to_have_count(5, timeout=RUN_MS)
    for side in SIDES:
        eventually(lambda pane=page.locator(f"#pane-{side} iframe"): drawn_share(pane) > 0.2)
    eventually(lambda: page.get_attribute(".strip-root", "data-complete") == "true")
    yield page
    errors = page.errors  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    page.context.close()
    assert errors == []


@pytest.fixture
def shown(visit: Page) -> Page:
    """The tab as at first: own colours, first view, first frame."""
    colour_by(visit, "RGB")
    visit.evaluate("spark3r.setWipe(false)")
    if visit.get_attribute("#follow", "aria-pressed") == "true":
        visit.click("#follow")
    scrub(visit, 0)
    visit.click("[data-pane-tool=fit]")
    return visit


def eventually(holds: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something holds; machines that run tests are of any speed."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.25)


def picture(part: Locator) -> np.ndarray:  # [H, W, 3] RGB
    image = cv2.imdecode(np.frombuffer(part.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image[..., ::-1].astype(int)


def near(image: np.ndarray, colour: np.ndarray) -> float:
    """The share of pixels of about this colour."""
    return float((np.abs(image - colour.astype(int)).max(axis=-1) < 24).mean())


def tile(page: Page, kind: str) -> np.ndarray:
    return picture(page.locator(f".strip-tile[data-kind={kind}] canvas"))


def scrub(page: Page, frame: int) -> None:
    page.locator(".strip-range").fill(str(frame))
    eventually(lambda: page.get_attribute(".strip-root", "data-frame") == str(frame))
    eventually(lambda: page.get_attribute(".strip-root", "data-complete") == "true")


def colour_by(page: Page, name: str) -> None:
    page.locator("#colour-by label", has_text=name).click()


def highlighted(page: Page, side: str) -> list[float]:
    return page.evaluate(
        f"document.querySelector('#pane-{side} iframe').contentWindow.__viserMutable"
        ".nodePoseData['/cameras/highlight'].position"
    )


def three_axes(point: list[float]) -> np.ndarray:
    """A point of the scene (z up) as three.js has it (y up)."""
    x, y, z = point
    return np.array([-y, z, -x])


def test_scrubbing_changes_pictures_and_cameras_without_the_server(shown: Page) -> None:
    world = shown.evaluate("window.spark3r.state.world")
    expect(shown.locator(".strip-root")).to_have_attribute("data-ahead", "true")
    before = {kind: tile(shown, kind) for kind in ("input", "left", "right", "difference")}
    asked: list[str] = []
    shown.on("request", lambda request: asked.append(request.method) if "timeline/" in request.url else None)
    for frame in (6, 12, 20):
        scrub(shown, frame)
        for side in SIDES:
            assert np.allclose(highlighted(shown, side), world["cameras"][side][frame][4:7], atol=1e-4)
    for kind, image in before.items():
        assert np.abs(tile(shown, kind) - image).mean() > 4, kind
    assert "GET" not in asked
    assert shown.inner_text(".strip-label").startswith("Frame 21 of 24")


def test_the_depth_tiles_share_one_scale_and_the_wipe_joins_them(shown: Page) -> None:
    scrub(shown, 8)
    left, right, wipe = (tile(shown, kind) for kind in ("left", "right", "wipe"))
    height, width = np.min([image.shape[:2] for image in (left, right, wipe)], axis=0)  # canvases end within pixels
    left, right, wipe = (image[28:height, :width] for image in (left, right, wipe))  # below the caption
    half = width // 2
    assert np.abs(left - wipe)[:, : half - 6].mean() < 6
    assert np.abs(right - wipe)[:, half + 6 :].mean() < 6
    assert np.abs(left - right).mean() < 40  # nearly the same depth has nearly the same colour
    divider = shown.locator(".strip-tile[data-kind=wipe] canvas")
    divider.press("ArrowRight")
    expect(divider).to_have_attribute("aria-valuenow", "55")


def test_playing_goes_through_the_frames(shown: Page) -> None:
    shown.click(".strip-buttons .play")
    first = int(shown.get_attribute(".strip-root", "data-frame") or 0)
    eventually(lambda: int(shown.get_attribute(".strip-root", "data-frame") or 0) >= first + 8)
    shown.click(".strip-buttons .play")
    expect(shown.locator(".strip-buttons .play")).to_have_text("Play")


def test_following_looks_through_the_frames_camera_in_both_panes(shown: Page) -> None:
    shown.click("#follow")
    scrub(shown, 16)
    camera = shown.evaluate("window.spark3r.state.world.cameras.left[16]")
    place = three_axes(camera[4:7])
    for side in SIDES:
        eventually(lambda side=side: np.allclose(camera_position(shown, side), place, atol=0.02))
    seen, true = picture(shown.locator("#pane-left iframe")), tile(shown, "input")
    height, width = seen.shape[:2]
    wide = round(height * true.shape[1] / true.shape[0])
    middle = seen[:, (width - wide) // 2 : (width + wide) // 2].astype(np.uint8)
    small = [cv2.resize(image.astype(np.uint8), (16, 12), interpolation=cv2.INTER_AREA) for image in (middle, true)]
    likeness = np.corrcoef(*(image[3:10].ravel() for image in small))[0, 1]  # without tools and captions  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert likeness > 0.6
    shown.click("#follow")


def test_differences_are_coloured_on_the_scale_that_the_visitor_sets(shown: Page) -> None:
    calm, alarm = PALETTES["difference"][0], PALETTES["difference"][255]
    colour_by(shown, "Difference")
    left, right = (shown.locator(f"#pane-{side} iframe") for side in SIDES)
    eventually(lambda: near(picture(left), calm) > 0.2)
    assert near(picture(left), alarm) < 0.01
    assert near(picture(right), calm) < 0.1
    legend = shown.locator("#pane-right .colour-legend")
    expect(legend).to_contain_text("2 % or more")
    expect(legend).to_contain_text("from the baseline")
    tile_before = tile(shown, "difference")
    scale = shown.locator("#moved-percent input")
    scale.fill("100")
    scale.blur()
    eventually(lambda: near(picture(right), calm) > 0.2)
    expect(legend).to_contain_text("100 % or more")
    assert np.abs(tile(shown, "difference") - tile_before).mean() > 10
    scale.fill("2")
    scale.blur()
    colour_by(shown, "Error")
    scale.fill("0.1")
    scale.blur()
    eventually(lambda: near(picture(left), alarm) > 0.1)  # the dense run is not the truth either
    expect(legend).to_contain_text("from the truth")
    scale.fill("2")
    scale.blur()


@pytest.mark.parametrize("name", ["Depth", "Confidence"])
def test_every_colour_has_numbers(shown: Page, name: str) -> None:
    before = picture(shown.locator("#pane-left iframe"))
    colour_by(shown, name)
    eventually(lambda: np.abs(picture(shown.locator("#pane-left iframe")) - before).mean() > 10)
    legend = shown.locator("#pane-left .colour-legend")
    expect(legend).to_be_visible()
    assert sum(letter.isdigit() for letter in legend.inner_text()) >= 4
    colour_by(shown, "RGB")
    expect(legend).to_be_hidden()


def test_views_move_both_panes_and_a_drag_links_them(shown: Page) -> None:
    fit = camera_position(shown, "left")
    shown.click("[data-pane-tool=top]")
    eventually(lambda: camera_position(shown, "left")[1] > fit[1] + 0.5)  # three.js has y up
    for name in ("inside", "camera", "fit"):
        shown.click(f"[data-pane-tool={name}]")
        eventually(lambda: np.allclose(*(camera_position(shown, side) for side in SIDES), atol=1e-3))
        for side in SIDES:
            eventually(lambda pane=shown.locator(f"#pane-{side} iframe"): drawn_share(pane) > 0.2)
    assert np.allclose(camera_position(shown, "left"), fit, atol=1e-2)
    drag(shown, "right", 120, 20)
    eventually(lambda: np.linalg.norm(camera_position(shown, "left") - fit) > 0.1)
    eventually(lambda: np.allclose(*(camera_position(shown, side) for side in SIDES), atol=1e-2))


def test_the_wipe_lays_one_pane_over_the_other(shown: Page) -> None:
    calm = PALETTES["difference"][0]
    colour_by(shown, "Difference")
    eventually(lambda: near(picture(shown.locator("#pane-left iframe")), calm) > 0.2)
    shown.click("[data-pane-tool=wipe]")
    boxes = [shown.locator(f"#side-{side}").bounding_box() for side in SIDES]
    assert boxes[0] == boxes[1]
    bar = shown.locator(".wipe-bar")

    def calm_share() -> float:
        return near(picture(shown.locator("#panes")), calm)

    bar.press("Home")
    eventually(lambda: calm_share() < 0.1)  # all of it is the reduced run
    bar.press("ArrowRight")
    expect(bar).to_have_attribute("aria-valuenow", "4")
    box, panes = bar.bounding_box(), shown.locator("#panes").bounding_box()
    assert box is not None
    assert panes is not None
    shown.mouse.move(box["x"] + 10, box["y"] + box["height"] / 2)
    shown.mouse.down()
    shown.mouse.move(panes["x"] + 0.5 * panes["width"], panes["y"] + 100, steps=5)
    shown.mouse.move(panes["x"] + 0.97 * panes["width"], panes["y"] + 100, steps=5)
    shown.mouse.up()
    eventually(lambda: calm_share() > 0.15)  # all of it is the dense run
    shown.click("[data-pane-tool=wipe]")
    boxes = [shown.locator(f"#side-{side}").bounding_box() for side in SIDES]
    assert boxes[0] != boxes[1]


def test_both_panes_fill_the_screen(shown: Page) -> None:
    shown.click("[data-pane-tool=full]")
    expect(shown.locator("[data-pane-tool=full]")).to_have_attribute("aria-pressed", "true")
    box, size = shown.locator("#panes").bounding_box(), shown.viewport_size
    assert box is not None
    assert size is not None
    assert (box["width"], box["height"]) == (size["width"], size["height"])
    shown.click("[data-pane-tool=full]")
    expect(shown.locator("[data-pane-tool=full]")).to_have_attribute("aria-pressed", "false")


def test_the_report_opens_from_disk_without_a_network(shown: Page, chromium: Browser, tmp_path: Path) -> None:
    with shown.expect_download(timeout=RUN_MS) as download:
        shown.locator("#downloads a", has_text="Report").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert path.name.endswith("-report.html")
    context = chromium.new_context(offline=True, viewport={"width": 800, "height": 600}, device_scale_factor=0.5)
    report = context.new_page()
    report.set_default_timeout(RUN_MS)
    errors: list[str] = []
    report.on("pageerror", lambda error: errors.append(str(error)))
    report.goto(path.as_uri())
    for side in SIDES:
        eventually(lambda pane=report.locator(f"#pane-{side} iframe"): drawn_share(pane) > 0.2, 180)
    wide, high = ([report.locator(f"#side-{side}").evaluate(f"e => e.{way}") for side in SIDES] for way in EXTENT)
    assert wide[0] == wide[1] <= 800
    assert abs(high[0] - high[1]) <= 1
    expect(report.locator("h1")).to_have_text(list_clips()[0].title)
    expect(report.locator(".strip-tile")).to_have_count(5)
    before = tile(report, "input")
    scrub(report, 20)
    assert np.abs(tile(report, "input") - before).mean() > 4
    first = camera_position(report, "left")
    report.click("[data-pane-tool=top]")

    def from_above() -> bool:
        left, right = (camera_position(report, side) for side in SIDES)
        return float(np.abs(left - first).max()) > 0.5 and np.allclose(left, right, atol=1e-3)

    eventually(from_above)
    assert errors == []
    context.close()
