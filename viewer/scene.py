"""What a pane shows: one cloud, the cameras that saw it, and the path between them (viser; no gradio)."""

import threading
from dataclasses import dataclass

import cv2
import numpy as np
from viser import LineSegmentsHandle, PointCloudHandle, SceneNodeHandle, ViserServer

from spark3r.geometry import Similarity
from spark3r.reconstruction import PointCloud, Reconstruction
from viewer.state import ViewSettings

SAMPLE_POINTS = 20_000  # enough to find the centre and the size of a scene
MAX_FRUSTA = 12  # more than that hides the scene; the path line shows the rest
THUMBNAIL_PIXELS = 64
FRUSTUM_SIZE = 0.06  # of the scene radius
CAMERA_COLOUR = (255, 138, 61)
PATH_COLOUR = (255, 190, 140)


@dataclass(frozen=True)
class Ranges:
    """Values at the two ends of the colour scales: the baseline's, so that both panes mean the same by a colour."""

    depth: tuple[float, float]
    confidence: tuple[float, float]

    @classmethod
    def of(cls, scene: Reconstruction) -> "Ranges":
        """The 2nd and 98th percentile of depth and confidence."""
        cloud = scene.points(0.0, SAMPLE_POINTS)
        return cls(_spread(cloud.depth), _spread(cloud.confidence))


class PaneScene:
    """The content of one pane; `show` replaces it, `apply` redraws it under other view settings."""

    def __init__(self, server: ViserServer, view: ViewSettings) -> None:
        self._server = server
        self._view = view
        self._scene: Reconstruction | None = None
        self._ranges: Ranges | None = None
        self._cloud: PointCloudHandle | None = None
        self._cameras: SceneNodeHandle | None = None
        self._lock = threading.RLock()  # a run shows while the visitor moves a view slider
        server.gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False)
        server.gui.main_panel.minimize()

    def show(self, scene: Reconstruction, ranges: Ranges) -> None:
        """Show `scene`, given in viewer coordinates (`viewer_from_world`)."""
        with self._lock, self._server.atomic():
            self._scene, self._ranges = scene, ranges
            self._draw_cloud()
            self._draw_cameras(scene)

    def apply(self, view: ViewSettings) -> None:
        """Redraw under `view`; only what changed is sent."""
        with self._lock:
            before, self._view = self._view, view
            if self._cloud is None or self._cameras is None:
                return
            self._cameras.visible = view.cameras
            self._cloud.point_size = view.point_size / 1000
            chosen = (view.min_confidence_percentile, view.max_points, view.colour)
            if chosen != (before.min_confidence_percentile, before.max_points, before.colour):
                self._draw_cloud()

    def clear(self) -> None:
        """Show nothing, as before the first run."""
        with self._lock:
            self._scene = self._cloud = self._cameras = None
            self._server.scene.reset()

    def look_from(self, position: np.ndarray, look_at: np.ndarray) -> None:
        """Point every camera of this pane, and those of browsers still to come, from `position` at `look_at`."""
        self._server.initial_camera.position = position
        self._server.initial_camera.look_at = look_at
        for client in self._server.get_clients().values():
            with client.atomic():
                client.camera.position = position
                client.camera.look_at = look_at
                client.camera.up_direction = np.array([0.0, 0.0, 1.0])

    def _draw_cloud(self) -> None:
        assert self._scene is not None
        assert self._ranges is not None
        cloud = self._scene.points(self._view.min_confidence_percentile, self._view.max_points)
        self._cloud = self._server.scene.add_point_cloud(
            "/cloud",
            cloud.xyz,
            colours(cloud, self._view.colour, self._ranges),
            point_size=self._view.point_size / 1000,
            point_shape="circle",
            point_shading="flat",
        )

    def _draw_cameras(self, scene: Reconstruction) -> None:
        if self._cameras is not None:
            self._cameras.remove()
        self._cameras = self._server.scene.add_frame("/cameras", show_axes=False, visible=self._view.cameras)
        self._draw_path(scene.world_from_camera[:, :3, 3])
        count = len(scene.images)
        for index in np.unique(np.linspace(0, count - 1, min(count, MAX_FRUSTA)).astype(int)):
            self._draw_frustum(scene, int(index))

    def _draw_frustum(self, scene: Reconstruction, index: int) -> None:
        height, width = scene.images.shape[1:3]
        shrink = THUMBNAIL_PIXELS / max(height, width)
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        pose = scene.world_from_camera[index]
        self._server.scene.add_camera_frustum(
            f"/cameras/{index:05d}",
            fov=2 * float(np.arctan2(height / 2, scene.intrinsics[index, 1, 1])),
            aspect=width / height,
            scale=FRUSTUM_SIZE,
            thickness=1.2,
            thickness_units="screen",
            color=CAMERA_COLOUR,
            image=cv2.resize(scene.images[index], size, interpolation=cv2.INTER_AREA),
            format="jpeg",
            wxyz=wxyz_from_matrix(pose[:3, :3]),
            position=pose[:3, 3],
            cast_shadow=False,
            receive_shadow=False,
        )

    def _draw_path(self, centres: np.ndarray) -> LineSegmentsHandle | None:  # [S, 3]
        if len(centres) < 2:
            return None
        return self._server.scene.add_line_segments(
            "/cameras/path",
            np.stack([centres[:-1], centres[1:]], axis=1),
            np.array(PATH_COLOUR, dtype=np.uint8),
            thickness=2.0,
            thickness_units="screen",
        )


