"""A connection that drops in the middle of a run, and a tab that is closed."""

import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import RUN_MS, new_tab

OFFLINE_MS = 12_000  # longer than a page waits for the answer to a sign of life
CLOSED_SECONDS = 60  # fifteen, on an idle machine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def closed(chromium: Browser, address: str) -> Iterator[str]:
    """The address of a 3-D view whose tab is closed when the first test here begins. The tab alone: with its context
    Chromium would forget the goodbye that it has still to send."""
    page = new_tab(chromium, address, clouds=False)
    pane = page.evaluate("document.querySelector('iframe.viewer').dataset.pane")
    url = f"{address}viewer/{pane}/clients"
    assert status_of(url) == 200
    page.close()
    yield url
    page.context.close()


def test_seconds_offline_in_a_run_lose_neither_clip_nor_settings_nor_the_run(chromium: Browser, address: str) -> None:
    page = new_tab(chromium, address, query="?clip=table_orbit&frames=12")
    page.set_default_timeout(RUN_MS)
    page.wait_for_function("document.querySelector('#frames-line')?.innerText.includes('12')")
    key = page.evaluate("sessionStorage.getItem('spark3r')")
    page.click("#run")
    page.wait_for_selector("#stop:not([disabled])")
    page.context.set_offline(True)
    page.wait_for_timeout(OFFLINE_MS)
    page.context.set_offline(False)
    page.wait_for_selector("#progress .progress[data-phase=done]", state="attached")  # by itself
    page.wait_for_function("document.querySelector('#frames-line')?.innerText.includes('12')")
    assert page.evaluate("sessionStorage.getItem('spark3r')") == key
    assert page.locator(".dot").count() >= 2  # its runs are there
    assert page.get_by_text("restarted").count() == 0
    page.context.close()


def test_a_closed_tab_ends_its_session_within_seconds(closed: str) -> None:
    end = time.monotonic() + CLOSED_SECONDS
    while status_of(closed) != 404:
        assert time.monotonic() < end, "the session of a closed tab lives on"
        time.sleep(0.5)


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
