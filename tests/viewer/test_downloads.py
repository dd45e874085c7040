"""Exports: under one's own key only, and what they say they are."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from starlette.applications import Starlette
from starlette.testclient import TestClient

from spark3r import export
from spark3r.errors import Cancelled
from spark3r.stopping import may_stop, stoppable
from tests.viewer.conftest import finish, wait_until
from viewer import downloads
from viewer.downloads import download_routes, links
from viewer.engine import Engine
from viewer.request import Clip, RunRequest
from viewer.session import Session
from viewer.sessions import Lifetimes, Sessions
from viewer.state import ViewSettings

RequestFor = Callable[..., RunRequest]


@pytest.fixture(scope="module")
def registry(engine: Engine) -> Iterator[Sessions]:
    sessions = Sessions(engine, Lifetimes(0.1, 60.0, 60.0))
    yield sessions
    sessions.close()


@pytest.fixture(scope="module")
def session(registry: Sessions, request_for: RequestFor) -> Session:
    one = registry.open("a")
    request = request_for()
    one.start(replace(request, clip=replace(request.clip, name="My <b>Clip<b>.mp4")))
    finish(one)
    one.clip = Clip("another one.mp4", ())  # chosen since, not yet run
    return one


@pytest.fixture(scope="module")
def browser(registry: Sessions) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=download_routes(registry.by_download_key))) as client:
        yield client


def test_every_link_gives_its_file_as_shown_and_leaves_none_behind(session: Session, browser: TestClient) -> None:
    session.apply_view(ViewSettings(thousand_points=2, cameras=False))
    titles = [title for title, _ in links(session)]
    assert titles == ["B", "A", "A, B"]
    for _, files in links(session):
        for label, _, url in files:
            answer = browser.get("/" + url)
            assert answer.status_code == 200, label
            name = answer.headers["content-disposition"]
            assert {"COLMAP": ".zip", "Report": "-report.html"}.get(label, f".{label.lower()}") in name
            assert "my-b-clip-b_mini_" in name  # the clip that was run
    assert [path for path in session.folder.rglob("*") if path.is_file()] == []


def test_a_ply_holds_the_point_budget(session: Session, browser: TestClient) -> None:
    session.apply_view(ViewSettings(thousand_points=2))
    answer = browser.get(f"/download/{session.download_key}/right.ply")
    cloud = trimesh.load(trimesh.util.wrap_as_stream(answer.content), file_type="ply")
    assert len(cloud.vertices) == 2000  # pyright: ignore[reportAttributeAccessIssue]


def test_a_colmap_model_holds_no_more_than_it_is_made_for_and_the_frames_in_their_own_size(
    session: Session, browser: TestClient
) -> None:
    session.apply_view(ViewSettings(thousand_points=1000))
    answer = browser.get(f"/download/{session.download_key}/right.zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        told = json.loads(archive.read(next(name for name in archive.namelist() if name.endswith("spark3r.json"))))
        picture = next(name for name in archive.namelist() if name.endswith(".jpg"))
        image = cv2.imdecode(np.frombuffer(archive.read(picture), np.uint8), cv2.IMREAD_COLOR)
    assert "at most 100,000 points" in told["filters"]
    assert "Sim(3)" in told["alignment"]
    assert image is not None
    assert image.shape[1] > session.scenes["right"].width


def test_the_report_of_both_panes_plots_every_run_and_tells_the_command(session: Session, browser: TestClient) -> None:
    page = browser.get(f"/download/{session.download_key}/report.html").text
    assert page.count("<circle class=") == len(session.runs)
    assert "python -m spark3r compare" in page
    assert page.count("__VISER_EMBED_DATA__=") == 2


def test_a_hostile_name_becomes_a_plain_one(session: Session, browser: TestClient) -> None:
    answer = browser.get(f"/download/{session.download_key}/left.npz")
    assert answer.headers["content-disposition"] == 'attachment; filename="my-b-clip-b_mini_dense.npz"'


@pytest.mark.slow
@pytest.mark.parametrize(
    "file", ["left.exe", "left", "other.glb", "..%2Fleft.glb", "left.glb.npz", "left.", "reporthtml", "report.html.glb"]
)
def test_what_is_not_offered_is_not_there(file: str, session: Session, browser: TestClient) -> None:
    assert browser.get(f"/download/{session.download_key}/{file}").status_code == 404


def test_a_wrong_key_opens_nothing(session: Session, browser: TestClient) -> None:
    for key in ("", "x", session.panes["left"].key, "a"):
        assert browser.get(f"/download/{key}/left.glb").status_code == 404


def test_an_ended_tab_takes_its_links_with_it(registry: Sessions, browser: TestClient) -> None:
    other = registry.open("b")
    registry.leave("b", 1)
    wait_until(lambda: registry.by_download_key(other.download_key) is None)
    assert browser.get(f"/download/{other.download_key}/left.glb").status_code == 404
    assert not other.folder.exists()


def test_an_export_is_stopped_with_its_session_and_leaves_nothing(
    session: Session, browser: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(folder: Path) -> Path:
        (folder / "half").write_bytes(b"x")
        session.stop()
        for _ in range(100_000):
            may_stop()
        return folder / "half"

    monkeypatch.setattr(downloads, "_maker", lambda *_: endless)
    answer = browser.get(f"/download/{session.download_key}/left.npz")
    assert (answer.status_code, answer.text) == (409, "Stopped.")
    assert [path for path in session.folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("suffix", [".glb", ".zip", ".npz"])
def test_writing_asks_whether_to_stop(suffix: str, session: Session, tmp_path: Path) -> None:
    with pytest.raises(Cancelled), stoppable(lambda: True):
        export.write(session.scenes["left"], tmp_path / f"scene{suffix}")
    assert list(tmp_path.iterdir()) == []
