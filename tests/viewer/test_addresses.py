"""Odd addresses: each is answered with one refusal, and leaves no traceback in the app's log."""

import http.client
import logging
from collections.abc import Iterator

import httpx
import pytest

from viewer.server import Running

pytestmark = pytest.mark.slow  # the page is started once

PLACES = (
    "/{}", "/?clip={}", "/viewer/{}/", "/viewer/key/{}", "/viewer/{}/clients", "/download/{}/left.glb",
    "/download/key/{}", "/timeline/{}/1", "/alive/{}", "/static/{}", "/assets/{}", "/theme.css?v={}",
    "/gradio_api/{}", "/gradio_api/file={}", "/gradio_api/heartbeat/{}",
    "/gradio_api/queue/data?session_hash={}", "/gradio_api/call/reconstruct/{}", "/gradio_api/stream/a/{}/1/x.m3u8",
)  # fmt: skip
ODD = {"NUL": "%00", "NUL within": "a%00b", "line break": "%0d%0aVia:a", "escape": "%1b", "long name": "x" * 5000}
ONLY_IN_PATHS = ("line break", "escape", "long name")  # a question may hold them: a clip's name


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What the server complains about."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger("uvicorn.error").addHandler(handler)
    yield lines
    logging.getLogger("uvicorn.error").removeHandler(handler)


def asked(page: Running, address: str) -> int:
    """The status of an address that is sent as it stands, where httpx would mend it."""
    url = httpx.URL(page.url)
    connection = http.client.HTTPConnection(url.host, url.port, timeout=20)
    try:
        connection.request("GET", address)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("odd", ODD)
def test_odd_addresses_are_refused(odd: str, page: Running, log: list[str]) -> None:
    places = [place for place in PLACES if "?" not in place or odd not in ONLY_IN_PATHS]
    answers = {place: asked(page, place.format(ODD[odd])) for place in places}
    refused = 414 if odd == "long name" else 400
    assert {place: status for place, status in answers.items() if status != refused} == {}
    assert log == []


@pytest.mark.parametrize("site", ["http://[::1", "http://a:b/", "https://theirs.hf.space/x"])
def test_the_page_fetches_nothing_for_anybody(site: str, page: Running, log: list[str]) -> None:
    assert asked(page, f"/gradio_api/proxy={site}") == 404
    assert log == []


@pytest.mark.parametrize("place", ["/gradio_api/deep_link?session_hash=x", "/gradio_api/dev/reload"])
def test_what_the_page_has_no_use_for_is_closed(place: str, page: Running, log: list[str]) -> None:
    """A state of the page would stay on the disk, beyond every quota."""
    assert asked(page, place) == 404
    assert log == []


@pytest.mark.parametrize("place", ["gradio_api/queue/data?session_hash=nobody", "gradio_api/call/reconstruct/nobody"])
def test_who_asks_for_an_unknown_session_is_told_so(place: str, page: Running, log: list[str]) -> None:
    """As every page does that outlives the app."""
    assert "404" in httpx.get(page.url + place, trust_env=False, timeout=20).text  # ends as announced, too
    assert log == []
