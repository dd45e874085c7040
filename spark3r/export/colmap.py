"""A folder for COLMAP, splat trainers and nerfstudio.

    sparse/0/   cameras, images, points3D as .txt and .bin (https://colmap.github.io/format.html)
    images/     the frames
    transforms.json, sparse_pc.ply   the same for nerfstudio (https://docs.nerf.studio, "Data conventions")
    spark3r.json   what all this is

COLMAP's pixel centres are at .5, ours at integers.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from spark3r.errors import InputError
from spark3r.export import colmap_files
from spark3r.export.colmap_files import Camera, Model, View
from spark3r.export.contents import Filters, Origin, about
from spark3r.export.tracks import observations
from spark3r.export.writers import ply_bytes
from spark3r.files import MARKER, replacing, replacing_folder
from spark3r.frames import original_frames
from spark3r.geometry import quaternion_from_matrix
from spark3r.reconstruction import Reconstruction
from spark3r.stopping import may_stop

DEFAULT_MAX_POINTS = 100_000  # dense clouds make splat training start from millions of Gaussians, and fail
POINT_BYTES = 350  # text and binary, with about four observations
ZIPPED_POINT_BYTES = 140
JPEG_QUALITY = 95
PACKED_BYTES = 1 << 20  # of a member of a .zip, between looks whether to stop
SAME_ASPECT = 1.02  # photos whose aspects differ by less were taken alike


@dataclass(frozen=True)
class Lens:
    """A frame as it is written: its size, and where in it the pixels of the reconstruction are."""

    width: int
    height: int
    scale: np.ndarray  # [2] written pixels per pixel of the reconstruction, x and y
    start: np.ndarray  # [2] written pixels left of and above the part that was seen

    def pixels(
        self,
        seen: np.ndarray,  # [..., 2] x, y; pixel centres at integers
    ) -> np.ndarray:  # [..., 2] pixel centres at .5
        """From the reconstruction's pixels to COLMAP's, of the frame as written."""
        return self.start + (seen + 0.5) * self.scale

    def camera(self, intrinsics: np.ndarray) -> Camera:
        """Pinhole intrinsics [3, 3] of the reconstruction, for the frame as written."""
        focal = intrinsics[[0, 1], [0, 1]] * self.scale
        centre = self.pixels(intrinsics[:2, 2])
        return Camera(self.width, self.height, *(float(number) for number in (*focal, *centre)))


def write_folder(scene: Reconstruction, path: Path, filters: Filters, origin: Origin) -> None:
    """The folder; frames in their own size if the origin's source is given, else as the network saw them."""
    usable = np.isfinite(scene.world_from_camera).all((1, 2)) & np.isfinite(scene.intrinsics).all((1, 2))
    frames = np.flatnonzero(usable)
    seen = observations(scene, filters.points(scene, DEFAULT_MAX_POINTS), frames)
    if seen.is_tracked.any():  # a point seen once says nothing to a bundle adjustment, and MVS finds no pairs
        seen = seen.select(seen.is_tracked)
    cloud = seen.cloud
    told = about(scene, origin, filters.words(DEFAULT_MAX_POINTS) + "; seen in two frames or more where any is")
    with replacing_folder(path) as folder:
        (folder / MARKER).write_text(json.dumps(told, indent=2) + "\n")
        names = [f"{index:06d}.jpg" for index in scene.indices]
        lenses = _write_frames(scene, folder / "images", names, origin)
        views = [_view(scene, frame, lenses[frame], names[frame], seen.of_frame(frame)) for frame in frames.tolist()]
        model = Model(tuple(views), cloud.xyz, cloud.rgb)
        colmap_files.write(model, folder / "sparse" / "0")
        may_stop()
        (folder / "sparse_pc.ply").write_bytes(ply_bytes(cloud, told))
        (folder / "transforms.json").write_text(json.dumps(_transforms(scene, model, frames, told), indent=1) + "\n")


