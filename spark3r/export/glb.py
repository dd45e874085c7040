"""Coloured points and camera frusta as binary glTF, upright (y up), in one file that browsers and Blender open."""

from pathlib import Path

import numpy as np

from spark3r.export.choice import Choice
from spark3r.files import replacing
from spark3r.geometry import unproject_pixels, upright
from spark3r.reconstruction import Reconstruction

# Depth of a drawn frustum, as a part of the median depth of the scene.
FRUSTUM_DEPTH = 0.06

FRUSTUM_COLOUR = (255, 96, 16, 255)  # seen on black and on white

# Corners of the image plane 0 … 3 and the camera centre 4, joined by eight lines.
_EDGES = np.array([[0, 1], [1, 2], [2, 3], [3, 0], [4, 0], [4, 1], [4, 2], [4, 3]])


def write(scene: Reconstruction, path: Path, choice: Choice) -> None:
    """Points with RGB under the node "points", one set of lines under "cameras"."""
    import trimesh
    import trimesh.path

    cloud = choice.points(scene)
    turn = upright(scene.world_from_camera)
    content = trimesh.Scene()
    points = trimesh.PointCloud(cloud.xyz @ turn.T, colors=linear_colours(cloud.rgb))
    content.add_geometry(points, geom_name="points", node_name="points")
    cameras = trimesh.load_path(frustum_segments(scene) @ turn.T)
    assert isinstance(cameras, trimesh.path.Path3D)
    cameras.colors = [FRUSTUM_COLOUR] * len(cameras.entities)
    content.add_geometry(cameras, geom_name="cameras", node_name="cameras")
    with replacing(path) as temporary:
        content.export(temporary, file_type="glb")


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
