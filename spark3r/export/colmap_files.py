"""COLMAP's files of a sparse model, text and binary, as https://colmap.github.io/format.html describes them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spark3r.stopping import may_stop

PINHOLE = 1  # model id in the binary files
UNKNOWN_ERROR = -1.0  # COLMAP's own mark of a point whose reprojection error was not computed


@dataclass(frozen=True)
class Camera:
    """A pinhole, in pixels whose centres are at .5."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    @property
    def parameters(self) -> tuple[float, float, float, float]:
        """In COLMAP's order."""
        return self.fx, self.fy, self.cx, self.cy


@dataclass(frozen=True, eq=False)
class View:
    """One image: its pose (camera_from_world) and what it sees."""

    name: str
    camera: Camera
    wxyz: tuple[float, ...]
    translation: tuple[float, ...]
    points: np.ndarray  # [n] positions in the model's points
    pixels: np.ndarray  # [n, 2] x, y


@dataclass(frozen=True, eq=False)
class Model:
    """Everything of a sparse model."""

    views: tuple[View, ...]
    xyz: np.ndarray  # [N, 3]
    rgb: np.ndarray  # [N, 3] uint8

    def cameras(self) -> dict[Camera, int]:
        """The distinct cameras, with ids from 1."""
        return {camera: number for number, camera in enumerate(dict.fromkeys(v.camera for v in self.views), 1)}

    def tracks(self) -> tuple[np.ndarray, np.ndarray]:
        """Observations by point: [N + 1] offsets into [n, 2] pairs (image id, place among that image's points)."""
        counts = [len(view.points) for view in self.views]
        point = np.concatenate([view.points for view in self.views]) if counts else np.empty(0, np.int64)
        image = np.repeat(np.arange(1, len(counts) + 1), counts)
        place = np.concatenate([np.arange(count) for count in counts]) if counts else np.empty(0, np.int64)
        order = np.argsort(point, kind="stable")
        offsets = np.searchsorted(point[order], np.arange(len(self.xyz) + 1))
        return offsets, np.stack([image, place], -1)[order]


def write(model: Model, folder: Path) -> None:
    """cameras, images and points3D into a new folder, each as .txt and as .bin."""
    folder.mkdir(parents=True)
    cameras = model.cameras()
    (folder / "cameras.txt").write_text(_cameras_text(cameras))
    (folder / "images.txt").write_text(_images_text(model, cameras))
    may_stop()
    (folder / "points3D.txt").write_text(_points_text(model))
    (folder / "cameras.bin").write_bytes(_cameras_binary(cameras))
    (folder / "images.bin").write_bytes(_images_binary(model, cameras))
    may_stop()
    (folder / "points3D.bin").write_bytes(_points_binary(model))


def _cameras_text(cameras: dict[Camera, int]) -> str:
    lines = ["# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[] (fx, fy, cx, cy)", f"# Number of cameras: {len(cameras)}"]
    for camera, number in cameras.items():
        lines.append(f"{number} PINHOLE {camera.width} {camera.height} {_numbers(camera.parameters)}")
    return "\n".join(lines) + "\n"


def _images_text(model: Model, cameras: dict[Camera, int]) -> str:
    """Two lines an image and two of comments: some readers count lines, and want an even number."""
    lines = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME", "# POINTS2D[] as (X, Y, POINT3D_ID)"]
    for number, view in enumerate(model.views, 1):
        may_stop()
        pose = _numbers((*view.wxyz, *view.translation))
        lines.append(f"{number} {pose} {cameras[view.camera]} {view.name}")
        seen = zip(view.pixels.tolist(), (view.points + 1).tolist(), strict=True)
        lines.append(" ".join(f"{x:.3f} {y:.3f} {point}" for (x, y), point in seen))
    return "\n".join(lines) + "\n"


def _points_text(model: Model) -> str:
    offsets, pairs = model.tracks()
    flat, ends = pairs.reshape(-1).tolist(), (2 * offsets).tolist()
    lines = ["# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)"]
    for point, (xyz, rgb) in enumerate(zip(model.xyz.tolist(), model.rgb.tolist(), strict=True)):
        track = " ".join(map(str, flat[ends[point] : ends[point + 1]]))
        x, y, z = xyz
        lines.append(f"{point + 1} {x:.7g} {y:.7g} {z:.7g} {rgb[0]} {rgb[1]} {rgb[2]} {UNKNOWN_ERROR:g} {track}")
    return "\n".join(lines) + "\n"


def _cameras_binary(cameras: dict[Camera, int]) -> bytes:
    parts = [struct.pack("<Q", len(cameras))]
    for camera, number in cameras.items():
        parts.append(struct.pack("<iiQQ4d", number, PINHOLE, camera.width, camera.height, *camera.parameters))
    return b"".join(parts)


def _images_binary(model: Model, cameras: dict[Camera, int]) -> bytes:
    parts = [struct.pack("<Q", len(model.views))]
    for number, view in enumerate(model.views, 1):
        may_stop()
        parts.append(struct.pack("<i7di", number, *view.wxyz, *view.translation, cameras[view.camera]))
        parts.append(view.name.encode() + b"\0" + struct.pack("<Q", len(view.points)))
        seen = np.empty(len(view.points), [("xy", "<f8", 2), ("point", "<i8")])
        seen["xy"], seen["point"] = view.pixels, view.points + 1
        parts.append(seen.tobytes())
    return b"".join(parts)


def _points_binary(model: Model) -> bytes:
    offsets, pairs = model.tracks()
    flat, ends = pairs.astype("<i4"), offsets.tolist()
    parts = [struct.pack("<Q", len(model.xyz))]
    for point, (xyz, rgb) in enumerate(zip(model.xyz.tolist(), model.rgb.tolist(), strict=True)):
        start, end = ends[point], ends[point + 1]
        parts.append(struct.pack("<Q3d3BdQ", point + 1, *xyz, *rgb, UNKNOWN_ERROR, end - start))
        parts.append(flat[start:end].tobytes())
    return b"".join(parts)


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.10g}" for value in values)
