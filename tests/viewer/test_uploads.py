"""Visitors' files: how much each may bring, what is refused in a sentence, and that nothing stays behind."""

import errno
import shutil
import socket
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.testclient import TestClient

from spark3r.errors import InputError
from tests.viewer.conftest import wait_until
from viewer import receiving
from viewer import uploads as uploads_module
from viewer.engine import Engine, Models, RunQueue
from viewer.receiving import upload_routes
from viewer.session import Session
from viewer.uploads import Quota, Uploads


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    folder = tmp_path / "uploads"
    folder.mkdir()
    return Uploads(folder, Quota(file=10_000, visitor=20_000, total=30_000))


@pytest.fixture
def browser(uploads: Uploads) -> TestClient:
    return TestClient(Starlette(routes=upload_routes(uploads)), raise_server_exceptions=False)


def bring(browser: TestClient, *sizes: int, name: str = "clip.mp4"):
    return browser.post("/gradio_api/upload", files=[("files", (name, b"x" * size)) for size in sizes])


def left(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_file_is_kept_whole_under_an_unguessable_name(browser: TestClient, tmp_path: Path) -> None:
    answer = bring(browser, 5000, name="my clip.mp4")
    (path,) = map(Path, answer.json())
    assert path.read_bytes() == b"x" * 5000
    assert path.name == "my clip.mp4"
    assert len(path.relative_to(tmp_path / "uploads").parts[0]) == 32
    assert bring(browser, 5000, name="my clip.mp4").json() != answer.json()  # nobody else's copy goes with mine


@pytest.mark.parametrize(("sizes", "word"), [((11_000,), "A file may take"), ((9000, 9000, 9000), "one visitor")])
def test_too_much_is_one_sentence_and_leaves_nothing(
    sizes: tuple[int, ...], word: str, browser: TestClient, tmp_path: Path, uploads: Uploads
) -> None:
    answer = bring(browser, *sizes)
    assert answer.status_code == 413
    assert word in answer.text
    assert left(tmp_path) == []
    assert uploads.bytes == 0


@pytest.mark.parametrize(
    ("bytes", "largest", "status", "word"),
    [
        (10_000, 10_000, 204, ""), (10_001, 10_001, 413, "A file may take"), (20_001, 9000, 413, "one visitor"),
        ("many", 1, 400, "Name the bytes"),
    ],
)  # fmt: skip
def test_a_page_may_ask_before_it_sends(
    bytes: int, largest: int, status: int, word: str, browser: TestClient, uploads: Uploads
) -> None:
    answer = browser.get("/uploads/room", params={"bytes": bytes, "largest": largest})
    assert answer.status_code == status
    assert word in answer.text
    assert uploads.bytes == 0


def test_quotas_count_what_others_brought(uploads: Uploads) -> None:
    uploads.begin("10.0.0.1", 9000)
    uploads.begin("10.0.0.1", 9000)
    with pytest.raises(InputError, match="one visitor"):
        uploads.begin("10.0.0.1", 9000)
    uploads.begin("10.0.0.2", 9000)
    with pytest.raises(InputError, match="All visitors"):
        uploads.begin("10.0.0.3", 9000)


def test_an_upload_goes_with_the_last_session_that_uses_it(tmp_path: Path, uploads: Uploads) -> None:
    folder = uploads.begin("a", 100)
    (folder / "clip.mp4").touch()
    uploads.complete(folder)
    uploads.use([folder / "clip.mp4", Path("/etc/passwd")], "first")
    uploads.use([folder / "clip.mp4"], "second")
    uploads.release("first")
    uploads.release("a stranger")
    assert folder.exists()
    uploads.release("second")
    assert not folder.exists()
    assert uploads.bytes == 0


def test_a_session_takes_its_files_along(uploads: Uploads) -> None:
    session = Session(Engine(RunQueue(), Models(), uploads))
    folder = uploads.begin("a", 100)
    uploads.complete(folder)
    session.use([folder / "clip.mp4"])
    session.close()
    assert not folder.exists()


def test_what_no_session_asks_for_goes_after_a_while(
    tmp_path: Path, uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete, used, coming = (uploads.begin("a", 100) for _ in range(3))
    uploads.complete(complete)
    uploads.complete(used)
    uploads.use([used / "clip.mp4"], "somebody")
    (tmp_path / "uploads" / "tmp_of_gradio").touch()
    uploads.tidy()
    assert complete.exists()
    monkeypatch.setattr(uploads_module, "UNUSED_SECONDS", -1.0)
    uploads.tidy()
    assert (complete.exists(), used.exists(), coming.exists()) == (False, True, True)
    assert left(tmp_path) == []


def test_a_nearly_full_disk_takes_nothing_more(browser: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12, uploads_module.LEFT_FREE_BYTES + 99))
    answer = bring(browser, 100)
    assert answer.status_code == 413
    assert "nearly full" in answer.text


def test_a_disk_that_fills_up_meanwhile_is_one_sentence(
    browser: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(request: object, folder: str, *_: object, **__: object) -> None:
        (Path(folder) / "half").write_bytes(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(receiving, "upload_fn", full)
    answer = bring(browser, 100)
    assert answer.status_code == 507
    assert "nearly full" in answer.text
    assert left(tmp_path) == []


@pytest.mark.parametrize("name", ["x" * 2000 + ".mp4", "..", "../../x.mp4", "a\0b.mp4", "/etc/passwd"])
def test_odd_names_stay_inside(name: str, browser: TestClient, tmp_path: Path) -> None:
    answer = bring(browser, 10, name=name)
    assert answer.status_code in (200, 400)
    assert all(len(path.name.encode()) <= 255 for path in left(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["uploads"]


def test_what_is_no_form_is_refused(browser: TestClient, tmp_path: Path) -> None:
    kinds = {"content-type": "multipart/form-data; boundary=x"}
    assert browser.post("/gradio_api/upload", content=b"x", headers=kinds).status_code == 400
    assert browser.post("/gradio_api/upload", content=b"x").status_code == 400
    assert browser.post("/gradio_api/upload", content=iter([b"x"]), headers=kinds).status_code == 411
    assert left(tmp_path) == []


@pytest.fixture
def address(uploads: Uploads) -> Iterator[tuple[str, int]]:
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=upload_routes(uploads)), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, 10)
    yield server.servers[0].sockets[0].getsockname()
    server.should_exit = True
    thread.join()


def test_an_upload_that_is_broken_off_is_removed_at_once(
    address: tuple[str, int], uploads: Uploads, tmp_path: Path
) -> None:
    head = (
        b"POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="clip.mp4"\r\n\r\n'
    )
    with socket.create_connection(address) as connection:
        connection.sendall(head + b"x" * 4000)
        wait_until(lambda: left(tmp_path), 10)
        assert uploads.bytes == 9000
    wait_until(lambda: not list((tmp_path / "uploads").iterdir()), 10)
    assert uploads.bytes == 0
