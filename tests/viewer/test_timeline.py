"""The frames as the browser gets them: pictures that say the depth, and nothing under a wrong key."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from spark3r.reconstruction import Reconstruction
from tests.analytic import reconstruction
from viewer.timeline import COLUMNS, LEVELS, PER_SHEET, TOP_DIFFERENCE, Timeline, timeline_routes
from viewer.world import Baseline


@pytest.fixture(scope="module")
def dense() -> Reconstruction:
    return reconstruction(70, 12, 16)


@pytest.fixture(scope="module")
def timeline(dense: Reconstruction) -> Timeline:
    depth = dense.depth.copy()
    depth[50] *= 1.1
    depth[50, 0, 0] = np.nan
    reduced = dataclasses.replace(dense, depth=depth)
    return Timeline(Baseline(dense), {"left": dense, "right": reduced}, {"left": "Dense", "right": "q2"}, 3, "key")


def tile(timeline: Timeline, kind: str, frame: int) -> np.ndarray:
    sheet = cv2.imdecode(np.frombuffer(timeline.sheet(kind, frame // PER_SHEET), np.uint8), cv2.IMREAD_UNCHANGED)
    at = frame % PER_SHEET
    row, column = divmod(at, COLUMNS)
    return sheet[12 * row : 12 * row + 12, 16 * column : 16 * column + 16]  # pyright: ignore[reportOptionalSubscript]


@pytest.mark.parametrize("frame", [0, 47, 48, 69])
def test_sheets_hold_every_frame_in_its_place(timeline: Timeline, dense: Reconstruction, frame: int) -> None:
    grey = tile(timeline, "left", frame)
    scale = timeline.baseline.depth
    depth = scale.low + (scale.high - scale.low) * (grey.astype(float) - 1) / LEVELS
    within = (dense.depth[frame] > scale.low) & (dense.depth[frame] < scale.high)
    assert (grey[dense.depth[frame] >= scale.high] == LEVELS + 1).all()
    assert np.allclose(depth[within], dense.depth[frame][within], atol=(scale.high - scale.low) / LEVELS)
    input_error = np.abs(tile(timeline, "input", frame)[..., ::-1].astype(float) - dense.images[frame])
    assert input_error.mean() < 60  # noise suffers as JPEG


def test_the_difference_is_on_the_scale_of_the_diagonal_and_unknown_is_zero(timeline: Timeline, dense) -> None:
    assert tile(timeline, "difference", 49).max() == 1  # no difference is the first level
    grey = tile(timeline, "difference", 50).astype(float)
    assert grey[0, 0] == 0
    told = ((grey - 1) / LEVELS) ** 2 * TOP_DIFFERENCE
    true = 0.1 * dense.depth[50] / timeline.baseline.diagonal
    assert np.allclose(told.ravel()[1:], true.ravel()[1:], atol=0.002)


def test_the_description_is_plain_and_complete(timeline: Timeline, dense: Reconstruction) -> None:
    told = json.loads(json.dumps(timeline.description))
    assert told["frames"] == 70
    assert told["kinds"] == ["input", "left", "right", "difference"]
    assert len(told["cameras"]["left"]) == len(told["cameras"]["right"]) == 70
    assert not told["hasTruth"]
    position = np.array(told["cameras"]["left"][9][4:7])
    expected = timeline.baseline.viewer_from_world.apply(dense.world_from_camera[9, :3, 3].astype(float))
    assert np.allclose(position, expected, atol=1e-4)
    for views in told["looks"].values():
        assert [view["aspect"] for view in views] == sorted(view["aspect"] for view in views)
        assert all(0 <= view["nearRatio"] < 1 for view in views)


def test_one_run_alone_has_no_difference(dense: Reconstruction) -> None:
    alone = Timeline(Baseline(dense), {"left": dense}, {"left": "Dense"}, 1, "key")
    assert alone.description["kinds"] == ["input", "left"]
    with pytest.raises(KeyError):
        alone.sheet("difference", 0)


def test_routes_serve_what_is_shown_and_nothing_else(timeline: Timeline) -> None:
    chosen: list[tuple[str, int]] = []
    routes = timeline_routes(lambda key: timeline if key == "key" else None, lambda *frame: chosen.append(frame))
    with TestClient(Starlette(routes=routes)) as client:
        assert client.get(f"/{timeline.address}/world.json").json()["frames"] == 70
        assert client.get(f"/{timeline.address}/input-1").headers["content-type"] == "image/jpeg"
        assert client.get(f"/{timeline.address}/right-0").headers["content-type"] == "image/png"
        gone = ("timeline/key/2/world.json", "timeline/other/3/world.json", f"{timeline.address}/input-2",
                f"{timeline.address}/other-0", "timeline/key/3/input-99999999999999999999")  # fmt: skip
        assert [client.get(f"/{path}").status_code for path in gone] == [404] * 5
        assert client.post("/timeline/key/frame/69").status_code == 204
        assert client.post("/timeline/key/frame/70").status_code == 404
        assert client.post("/timeline/other/frame/1").status_code == 404
        assert client.get("/timeline/key/frame/1").status_code in (404, 405)
    assert chosen == [("key", 69)]
