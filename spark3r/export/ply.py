"""Coloured points as binary PLY, in the coordinates of the reconstruction (OpenCV axes)."""

from pathlib import Path

from spark3r.export.choice import Choice
from spark3r.files import replacing
from spark3r.reconstruction import Reconstruction


def write(scene: Reconstruction, path: Path, choice: Choice) -> None:
    """Points with RGB; MeshLab, CloudCompare and Open3D read it."""
    import trimesh

    cloud = choice.points(scene)
    points = trimesh.PointCloud(cloud.xyz, colors=cloud.rgb)
    with replacing(path) as temporary:
        points.export(temporary, file_type="ply")
