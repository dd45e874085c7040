"""Formats of one file each: GLB, PLY, NPZ, TUM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from spark3r.export.contents import Filters, Origin, about
from spark3r.files import replacing
from spark3r.geometry import quaternion_from_matrix, unproject_pixels, upright
from spark3r.reconstruction import PointCloud, Reconstruction
from spark3r.stopping import may_stop

# Depth of a drawn frustum, as a part of the median depth of the scene.
FRUSTUM_DEPTH = 0.06

FRUSTUM_COLOUR = (255, 96, 16, 255)  # seen on black and on white

GLB_AXES = "x right, y up, z towards the viewer; upright by the mean of the cameras, as seen from the first"

# Corners of the image plane 0 … 3 and the camera centre 4, joined by eight lines.
_EDGES = np.array([[0, 1], [1, 2], [2, 3], [3, 0], [4, 0], [4, 1], [4, 2], [4, 3]])

_PLY_VERTEX = (
    ("x", "float", "<f4"), ("y", "float", "<f4"), ("z", "float", "<f4"),
    ("red", "uchar", "u1"), ("green", "uchar", "u1"), ("blue", "uchar", "u1"),
    ("confidence", "float", "<f4"), ("frame", "int", "<i4"),
)  # fmt: skip
PLY_POINT_BYTES = np.dtype([(name, kind) for name, _, kind in _PLY_VERTEX]).itemsize
GLB_POINT_BYTES = 16  # three float32, four uint8


def write_glb(scene: Reconstruction, path: Path, filters: Filters, origin: Origin) -> None:
    """Binary glTF, upright: points with RGB under the node "points", camera frusta as lines under "cameras"."""
    import trimesh
    import trimesh.path

    cloud = filters.points(scene)
    may_stop()
    turn = upright(scene.world_from_camera)
    content = trimesh.Scene(metadata=about(scene, origin, filters.words(), GLB_AXES))
    points = trimesh.PointCloud(cloud.xyz @ turn.T, colors=linear_colours(cloud.rgb))
    content.add_geometry(points, geom_name="points", node_name="points")
    cameras = trimesh.load_path(frustum_segments(scene) @ turn.T)
    assert isinstance(cameras, trimesh.path.Path3D)
    cameras.colors = [FRUSTUM_COLOUR] * len(cameras.entities)
    content.add_geometry(cameras, geom_name="cameras", node_name="cameras")
    may_stop()
    with replacing(path) as temporary:
        content.export(temporary, file_type="glb")


def write_ply(scene: Reconstruction, path: Path, filters: Filters, origin: Origin) -> None:
    """Binary PLY in OpenCV axes: x y z, red green blue, confidence in (0, 1], frame 0 … S-1 of each point."""
    cloud = filters.points(scene)
    may_stop()
    with replacing(path) as temporary:
        temporary.write_bytes(ply_bytes(cloud, about(scene, origin, filters.words())))


def write_npz(scene: Reconstruction, path: Path, filters: Filters, origin: Origin) -> None:
    """The whole result, never filtered, as `Reconstruction.load` reads it."""
    scene.save(path, about(scene, origin))


def write_tum(scene: Reconstruction, path: Path, filters: Filters, origin: Origin) -> None:
    """The camera path: one line `seconds tx ty tz qx qy qz qw` of world_from_camera per frame, as evo reads it."""
    cameras = torch.from_numpy(scene.world_from_camera).double()
    quaternions = quaternion_from_matrix(cameras[:, :3, :3]).numpy()
    rows = np.column_stack([scene.timestamps, cameras[:, :3, 3].numpy(), quaternions])
    header = [f"{what}: {words}" for what, words in about(scene, origin).items()]
    with replacing(path) as temporary:
        np.savetxt(temporary, rows, fmt="%.9g", header="\n".join([*header, "timestamp tx ty tz qx qy qz qw"]))


def ply_bytes(cloud: PointCloud, comments: dict[str, str]) -> bytes:
    """A binary little-endian PLY file; P. Bourke, "PLY - Polygon File Format"."""
    rows = np.empty(len(cloud), [(name, kind) for name, _, kind in _PLY_VERTEX])
    columns = (*cloud.xyz.T, *cloud.rgb.T, cloud.confidence, cloud.frame)
    for (name, _, _), column in zip(_PLY_VERTEX, columns, strict=True):
        rows[name] = column
    header = [
        "ply",
        "format binary_little_endian 1.0",
        *(f"comment {what}: {' '.join(words.split())}" for what, words in comments.items()),
        f"element vertex {len(cloud)}",
        *(f"property {kind} {name}" for name, kind, _ in _PLY_VERTEX),
        "end_header\n",
    ]
    return "\n".join(header).encode("ascii", "replace") + rows.tobytes()


def frustum_segments(scene: Reconstruction) -> np.ndarray:  # [8·S, 2, 3]
    """The edges of every finite camera's frustum, in world coordinates."""
    usable = np.isfinite(scene.world_from_camera).all((1, 2)) & np.isfinite(scene.intrinsics).all((1, 2))
    cameras, intrinsics = scene.world_from_camera[usable, None], scene.intrinsics[usable, None]
    columns = np.array([0, 1, 1, 0]) * scene.width - 0.5
    rows = np.array([0, 0, 1, 1]) * scene.height - 0.5
    depth = np.full((len(cameras), 4), FRUSTUM_DEPTH * _median_depth(scene), np.float32)
    corners = unproject_pixels(columns, rows, depth, intrinsics, cameras)
    vertices = np.concatenate([corners, cameras[:, :, :3, 3]], axis=1)
    return vertices[:, _EDGES].reshape(-1, 2, 3)


def linear_colours(
    rgb: np.ndarray,  # [N, 3] uint8 sRGB, as images are
) -> np.ndarray:  # [N, 3] uint8 linear
    """glTF defines vertex colours as linear light; sRGB numbers in their place look washed out."""
    levels = np.arange(256) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return np.round(linear * 255).astype(np.uint8)[rgb]


def _median_depth(scene: Reconstruction) -> float:
    """Of a sample of the pixels that have a depth."""
    depth = scene.depth.reshape(-1)[:: max(1, scene.depth.size // 100_000) | 1]
    depth = depth[np.isfinite(depth) & (depth > 0)]
    return float(np.median(depth)) if depth.size else 1.0