def viewer_from_world(scene: Reconstruction) -> Similarity:
    """Centre the scene, scale it to a radius of about 1, set its mean camera upright (+z up), look along +y."""
    cloud = scene.points(40.0, SAMPLE_POINTS).xyz.astype(np.float64)
    cameras = scene.world_from_camera.astype(np.float64)
    points = cloud if len(cloud) else cameras[:, :3, 3]
    centre = np.median(points, axis=0)
    radius = float(np.percentile(np.linalg.norm(points - centre, axis=1), 80))
    rotation = _upright(cameras[:, :3, :3])
    scale = 1 / radius if radius > 0 else 1.0
    return Similarity(scale, rotation, -scale * rotation @ centre)


def first_look(scene: Reconstruction) -> tuple[np.ndarray, np.ndarray]:
    """Where to stand and what to look at: behind and above the first camera, at the middle of the scene."""
    pose = scene.world_from_camera[0].astype(np.float64)
    forward = pose[:3, 2]
    position = pose[:3, 3] - 0.75 * forward + np.array([0.0, 0.0, 0.5])
    look_at = np.zeros(3)
    if np.linalg.norm(position - look_at) < 0.3:  # a camera that turns on the spot in the middle
        position = look_at - 1.5 * forward + np.array([0.0, 0.0, 0.8])
    return position, look_at


def colours(cloud: PointCloud, by: str, ranges: Ranges) -> np.ndarray:  # [N, 3] uint8
    """Colours of the points: their own, or their depth (near is red) or confidence (sure is yellow) on a scale."""
    if by == "depth":
        low, high = ranges.depth
        return _on_scale(cloud.depth, high, low, cv2.COLORMAP_TURBO)
    if by == "confidence":
        return _on_scale(cloud.confidence, *ranges.confidence, cv2.COLORMAP_VIRIDIS)
    return cloud.rgb


def wxyz_from_matrix(rotation: np.ndarray) -> np.ndarray:  # [3, 3] → [4]
    """Unit quaternion in viser's order."""
    import torch

    from spark3r.geometry import quaternion_from_matrix

    x, y, z, w = quaternion_from_matrix(torch.from_numpy(rotation.astype(np.float64))).numpy()
    return np.array([w, x, y, z])


def _on_scale(values: np.ndarray, low: float, high: float, scale: int) -> np.ndarray:  # [N] → [N, 3] uint8
    place = np.clip((values - low) / ((high - low) or 1.0), 0, 1)
    picked = cv2.applyColorMap((255 * place).astype(np.uint8)[:, None], scale)
    return np.ascontiguousarray(picked[:, 0, ::-1])


def _spread(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, [2, 98]) if len(values) else (0.0, 1.0)
    return float(low), float(high)


def _upright(rotations: np.ndarray) -> np.ndarray:  # [S, 3, 3] → [3, 3]
    """The rotation that turns the mean camera up to +z and the first camera's heading to +y."""
    up = _direction(-rotations[:, :, 1].mean(axis=0), otherwise=-rotations[0, :, 1])
    heading = rotations[0, :, 2] - up * (up @ rotations[0, :, 2])
    forward = _direction(heading, otherwise=np.cross(up, rotations[0, :, 0]))
    return np.stack([np.cross(forward, up), forward, up])


def _direction(vector: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    chosen = vector if np.linalg.norm(vector) > 1e-3 else otherwise
    return chosen / np.linalg.norm(chosen)
