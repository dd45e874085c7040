"""Calls that the page never makes: one sentence for the caller, nothing in the log, no file of this machine told."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from spark3r.examples import list_clips
from viewer.calls import ODD_CALL
from viewer.server import Running

pytestmark = pytest.mark.slow  # the page is started once
TAB = "odd"


@pytest.fixture(scope="module")
def asked(page: Running) -> Iterator[Running]:
    answer(page, "opened", ["{}"])
    yield page
    page.sessions._end(page.sessions.of(TAB).key)


def answer(page: Running, name: str, data: list[Any], event: Any = None) -> dict[str, Any]:
    """What a handler answers last to these values of its inputs."""
    number, handler = next((number, each) for number, each in page.demo.fns.items() if each.api_name == name)
    target, _ = handler.targets[0]
    body = {"data": data, "fn_index": number, "session_hash": TAB, "trigger_id": target, "event_data": event}
    with httpx.Client(base_url=page.url, trust_env=False, timeout=60) as http:
        http.post("gradio_api/queue/join", json=body).raise_for_status()
        with http.stream("GET", "gradio_api/queue/data", params={"session_hash": TAB}) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data: ") or "{}")
                if message.get("msg") == "process_completed":
                    return message["output"]
    raise AssertionError("no answer")


def values(page: Running, name: str, **changed: Any) -> list[Any]:
    """The values of a handler's inputs as the page would send them, but for some by their label."""
    handler = next(each for each in page.demo.fns.values() if each.api_name == name)
    return [changed.get(part.label or "", part.value) for part in handler.inputs]  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


FILE = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize(
    ("name", "data"),
    [("opened", []), ("opened", [FILE]), ("files_changed", ["x"]), ("files_changed", [[FILE]]),
     ("settings_changed", []), ("reconstruct", [None, "mini", "auto", "many", 0, ".glb"])],
)  # fmt: skip
def test_odd_values_are_one_sentence(
    name: str, data: list[Any], asked: Running, capfd: pytest.CaptureFixture[str]
) -> None:
    assert answer(asked, name, data)["error"] == ODD_CALL
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("model", "words"), [(None, "must be one of mini"), ([], "Model is no word")])
@pytest.mark.parametrize("name", ["clip_settled", "settings_changed"])
def test_no_model_at_all_is_one_sentence(
    name: str, model: Any, words: str, asked: Running, capfd: pytest.CaptureFixture[str]
) -> None:
    assert words in json.dumps(answer(asked, name, values(asked, name, Model=model)))
    assert capfd.readouterr() == ("", "")


def test_a_choice_that_is_not_offered_leaves_the_log_alone(asked: Running, capfd: pytest.CaptureFixture[str]) -> None:
    told = answer(asked, "settings_changed", values(asked, "settings_changed", Model="/etc/passwd"))
    assert "choices" in told["error"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("event", [None, 5, "x", [], {}, {"value": 5}, {"value": {}}])
@pytest.mark.parametrize("name", ["example_picked", "upload_refused", "acted"])
def test_odd_events_are_one_sentence(name: str, event: Any, asked: Running, capfd: pytest.CaptureFixture[str]) -> None:
    answer(asked, name, values(asked, name), event)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "event",
    [{"action": "sweep", "value": ""}, {"action": "sweep", "value": "", "queries": [], "keys": 5, "others": {}},
     {"action": "sweep", "value": "", "queries": "9" * 5000, "keys": "1", "others": 0}, {"action": [], "value": ""},
     {"action": "better", "value": "/etc/passwd"}, {"action": "left", "value": "no run"},
     {"action": "show", "value": ""}, {"action": "within", "value": "x"}, {"action": "within", "value": "nan"}],
)  # fmt: skip
def test_odd_actions_are_not_done(event: Any, asked: Running, capfd: pytest.CaptureFixture[str]) -> None:
    told = answer(asked, "acted", values(asked, "acted"), event)
    assert "passwd" not in json.dumps(told["data"] if told.get("data") else "")
    assert not asked.sessions.of(TAB).is_working
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("path", ["queue/join", "run/predict", "call/v2/compare", "cancel", "reset"])
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[" * 100_000, b'{"data":[],"fn_index":1e999}', b'{"data":[],"fn_index":-1}',
     b'{"data":[],"fn_index":9999,"session_hash":"x"}', b'{"data":[1],"fn_index":0,"session_hash":"\\ud800"}',
     b'{"data":[],"api_name":"/../x"}', b"\xff\xfe"],
)  # fmt: skip
def test_odd_bodies_are_refused_and_leave_the_log_alone(
    path: str, body: bytes, asked: Running, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    kind = {"content-type": "application/json"}
    answer = httpx.post(f"{asked.url}gradio_api/{path}", content=body, headers=kind, trust_env=False, timeout=20)
    assert answer.status_code in (400, 404, 413, 422, 200) or "error" in answer.json()
    assert "Traceback" not in answer.text
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


@pytest.mark.parametrize("name", ["reconstruct", "compare"])
def test_scripts_name_models_and_no_files_of_this_machine(name: str, asked: Running, tmp_path: Path) -> None:
    told = [answer(asked, name, [None, str(path), "auto", 2, 0, ".glb"])["error"] for path in (tmp_path, "/nowhere")]
    assert all("must be one of mini" in words for words in told)


@pytest.mark.parametrize("name", ["reconstruct", "compare"])
def test_scripts_name_schedules_and_no_files_of_this_machine(name: str, asked: Running) -> None:
    told = [answer(asked, name, [brought(asked), "mini", path, 2, 64, ".glb"])["error"] for path in PATHS]
    assert told[0].replace(*PATHS) == told[1]  # whether it is there is not told
    assert "must be dense" in told[0]


def test_a_script_is_not_told_where_its_clip_was_kept(asked: Running) -> None:
    clip = brought(asked)
    for _ in range(2):  # it goes with the first call
        told = answer(asked, "reconstruct", [clip, "mini", "no word", 2, 64, ".glb"])["error"]
    assert told.startswith("A file of this clip is gone")


PATHS = ("/etc/passwd", "/nowhere")


def brought(page: Running) -> list[dict[str, Any]]:
    """A clip that was uploaded, as a value of a file input."""
    files = {"files": ("clip.mp4", Path(list_clips()[0].video).read_bytes())}
    (path,) = httpx.post(f"{page.url}gradio_api/upload", files=files, trust_env=False).json()
    return [{"path": path, "meta": {"_type": "gradio.FileData"}}]