def write_zip(scene: Reconstruction, path: Path, filters: Filters, origin: Origin) -> None:
    """The folder as one file; what it is stands first."""
    with tempfile.TemporaryDirectory(prefix="spark3r-") as place, replacing(path) as temporary:
        folder = Path(place) / path.stem
        write_folder(scene, folder, filters, origin)
        files = [member for member in folder.rglob("*") if member.is_file()]
        members = sorted(files, key=lambda member: (member.name != MARKER, member))
        with zipfile.ZipFile(temporary, "w") as archive:
            for member in members:
                packed = member.suffix not in (".jpg", ".json") or member.name == "transforms.json"
                entry = zipfile.ZipInfo.from_file(member, f"{path.stem}/{member.relative_to(folder)}")
                entry.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
                with member.open("rb") as source, archive.open(entry, "w") as target:
                    while block := source.read(PACKED_BYTES):
                        may_stop()
                        target.write(block)


def image_bytes(scene: Reconstruction) -> int:
    """About what the frames take, as the network saw them: larger originals are larger files."""
    if not len(scene):
        return 0
    middle = scene.images[len(scene) // 2]
    return len(scene) * len(cv2.imencode(".jpg", middle, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])


def _write_frames(scene: Reconstruction, folder: Path, names: list[str], origin: Origin) -> list[Lens]:
    folder.mkdir()
    sizes = []
    for name, image in zip(names, _images(scene, origin), strict=True):
        may_stop()
        written = cv2.imwrite(str(folder / name), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if not written:
            raise OSError(f"{name} could not be written")
        sizes.append(image.shape[:2])
    own = origin.source is not None
    usual = statistics.mode(round(width / height, 2) for height, width in sizes)
    return [_lens(scene, height, width, usual, own) for height, width in sizes]


def _images(scene: Reconstruction, origin: Origin) -> Iterator[np.ndarray]:
    if origin.source is None:
        yield from scene.images
        return
    count = 0
    for image in original_frames(origin.source, scene.indices):
        count += 1
        yield image
    if count != len(scene):
        raise InputError(f"{origin.clip or 'the clip'} has changed since it was reconstructed: reconstruct it again")


def _lens(scene: Reconstruction, height: int, width: int, usual_aspect: float, own: bool) -> Lens:
    """Where the reconstruction's pixels lie in a frame of this size.

    Photos of an unusual aspect were cropped in the middle to the usual one before the network saw them.
    """
    whole = np.array([width, height], dtype=np.float64)
    part, start = whole.copy(), np.zeros(2)
    if own:
        odd = max(width / height / usual_aspect, usual_aspect * height / width) > SAME_ASPECT
        if odd:
            part = np.minimum(whole, [height * usual_aspect, width / usual_aspect])
            start = (whole - part) / 2
        top, left, seen_height, seen_width = scene.seen
        start = start + part * [left, top]
        part = part * [seen_width, seen_height]
    return Lens(width, height, part / [scene.width, scene.height], start)


def _view(scene: Reconstruction, frame: int, lens: Lens, name: str, seen: tuple[np.ndarray, np.ndarray]) -> View:
    may_stop()
    points, pixels = seen
    camera_from_world = np.linalg.inv(scene.world_from_camera[frame].astype(np.float64))
    x, y, z, w = quaternion_from_matrix(torch.from_numpy(camera_from_world[:3, :3])).tolist()
    camera = lens.camera(scene.intrinsics[frame].astype(np.float64))
    return View(name, camera, (w, x, y, z), tuple(camera_from_world[:3, 3]), points, lens.pixels(pixels))


def _transforms(scene: Reconstruction, model: Model, frames: np.ndarray, told: dict[str, str]) -> dict[str, object]:
    """nerfstudio's file: cameras in OpenGL axes (x right, y up, z back), the world as it is."""
    opengl = np.diag([1.0, -1.0, -1.0, 1.0])
    poses = scene.world_from_camera[frames].astype(np.float64) @ opengl
    return {
        "camera_model": "PINHOLE",
        "about": told | {"axes": "world: " + told["axes"] + "; cameras: OpenGL: x right, y up, z back"},
        "ply_file_path": "sparse_pc.ply",
        "applied_transform": np.eye(4)[:3].tolist(),
        "frames": [
            {
                "file_path": f"images/{view.name}",
                "transform_matrix": pose.tolist(),
                "w": view.camera.width, "h": view.camera.height,
                "fl_x": view.camera.fx, "fl_y": view.camera.fy, "cx": view.camera.cx, "cy": view.camera.cy,
            }
            for view, pose in zip(model.views, poses, strict=True)
        ],
    }  # fmt: skip
