"""The real page, started as people start it, in headless Chromium with software WebGL."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, Playwright, Route, expect, sync_playwright

ROOT = Path(__file__).parents[2]
HURRIED = Path(__file__).with_name("hurried.py")  # the app with less to do
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
PROXIED_NAME = "studio.example"  # in docs/nginx.conf
FLAGS = [
    "--no-sandbox", "--headless=new", "--disable-background-networking", "--no-first-run", "--disable-sync",
    "--disable-component-update", f"--host-resolver-rules=MAP {PROXIED_NAME} 127.0.0.1",
]  # fmt: skip
WEBGL = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]  # by the processor
UPLOAD_MIB = (6, 10, 40)  # of one file, of one visitor, of all: the limits of the page that is tested
START_SECONDS = 180
RUN_MS = 180_000
PATIENCE_MS = 60_000  # for whatever a page does at once where nothing else runs
DIALS = {"Query factor": "query_factor", "Key/value factor": "kv_factor"}
PANE_GREY = 20  # viser's dark background

# Software draws the clouds: at half the size it leaves the processor to the runs, and colours stay what they are.
COARSE = """if (location.pathname.includes("/viewer/") && !location.search.includes("fixedDpr"))
  history.replaceState(null, "", "?fixedDpr=0.5");"""

VIEWER = re.compile(r"/viewer/[^/]+/$")  # the page of a 3-D view


def empty_view(route: Route) -> None:
    """In place of a 3-D view."""
    route.fulfill(body="<html></html>", content_type="text/html")


expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs a browser, and time."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.slow)
            if not Path(CHROMIUM).exists():
                item.add_marker(pytest.mark.skip(reason="no Chromium: install it or name it in $CHROMIUM"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def server_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the app writes to standard error; shown with a test that fails."""
    path = tmp_path_factory.mktemp("log") / "stderr"
    path.touch()
    yield path
    print(path.read_text(), file=sys.stderr)


@pytest.fixture(scope="session")
def address(server_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a page that runs for all tests, started from some other folder; the app has to end by itself when told to.

    SIGTERM, which the app takes as Ctrl-C: a shell starts its background jobs, tests among them, deaf to SIGINT.
    """
    port = free_port()
    limits = [str(size / 1024) for size in UPLOAD_MIB]
    command = [sys.executable, str(HURRIED), "--port", str(port), "--upload-gib", *limits]
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"}
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with server_log.open("wb") as log:
        server = subprocess.Popen(command, cwd=elsewhere, env=environment, stderr=log)
    url = f"http://127.0.0.1:{port}/"
    wait_for_server(url, server)
    yield url
    server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=30) == 0


def wait_for_server(url: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        assert server.poll() is None, "the app ended at its start"
        try:
            urllib.request.urlopen(url, timeout=30).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the app did not come up")


@contextmanager
def app_and_browser(*, webgl: bool = True, **environment: str) -> Iterator[tuple[str, Browser]]:
    """For scripts: the address of an app of their own, started with these variables, and a browser."""
    url = f"http://127.0.0.1:{(port := free_port())}/"
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    try:
        wait_for_server(url, server)
        with (
            sync_playwright() as playwright,
            closing(launched(playwright, webgl)) as browser,
        ):
            yield url, browser
    finally:
        server.terminate()
        server.wait(timeout=30)


def launched(playwright: Playwright, webgl: bool) -> Browser:
    """A browser; without WebGL the page alone is drawn, at a tenth of the cost where there is no GPU."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *(WEBGL if webgl else ["--disable-gpu"])])


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launched(playwright, webgl=True)
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium: Browser, address: str) -> Iterator[Page]:
    """A fresh visitor's tab, its 3-D views empty; leaving the machine or a script error on the page fails the test."""
    page = new_tab(chromium, address, clouds=False)
    strayed, errors = page.strayed, page.errors  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    yield page
    assert page.locator(".toast-body.error").count() == 0  # a handler failed
    page.context.close()
    assert strayed == []
    assert errors == []


def new_tab(
    chromium: Browser,
    address: str,
    width: int = 1440,
    height: int = 900,
    *,
    dark: bool = False,
    query: str = "",
    sharp: bool = False,
    clouds: bool = True,
) -> Page:
    """Open the page in a context of its own and wait until both panes stand.

    sharp   as a person sees it
    clouds  False leaves the 3-D views empty: drawn by software, they take most of a small machine
    """
    context = chromium.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
    )
    context.set_default_timeout(PATIENCE_MS)
    if not sharp:
        context.add_init_script(COARSE)
    if not clouds:
        context.route(VIEWER, empty_view)
    page = context.new_page()
    page.strayed, page.errors = [], []  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    own = (address, address.replace("http", "ws"), "data:", "blob:")
    page.on("request", lambda request: None if request.url.startswith(own) else page.strayed.append(request.url))  # pyright: ignore[reportAttributeAccessIssue]
    page.on("pageerror", lambda error: page.errors.append(str(error)))  # pyright: ignore[reportAttributeAccessIssue]
    page.goto(address + query)
    page.wait_for_function("document.querySelectorAll('iframe.viewer').length === 2", timeout=RUN_MS)
    for side in ("left", "right") if clouds else ():
        camera_ready(page, side)
    return page


def camera_ready(page: Page, side: str) -> None:
    page.wait_for_function(
        f"document.querySelector('#pane-{side} iframe')?.contentWindow?.__viserMutable?.cameraControl", timeout=RUN_MS
    )


def camera_position(page: Page, side: str) -> np.ndarray:
    """Where the pane's camera stands."""
    position = page.evaluate(
        f"""() => {{
            const camera = document.querySelector('#pane-{side} iframe').contentWindow.__viserMutable.cameraControl;
            return camera.camera.position.toArray();
        }}"""
    )
    return np.array(position)


def drag(page: Page, side: str, by_x: int, by_y: int = 0) -> None:
    """Turn the pane's camera by hand."""
    box = page.locator(f"#pane-{side} iframe").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(1, 6):
        page.mouse.move(x + by_x * step / 5, y + by_y * step / 5)
        page.wait_for_timeout(40)
    page.mouse.up()


def drawn_share(pane: Locator) -> float:
    """The share of a pane's pixels that are not background, as a person would see it."""
    image = cv2.imdecode(np.frombuffer(pane.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return float((np.abs(image.astype(int) - PANE_GREY).max(axis=2) > 30).mean())


def set_number(page: Page, label: str, value: int) -> None:
    """Type into a slider's number box, unfolding what it stands in."""
    box = page.get_by_label(f"number input for {label}")
    if not box.is_visible() and label == "Max. frames":
        page.locator("#frames-line > button").click()
    box.fill(str(value))
    box.blur()


def turn(page: Page, name: str, stop: int) -> None:
    """Turn a dial to a stop with the keyboard, from its least one on."""
    dial = page.get_by_label(name, exact=True)
    dial.press("Home")
    while int(page.locator(f"output[for=dial-{DIALS[name]}]").inner_text()) < stop:
        dial.press("ArrowRight")


def wait_first(page: Page) -> None:
    """Until the first example's runs are there."""
    page.wait_for_function("document.querySelectorAll('.dot').length >= 2", timeout=RUN_MS)


def reconstruct(page: Page) -> None:
    """Press the button and wait for the end."""
    page.click("#run")
    page.wait_for_selector("#stop:not([disabled])", timeout=RUN_MS)
    wait_done(page)


def wait_done(page: Page) -> None:
    page.wait_for_selector("#progress .progress[data-phase=done]", timeout=RUN_MS, state="attached")
    page.wait_for_selector("#stop[disabled]", timeout=RUN_MS, state="attached")
