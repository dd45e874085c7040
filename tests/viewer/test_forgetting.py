"""What gradio keeps of a page goes once no session knows that page any more, and not before."""

import httpx
import pytest
from gradio.routes import file_upload_statuses

from tests.viewer.conftest import wait_until
from viewer import forgetting
from viewer.server import Running
from viewer.sessions import MOST_PAGES, Limits

pytestmark = pytest.mark.slow  # the page is started once


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "KEPT_SECONDS", 0.1)


def call(page: Running, name: str, tab: str, *data: object) -> None:
    """Call a handler as the page with this hash would; nobody fetches the answer."""
    number, handler = next((number, each) for number, each in page.demo.fns.items() if each.api_name == name)
    body = {"data": data or (None,) * len(handler.inputs), "fn_index": number, "session_hash": tab}
    httpx.post(f"{page.url}gradio_api/queue/join", json=body, trust_env=False).raise_for_status()
    wait_until(lambda: not page.demo._queue.event_ids_to_events)


def remembered(page: Running) -> set[str]:
    queue = page.demo._queue
    told = {name for name, messages in list(queue.pending_messages_per_session.items()) if messages.qsize()}
    return told | {*list(page.demo.state_holder.session_data), *list(queue.pending_event_ids_session)}


def test_a_page_is_forgotten_with_its_session(page: Running) -> None:
    call(page, "opened", "visitor", "{}")
    call(page, "opened", "another", "{}")
    call(page, "clip_settled", "nobody's")
    wait_until(lambda: "nobody's" not in remembered(page))
    assert {"visitor", "another"} <= remembered(page)
    page.sessions._end(page.sessions.of("visitor").key)
    wait_until(lambda: "visitor" not in remembered(page))
    assert "another" in remembered(page)


def test_a_flood_of_pages_is_remembered_up_to_a_bound(page: Running) -> None:
    assert page.demo.state_holder.capacity == Limits().total * MOST_PAGES


def test_no_statistics_of_calls_are_kept(page: Running) -> None:
    call(page, "opened", "visitor again", "{}")
    assert not page.demo._queue.event_analytics


def upload(page: Running, name: str, body: bytes) -> httpx.Response:
    """Bring a form under the name of a progress bar."""
    address, kind = f"{page.url}gradio_api/upload?upload_id={name}", {"content-type": "multipart/form-data; boundary=x"}
    return httpx.post(address, content=body, headers=kind, trust_env=False)


def followed() -> set[str]:
    return {*list(file_upload_statuses._statuses), *list(file_upload_statuses._signals)}


FORM = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\nnothing\r\n--x--\r\n'


@pytest.mark.parametrize("body", [FORM, b"no form", FORM[:-20]], ids=["whole", "no form", "broken off"])
def test_how_far_an_upload_came_is_forgotten(page: Running, body: bytes) -> None:
    upload(page, "mine", body)
    wait_until(lambda: "mine" not in followed())


def test_uploads_that_never_begin_are_forgotten_and_those_under_way_are_not(page: Running) -> None:
    file_upload_statuses.track("under way")
    asked = httpx.get(f"{page.url}gradio_api/upload_progress?upload_id=never", trust_env=False)
    assert asked.status_code == 404
    wait_until(lambda: "never" not in followed())
    assert "under way" in followed()
    file_upload_statuses.set_done("under way")
    wait_until(lambda: "under way" not in followed())


def test_of_many_names_the_oldest_go_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "KEPT_SECONDS", 1000.0)
    unused = forgetting._Unused()
    assert unused.for_long({"first"}, most=2) == []
    assert unused.for_long({"first", "second", "third"}, most=2) == ["first"]
    assert unused.for_long({"second", "third"}, most=2) == []
