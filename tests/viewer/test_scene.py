"""Where a scene is put in a pane, and in which colours."""

import numpy as np
import pytest

from spark3r.geometry import Similarity
from tests.analytic import reconstruction, turned
from viewer.scene import Ranges, colours, first_look, viewer_from_world, wxyz_from_matrix

ELSEWHERE = Similarity(37.0, turned(np.array([0.3, 1.0, -0.5]), 130), np.array([400.0, -20.0, 3.0]))


@pytest.mark.parametrize("moved", [Similarity(), ELSEWHERE])
def test_any_scene_becomes_centred_upright_and_of_unit_size(moved: Similarity) -> None:
    scene = reconstruction().transformed(moved)
    shown = scene.transformed(viewer_from_world(scene))
    points = shown.points().xyz
    assert np.abs(np.median(points, axis=0)).max() < 0.3
    assert 0.5 < np.percentile(np.linalg.norm(points, axis=1), 80) < 1.5
    up = -shown.world_from_camera[:, :3, 1].mean(axis=0)
    assert np.allclose(up / np.linalg.norm(up), [0, 0, 1], atol=1e-4)
    assert abs(shown.world_from_camera[0, 0, 2]) < 1e-4  # the first camera heads along +y
    assert shown.world_from_camera[0, 1, 2] > 0


def test_one_upside_down_pair_of_cameras_is_still_shown() -> None:
    scene = reconstruction(frames=2)
    scene.world_from_camera[1, :3, :3] = scene.world_from_camera[0, :3, :3] @ turned(np.array([0, 0, 1]), 180)
    similarity = viewer_from_world(scene)
    assert np.allclose(similarity.rotation @ similarity.rotation.T, np.eye(3), atol=1e-5)
    assert np.linalg.det(similarity.rotation) > 0.99


def test_the_first_look_is_from_behind_and_above() -> None:
    scene = reconstruction()
    shown = scene.transformed(viewer_from_world(scene))
    position, look_at = first_look(shown)
    camera = shown.world_from_camera[0]
    assert (position - camera[:3, 3]) @ camera[:3, 2] < 0
    assert position[2] > camera[2, 3]
    assert np.linalg.norm(position - look_at) > 0.3


def test_colours_mean_the_same_in_both_panes() -> None:
    scene = reconstruction()
    cloud, ranges = scene.points(), Ranges.of(scene)
    assert np.array_equal(colours(cloud, "image", ranges), cloud.rgb)
    near = colours(cloud, "depth", ranges)[np.argmin(cloud.depth)]
    far = colours(cloud, "depth", ranges)[np.argmax(cloud.depth)]
    assert near[0] > near[2]  # red
    assert far[2] > far[0]  # blue
    nearer_scale = Ranges((0.0, 1000.0), ranges.confidence)
    assert not np.array_equal(colours(cloud, "depth", ranges), colours(cloud, "depth", nearer_scale))


def test_quaternion_order_is_visers() -> None:
    half_turn_about_z = turned(np.array([0, 0, 1]), 180)
    assert np.allclose(np.abs(wxyz_from_matrix(half_turn_about_z)), [0, 0, 0, 1], atol=1e-7)
