"""Where a scene is put, and from where it is looked at."""

import dataclasses

import numpy as np
import pytest

from spark3r.geometry import Similarity
from spark3r.reconstruction import Reconstruction
from tests.analytic import reconstruction, turned
from viewer.framing import Framing, Look, point_spacing, viewer_from_world

ELSEWHERE = Similarity(37.0, turned(np.array([0.3, 1.0, -0.5]), 130), np.array([400.0, -20.0, 3.0]))


@pytest.fixture(scope="module")
def shown() -> Reconstruction:
    scene = reconstruction(12, 24, 32)
    return scene.transformed(viewer_from_world(scene))


def projected(look: Look, points: np.ndarray) -> np.ndarray:  # [N, 3] x, y in half pane heights, depth
    forward = look.look_at - look.position
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1])
    right = right / np.linalg.norm(right)
    local = (points - look.position) @ np.stack([right, np.cross(forward, right), forward]).T
    return np.column_stack([local[:, :2] / local[:, 2:] / np.tan(look.fov / 2), local[:, 2]])


@pytest.mark.parametrize("moved", [Similarity(), ELSEWHERE])
def test_any_scene_becomes_centred_upright_and_of_unit_size(moved: Similarity) -> None:
    scene = reconstruction().transformed(moved)
    shown = scene.transformed(viewer_from_world(scene))
    points = shown.points().xyz
    assert np.abs(np.median(points, axis=0)).max() < 0.4
    assert 0.5 < np.percentile(np.linalg.norm(points, axis=1), 80) < 1.5
    up = -shown.world_from_camera[:, :3, 1].mean(axis=0)
    assert up[2] / np.linalg.norm(up) > 0.95
    assert abs(shown.world_from_camera[0, 0, 2]) < 0.02  # the first camera heads along +y
    assert shown.world_from_camera[0, 1, 2] > 0.9


def test_one_upside_down_pair_of_cameras_is_still_shown() -> None:
    scene = reconstruction(frames=2)
    scene.world_from_camera[1, :3, :3] = scene.world_from_camera[0, :3, :3] @ turned(np.array([0, 0, 1]), 180)
    similarity = viewer_from_world(scene)
    assert np.allclose(similarity.rotation @ similarity.rotation.T, np.eye(3), atol=1e-5)
    assert np.linalg.det(similarity.rotation) > 0.99


@pytest.mark.parametrize("aspect", [0.6, 1.0, 1.7, 3.0])
@pytest.mark.parametrize("name", ["fit", "top"])
def test_a_fitted_view_holds_nearly_all_points_and_fills_the_pane(
    shown: Reconstruction, name: str, aspect: float
) -> None:
    look = getattr(Framing(shown), name)(aspect)
    seen = projected(look, shown.points().xyz)
    drawn = seen[seen[:, 2] > look.near]
    inside = (np.abs(drawn[:, 0]) < aspect) & (np.abs(drawn[:, 1]) < 1)
    assert inside.mean() > 0.8
    extent = np.percentile(np.abs(drawn[:, :2]), 97, axis=0) / [aspect, 1.0]
    assert extent.max() > 0.75


def test_the_fitted_view_is_level_and_looks_the_way_of_the_first_camera_from_above(shown: Reconstruction) -> None:
    look = Framing(shown).fit()
    forward = look.look_at - look.position
    heading = shown.world_from_camera[0, :3, 2] * [1, 1, 0]
    assert forward[:2] @ heading[:2] / np.linalg.norm(forward[:2]) / np.linalg.norm(heading) > 0.99
    assert forward[2] < 0


def test_walls_before_the_first_camera_are_cut_away(shown: Reconstruction) -> None:
    look = Framing(shown).fit()
    camera = projected(look, shown.world_from_camera[:1, :3, 3].astype(float))[0]
    assert look.near < camera[2]
    assert look.near > 0.5 * camera[2] or camera[2] < 0.1


def test_the_view_through_a_camera_shows_what_its_picture_shows(shown: Reconstruction) -> None:
    look = Framing(shown).camera(4)
    cloud = shown.points()
    of_frame = cloud.xyz[cloud.frame == 4].astype(float)
    rows, columns = np.divmod(cloud.pixel[cloud.frame == 4], shown.width)
    seen = projected(look, of_frame)
    roll = np.degrees(np.arcsin(shown.world_from_camera[4, 2, 0]))
    if abs(roll) < 2:  # the view is level, the camera nearly so
        assert np.allclose(seen[:, 1], (rows - 11.5) / 12, atol=0.1)
        assert np.allclose(seen[:, 0], (columns - 15.5) / 12, atol=0.1)
    assert np.abs(seen[:, 1]).max() < 1.4


def test_spacing_is_that_of_a_plane_of_points() -> None:
    scene = reconstruction(1, 60, 80)
    flat = dataclasses.replace(
        scene,
        depth=np.full_like(scene.depth, 2.0),
        intrinsics=scene.intrinsics * np.float32([[20], [20], [1]]),  # pyright: ignore[reportArgumentType]
    )
    step = 2.0 / flat.intrinsics[0, 0, 0]
    assert point_spacing(flat.points()) == pytest.approx(step, rel=0.25)
    assert point_spacing(flat.points(0, 1200)) == pytest.approx(2 * step, rel=0.35)
    assert point_spacing(flat.points(0, 5)) == 0
