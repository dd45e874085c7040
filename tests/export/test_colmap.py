"""The COLMAP folder as COLMAP itself reads it, and nerfstudio's file beside it."""

import dataclasses
import json
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
from scipy.spatial import KDTree

from spark3r.errors import InputError
from spark3r.export import Origin, write
from spark3r.reconstruction import Reconstruction
from tests.analytic import reconstruction


def only(folder: Path, kind: str, place: Path) -> pycolmap.Reconstruction:
    """The model read from its text or its binary files alone."""
    place.mkdir()
    for name in ("cameras", "images", "points3D"):
        shutil.copy(folder / "sparse" / "0" / f"{name}.{kind}", place)
    return pycolmap.Reconstruction(place)


@pytest.fixture(scope="module")
def scene() -> Reconstruction:
    return reconstruction(8, 48, 64)


@pytest.fixture(scope="module")
def folder(scene: Reconstruction, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("colmap") / "model"
    write(scene, target, max_points=3000, origin=Origin(clip="walk"))
    return target


@pytest.mark.parametrize("kind", ["txt", "bin"])
def test_colmap_reads_poses_cameras_and_consistent_tracks(scene, folder, kind, tmp_path):
    model = only(folder, kind, tmp_path / kind)
    assert model.num_images() == 8
    assert model.compute_mean_reprojection_error() < 2e-3
    for number, image in model.images.items():
        frame = number - 1
        assert image.name == f"{scene.indices[frame]:06d}.jpg"
        camera_from_world = np.linalg.inv(scene.world_from_camera[frame].astype(float))
        np.testing.assert_allclose(image.cam_from_world().matrix(), camera_from_world[:3], atol=1e-6)
        camera, lens = model.cameras[image.camera_id], scene.intrinsics[frame]
        assert (camera.width, camera.height) == (64, 48)
        np.testing.assert_allclose(
            camera.params, [lens[0, 0], lens[1, 1], lens[0, 2] + 0.5, lens[1, 2] + 0.5], rtol=1e-6
        )
    lengths = np.array([point.track.length() for point in model.points3D.values()])
    assert len(lengths) > 1500
    assert lengths.min() >= 2
    assert lengths.max() <= 6


@pytest.mark.parametrize("kind", ["txt", "bin"])
def test_points_are_those_of_the_scene(scene, folder, kind, tmp_path):
    model = only(folder, kind, tmp_path / kind)
    cloud = scene.points(0, 3000)
    points = list(model.points3D.values())
    distance, nearest = KDTree(cloud.xyz).query([point.xyz for point in points])
    assert distance.max() < 1e-6
    assert np.array_equal(cloud.rgb[nearest], [point.color for point in points])


def test_a_track_ends_where_something_stands_before_the_point(scene, tmp_path):
    blocked = scene.depth.copy()
    blocked[3] *= 0.5  # frame 3 says that everything is nearer than the others say
    write(dataclasses.replace(scene, depth=blocked), tmp_path / "model", max_points=3000)
    model = pycolmap.Reconstruction(tmp_path / "model" / "sparse" / "0")
    seen = [len(model.images[number].points2D) for number in range(1, 9)]
    assert seen[3] < 0.2 * np.mean(seen)


def test_images_text_has_an_even_number_of_lines_even_for_a_frame_that_sees_nothing(scene, tmp_path):
    blind = scene.depth.copy()
    blind[2] = np.nan
    write(dataclasses.replace(scene, depth=blind), tmp_path / "model", max_points=500)
    text = (tmp_path / "model" / "sparse" / "0" / "images.txt").read_text()
    assert text.count("\n") % 2 == 0
    assert only(tmp_path / "model", "txt", tmp_path / "text").num_images() == 8


def test_a_single_frame_keeps_its_points_though_none_is_seen_twice(tmp_path):
    write(reconstruction(1, 24, 32), tmp_path / "model", max_points=300)
    assert pycolmap.Reconstruction(tmp_path / "model" / "sparse" / "0").num_points3D() == 300


def test_frames_without_a_finite_camera_are_left_out(scene, tmp_path):
    cameras = scene.world_from_camera.copy()
    cameras[5] = np.nan
    write(dataclasses.replace(scene, world_from_camera=cameras), tmp_path / "model", max_points=500)
    names = {image.name for image in pycolmap.Reconstruction(tmp_path / "model" / "sparse" / "0").images.values()}
    assert names == {f"{index:06d}.jpg" for index in scene.indices} - {"000015.jpg"}


def test_nerfstudio_reads_the_same_cameras_in_opengl_axes(scene, folder):
    content = json.loads((folder / "transforms.json").read_text())
    assert content["camera_model"] == "PINHOLE"
    assert (folder / content["ply_file_path"]).read_bytes().startswith(b"ply")
    for frame, entry in enumerate(content["frames"]):
        assert (folder / entry["file_path"]).is_file()
        pose = np.array(entry["transform_matrix"])
        np.testing.assert_allclose(pose[:3, 3], scene.world_from_camera[frame, :3, 3], atol=1e-6)
        np.testing.assert_allclose(pose[:3, :3] @ [0, 0, -1], scene.world_from_camera[frame, :3, 2], atol=1e-6)
        assert entry["cx"] == pytest.approx(scene.intrinsics[frame, 0, 2] + 0.5)


def originals(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    folder.mkdir()
    for i, (width, height) in enumerate(sizes):
        cv2.imwrite(str(folder / f"{i:03d}.png"), np.full((height, width, 3), 10 * i, np.uint8))
    return folder


def test_frames_come_in_their_own_size_with_intrinsics_for_it(tmp_path):
    scene = dataclasses.replace(reconstruction(3, 24, 32), indices=np.arange(3), seen=(0.25, 0.0, 0.5, 1.0))
    source = originals(tmp_path / "photos", [(320, 480)] * 3)  # the network saw the middle half of the height
    write(scene, tmp_path / "model", max_points=300, origin=Origin(source=source))
    model = pycolmap.Reconstruction(tmp_path / "model" / "sparse" / "0")
    camera = model.cameras[1]
    assert (camera.width, camera.height) == (320, 480)
    assert cv2.imread(str(tmp_path / "model" / "images" / "000001.jpg")).shape == (480, 320, 3)  # pyright: ignore[reportOptionalMemberAccess]
    lens = scene.intrinsics[0]
    fx, fy, cx, cy = camera.params
    assert (fx, fy) == pytest.approx((10 * lens[0, 0], 10 * lens[1, 1]))
    assert (cx, cy) == pytest.approx((10 * (lens[0, 2] + 0.5), 120 + 10 * (lens[1, 2] + 0.5)))
    assert model.compute_mean_reprojection_error() < 0.02


def test_a_photo_of_another_aspect_has_a_camera_of_its_own(tmp_path):
    scene = dataclasses.replace(reconstruction(3, 24, 32), indices=np.arange(3))
    source = originals(tmp_path / "photos", [(640, 480), (480, 640), (640, 480)])
    write(scene, tmp_path / "model", max_points=300, origin=Origin(source=source))
    model = pycolmap.Reconstruction(tmp_path / "model" / "sparse" / "0")
    upright = model.cameras[model.images[2].camera_id]
    assert (upright.width, upright.height) == (480, 640)
    assert upright.params[:2] == pytest.approx(np.diag(scene.intrinsics[1])[:2] * 480 / 32, rel=0.01)
    assert upright.params[3] == pytest.approx(320, rel=0.01)  # cropped in the middle


def test_a_clip_that_lost_frames_is_told(tmp_path):
    scene = dataclasses.replace(reconstruction(3, 24, 32), indices=np.arange(3))
    source = originals(tmp_path / "photos", [(640, 480)] * 2)
    with pytest.raises(InputError, match="has changed"):
        write(scene, tmp_path / "model", max_points=300, origin=Origin(source=source))
    assert not (tmp_path / "model").exists()


def test_a_folder_is_replaced_only_if_it_is_ours(scene, tmp_path):
    write(scene, tmp_path / "model", max_points=300)
    write(scene, tmp_path / "model", max_points=200)
    assert pycolmap.Reconstruction(tmp_path / "model" / "sparse" / "0").num_points3D() <= 200
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years")
    with pytest.raises(InputError, match="holds something else"):
        write(scene, tmp_path / "other")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["model", "other"]


def test_a_zip_holds_the_same_folder(scene, folder, tmp_path):
    write(scene, tmp_path / "walk.zip", max_points=3000, origin=Origin(clip="walk"))
    with zipfile.ZipFile(tmp_path / "walk.zip") as archive:
        archive.extractall(tmp_path)
    for file in folder.rglob("*"):
        if file.is_file():
            assert (tmp_path / "walk" / file.relative_to(folder)).read_bytes() == file.read_bytes()
