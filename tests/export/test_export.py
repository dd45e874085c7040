"""Every file loads back with what was put in, and failures are one sentence that leaves no debris."""

import dataclasses
import errno
import os
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
import trimesh
import trimesh.path

from spark3r.errors import InputError
from spark3r.export import FORMATS, Filters, Origin, estimated_bytes, file_name, write
from spark3r.export.writers import FRUSTUM_DEPTH, frustum_segments, linear_colours
from spark3r.geometry import matrix_from_quaternion, upright
from spark3r.reconstruction import Reconstruction
from spark3r.reduction.schedule import ReductionSchedule
from tests.analytic import reconstruction, turned

Kind = TypeVar("Kind")


def geometry(path: Path, kind: type[Kind], name: str | None = None) -> Kind:
    loaded = trimesh.load(path)
    if name is not None:
        assert isinstance(loaded, trimesh.Scene)
        loaded = loaded.geometry[name]
    assert isinstance(loaded, kind)
    return loaded


def test_ply_holds_the_chosen_points_and_colours(tmp_path):
    scene = reconstruction()
    write(scene, tmp_path / "scene.ply", min_confidence_percentile=30, max_points=200)
    cloud, loaded = scene.points(30, 200), geometry(tmp_path / "scene.ply", trimesh.PointCloud)
    assert np.array_equal(np.asarray(loaded.vertices, np.float32), cloud.xyz)
    assert np.array_equal(loaded.colors[:, :3], cloud.rgb)
    _, _, body = (tmp_path / "scene.ply").read_bytes().partition(b"end_header\n")
    rows = np.frombuffer(body, [("xyz", "<f4", 3), ("rgb", "u1", 3), ("confidence", "<f4"), ("frame", "<i4")])
    assert np.array_equal(rows["confidence"], cloud.confidence)
    assert np.array_equal(rows["frame"], cloud.frame)


def test_glb_holds_the_chosen_points_turned_upright_and_the_cameras(tmp_path):
    scene = reconstruction()
    write(scene, tmp_path / "scene.glb", min_confidence_percentile=30, max_points=200)
    cloud, turn = scene.points(30, 200), upright(scene.world_from_camera)
    points = geometry(tmp_path / "scene.glb", trimesh.PointCloud, "points")
    np.testing.assert_allclose(points.vertices, cloud.xyz @ turn.T, atol=1e-6)
    assert np.array_equal(points.colors[:, :3], linear_colours(cloud.rgb))
    cameras = geometry(tmp_path / "scene.glb", trimesh.path.Path3D, "cameras")
    corners = frustum_segments(scene).reshape(-1, 3) @ turn.T
    np.testing.assert_allclose(np.sort(cameras.vertices, 0), np.sort(corners, 0), atol=1e-6)


def test_npz_is_the_whole_scene(tmp_path):
    scene = reconstruction()
    write(scene, tmp_path / "scene.NPZ", max_points=1)
    assert np.array_equal(Reconstruction.load(tmp_path / "scene.NPZ").depth, scene.depth)


def test_tum_holds_the_path(tmp_path):
    scene = reconstruction()
    write(scene, tmp_path / "path.tum")
    rows = np.loadtxt(tmp_path / "path.tum")
    np.testing.assert_allclose(rows[:, 0], scene.timestamps)
    np.testing.assert_allclose(rows[:, 1:4], scene.world_from_camera[:, :3, 3], atol=1e-7)
    rotations = matrix_from_quaternion(torch.from_numpy(rows[:, 4:])).numpy()
    np.testing.assert_allclose(rotations, scene.world_from_camera[:, :3, :3], atol=1e-6)


def test_frusta_stand_at_their_cameras_and_see_the_image_edges():
    scene = reconstruction(frames=2)
    segments = frustum_segments(scene).reshape(2, 8, 2, 3)
    np.testing.assert_allclose(segments[:, 4:, 0], np.repeat(scene.world_from_camera[:, None, :3, 3], 4, 1), atol=1e-6)
    camera_from_world = np.linalg.inv(scene.world_from_camera.astype(np.float64))
    for frame in range(2):
        corners = segments[frame, :4, 0] @ camera_from_world[frame, :3, :3].T + camera_from_world[frame, :3, 3]
        pixels = corners @ scene.intrinsics[frame].T
        pixels = pixels[:, :2] / pixels[:, 2:]
        np.testing.assert_allclose(pixels, [[-0.5, -0.5], [15.5, -0.5], [15.5, 11.5], [-0.5, 11.5]], atol=1e-3)
        assert corners[:, 2] == pytest.approx(FRUSTUM_DEPTH * np.median(scene.depth), rel=0.05)


@pytest.mark.parametrize("world", [np.eye(3), turned(np.array([1, 2, 3]), 100)])
@pytest.mark.parametrize("tilt", [0, 35])
def test_upright_finds_the_vertical_of_tilted_cameras_looking_around(world, tilt):
    cameras = np.tile(np.eye(4), (7, 1, 1))
    for camera, yaw in zip(cameras, np.linspace(0, 300, 7), strict=True):
        camera[:3, :3] = world @ turned(np.array([0, 1, 0]), yaw) @ turned(np.array([1, 0, 0]), -tilt)
    turn = upright(cameras)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)
    np.testing.assert_allclose(turn @ world @ [0, -1, 0], [0, 1, 0], atol=0.02)  # true up becomes y
    np.testing.assert_allclose(turn @ cameras[0, :3, 0], [1, 0, 0], atol=0.02)  # the first camera's right stays right


