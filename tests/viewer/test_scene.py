"""What is drawn into a pane, and in which colours."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from viser import ViserServer

from spark3r.metrics.truth import Truth
from spark3r.reconstruction import Reconstruction
from tests.analytic import reconstruction, turned
from viewer.palette import PALETTES, UNKNOWN, Scale, paint
from viewer.scene import HIGHLIGHT, MAX_FRUSTA, PaneScene, wxyz_from_matrix
from viewer.state import ViewSettings
from viewer.world import Baseline, depth_from


@pytest.fixture
def server() -> Iterator[ViserServer]:
    one = ViserServer(host="127.0.0.1", port=0, verbose=False)
    yield one
    one.stop()


@pytest.fixture(scope="module")
def dense() -> Reconstruction:
    return reconstruction(20, 12, 16)


@pytest.fixture(scope="module")
def reduced(dense: Reconstruction) -> Reconstruction:
    """As the dense one, but frame 7 is 5 % too far away."""
    depth = dense.depth.copy()
    depth[7] *= 1.05
    return dataclasses.replace(dense, depth=depth)


def shown_colours(server: ViserServer, run: Reconstruction, baseline: Baseline, **view: object) -> np.ndarray:
    pane = PaneScene(server, ViewSettings(min_confidence_percentile=0, **view))  # type: ignore[arg-type]
    pane.show(run, baseline)
    assert pane._cloud is not None
    return np.asarray(pane._cloud.colors)


def test_scale_ends_are_the_palettes_ends_and_unknown_is_grey() -> None:
    painted = paint(np.array([-5.0, 1.0, 3.0, 99.0, np.nan]), "difference", Scale(1.0, 3.0))
    ends = PALETTES["difference"]
    assert np.array_equal(painted, [ends[0], ends[0], ends[255], ends[255], UNKNOWN])


def test_a_difference_shows_where_it_is_on_an_absolute_scale(server, dense, reduced) -> None:
    baseline = Baseline(dense)
    cloud = reduced.points(0, 150_000)
    colours = shown_colours(server, reduced, baseline, colour="difference", moved_percent=0.5)
    untouched = np.all(colours == PALETTES["difference"][0], axis=1)
    assert untouched[cloud.frame != 7].all()
    assert not untouched[cloud.frame == 7].any()
    wide = shown_colours(server, reduced, baseline, colour="difference", moved_percent=100)
    moved = baseline.difference(cloud, reduced)[cloud.frame == 7]
    levels = (255 * moved).astype(int)
    assert np.array_equal(wide[cloud.frame == 7], PALETTES["difference"][levels])


def test_an_error_is_told_from_the_truth_and_is_grey_without_one(server, dense, reduced) -> None:
    truth = Truth(dense.depth, dense.world_from_camera, dense.intrinsics)
    cloud = reduced.points(0, 150_000)
    colours = shown_colours(server, reduced, Baseline(reduced, lambda: truth), colour="error", moved_percent=0.5)
    wrong = np.any(colours != PALETTES["error"][0], axis=1)
    assert wrong[cloud.frame == 7].mean() > 0.9
    assert wrong[cloud.frame != 7].mean() < 0.1
    unknown = shown_colours(server, reduced, Baseline(reduced), colour="error")
    assert np.all(unknown == UNKNOWN)


def test_depth_is_seen_from_the_chosen_frames_camera(server, dense) -> None:
    baseline, cloud = Baseline(dense), dense.points(0, 150_000)
    pane = PaneScene(server, ViewSettings(min_confidence_percentile=0, colour="depth"))
    pane.show(dense, baseline)
    assert pane._cloud is not None
    for frame in (0, 19):
        pane.look_from_frame(frame)
        own = cloud.frame == frame
        depth = depth_from(cloud, dense, frame)
        assert np.allclose(depth[own], cloud.depth[own], rtol=1e-4)
        assert np.array_equal(pane._cloud.colors, paint(depth, "depth", baseline.depth))
    red, blue = paint(np.array([0.2, 0.8]), "depth", Scale(0.0, 1.0))
    assert red[0] > red[2]  # near
    assert blue[2] > blue[0]  # far


def test_points_are_sized_to_close_walls_and_few_frusta_stand_on_the_path(server, dense) -> None:
    pane = PaneScene(server, ViewSettings(min_confidence_percentile=0, thousand_points=1000))
    pane.show(dense, Baseline(dense))
    assert pane._cloud is not None
    many = pane._cloud.point_size
    pane.apply(ViewSettings(min_confidence_percentile=0, thousand_points=1, point_size=100))
    assert pane._cloud.point_size > 1.3 * many
    names = [name for name in server.scene._handle_from_node_name if name.startswith("/cameras/0")]
    assert 2 < len(names) <= MAX_FRUSTA
    assert HIGHLIGHT in server.scene._handle_from_node_name


def test_quaternion_order_is_visers() -> None:
    half_turn_about_z = turned(np.array([0, 0, 1]), 180)
    assert np.allclose(np.abs(wxyz_from_matrix(half_turn_about_z)), [0, 0, 0, 1], atol=1e-7)
    assert wxyz_from_matrix(np.tile(np.eye(3), (5, 1, 1))).shape == (5, 4)