@pytest.mark.parametrize("roll", [0, 90, 180])
def test_upright_takes_a_single_camera_as_level(roll):
    camera = np.eye(4)
    camera[:3, :3] = turned(np.array([0, 0, 1]), roll)
    turn = upright(camera[None])
    np.testing.assert_allclose(turn @ camera[:3, :3] @ np.diag([1, -1, -1]), np.eye(3), atol=1e-9)


def test_linear_colours_follow_srgb():
    assert linear_colours(np.array([[0, 255, 188]], np.uint8)).tolist() == [[0, 255, 128]]


@pytest.mark.parametrize("name", ["scene.obj", "scene.glb.txt"])
def test_unknown_suffixes_name_the_legal_ones(tmp_path, name):
    with pytest.raises(InputError, match=r"\.glb, \.ply, \.npz"):
        write(reconstruction(), tmp_path / name)


FILES = [suffix for suffix in FORMATS if suffix]


@pytest.mark.parametrize("suffix", FILES)
def test_every_file_says_what_it_holds_and_may_be_written_again(tmp_path, suffix):
    target = tmp_path / f"scene{suffix}"
    origin = Origin(clip="room walk", alignment="to the dense run, by Sim(3)")
    for _ in range(2):
        write(reconstruction(), target, min_confidence_percentile=15, max_points=200, origin=origin)
    content = target.read_bytes()
    if suffix == ".npz":
        content = content.replace(b"\0", b"")
    for words in (b"Spark3R", b"room walk", b"no metres", b"Sim(3)"):
        assert words in content
    assert (b"15 % least confident points left out, at most 200" in content) == (suffix in (".glb", ".ply", ".zip"))


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".npz", ".zip"])
def test_the_size_told_before_is_about_the_size_after(tmp_path, suffix):
    scene = reconstruction(8, 48, 64)
    write(scene, tmp_path / f"scene{suffix}")
    size = (tmp_path / f"scene{suffix}").stat().st_size
    assert estimated_bytes(scene, suffix, Filters()) == pytest.approx(size, rel=0.25)


def test_names_tell_clip_model_and_schedule():
    scene = reconstruction()
    assert file_name("../My <Clip>.mp4", scene, ".glb") == "my-clip_mini_q2-kv4.glb"
    dense = dataclasses.replace(scene, schedule=ReductionSchedule.off())
    assert file_name("a", dense, ".zip") == "a_mini_dense-colmap.zip"


@pytest.mark.parametrize("suffix", FILES)
def test_links_are_written_through_and_foreign_files_and_devices_left_alone(tmp_path, suffix):
    (tmp_path / "real").mkdir()
    link = tmp_path / f"link{suffix}"
    link.symlink_to(tmp_path / "real" / f"scene{suffix}")
    write(reconstruction(), link)
    assert link.is_symlink()
    assert (tmp_path / "real" / f"scene{suffix}").stat().st_size > 100
    foreign = tmp_path / f"foreign{suffix}"
    foreign.write_text("precious")
    with pytest.raises(InputError, match="not written by Spark3R"):
        write(reconstruction(), foreign)
    assert foreign.read_text() == "precious"
    pipe = tmp_path / f"pipe{suffix}"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="device or a pipe"):
        write(reconstruction(), pipe)


@pytest.mark.parametrize("suffix", FORMATS)
def test_missing_parents_are_made(tmp_path, suffix):
    write(reconstruction(), tmp_path / "a" / "b" / f"scene{suffix}")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == [f"scene{suffix}"]


@pytest.mark.parametrize("suffix", FILES)
def test_a_full_disk_is_one_sentence_and_the_old_file_stays(tmp_path, suffix, monkeypatch):
    target = tmp_path / f"scene{suffix}"
    write(reconstruction(), target)
    old = target.read_bytes()

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match="disk is full"):
        write(reconstruction(), target)
    assert target.read_bytes() == old
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("suffix", FILES)
def test_a_file_in_the_place_of_a_folder_and_the_reverse(tmp_path, suffix):
    (tmp_path / "file").write_text("")
    (tmp_path / f"folder{suffix}").mkdir()
    for target in (tmp_path / "file" / f"scene{suffix}", tmp_path / f"folder{suffix}"):
        with pytest.raises(InputError, match="folder"):
            write(reconstruction(), target)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_an_unwritable_folder_is_one_sentence():
    with pytest.raises(InputError, match=r"may not be written|cannot be written"):
        write(reconstruction(), "/proc/scene.ply")


def test_a_scene_without_points_is_told(tmp_path):
    scene = reconstruction()
    blind = dataclasses.replace(scene, depth=np.zeros_like(scene.depth))
    with pytest.raises(InputError, match="no usable points"):
        write(blind, tmp_path / "scene.ply")
    assert not list(tmp_path.iterdir())


def test_a_written_file_has_ordinary_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    write(reconstruction(), tmp_path / "path.tum")
    assert (tmp_path / "path.tum").stat().st_mode == (tmp_path / "plain").stat().st_mode
