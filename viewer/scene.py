"""What a pane shows: one cloud, the cameras that saw it, and the path between them (viser; no gradio)."""

import threading

import cv2
import numpy as np
from viser import PointCloudHandle, SceneNodeHandle, ViserServer

from spark3r.reconstruction import PointCloud, Reconstruction
from viewer.framing import Look, point_spacing
from viewer.palette import Scale, paint
from viewer.state import ViewSettings
from viewer.world import Baseline, depth_from

MAX_FRUSTA = 8  # more than that hides the scene; the path shows the rest
THUMBNAIL_PIXELS = 64
FRUSTUM_SIZE = 0.035  # of the scene radius
HIGHLIGHT = "/cameras/highlight"  # the camera of the frame that is looked at; the page moves it by itself
HIGHLIGHT_SIZE = 0.08
CAMERA_COLOUR = (255, 138, 61)
PATH_COLOUR = (255, 190, 140)
HIGHLIGHT_COLOUR = (64, 224, 255)
CLOSING = 1.4  # points of that many spacings leave no gaps, seen at an angle too


class PaneScene:
    """The content of one pane; `show` replaces it, `apply` redraws it under other view settings."""

    def __init__(self, server: ViserServer, view: ViewSettings) -> None:
        self._server = server
        self._view = view
        self._run: Reconstruction | None = None  # in the baseline's world
        self._baseline: Baseline | None = None
        self._frame = 0  # depth is seen from its camera
        self._shown: PointCloud | None = None  # in the world of the baseline
        self._cloud: PointCloudHandle | None = None
        self._spacing = 0.0
        self._cameras: SceneNodeHandle | None = None
        self._lock = threading.RLock()  # a run shows while the visitor moves a view slider
        server.gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False)
        server.gui.main_panel.minimize()

    def show(self, run: Reconstruction, baseline: Baseline) -> None:
        """Show a run, given in the world of the baseline."""
        with self._lock, self._server.atomic():
            self._run, self._baseline = run, baseline
            self._frame = min(self._frame, len(run) - 1)
            self._draw_cloud()
            self._draw_cameras()

    def look_from_frame(self, frame: int) -> None:
        """Depth is seen from the camera of this frame from now on."""
        with self._lock:
            self._frame = frame
            if self._view.colour == "depth":
                self._recolour()

    def apply(self, view: ViewSettings) -> None:
        """Redraw under `view`; only what changed is sent."""
        with self._lock:
            before, self._view = self._view, view
            if self._cloud is None or self._cameras is None:
                return
            self._cameras.visible = view.cameras
            if view.content != before.content:
                self._draw_cloud()
            elif view.colouring != before.colouring:
                self._recolour()
            self._cloud.point_size = self._point_size()

    def clear(self) -> None:
        """Show nothing, as before the first run."""
        with self._lock:
            self._run = self._baseline = self._shown = self._cloud = self._cameras = None
            self._server.scene.reset()

    def look(self, look: Look) -> None:
        """Point every camera of this pane, and those of browsers still to come."""
        start = self._server.initial_camera
        start.position, start.look_at, start.up = look.position, look.look_at, (0.0, 0.0, 1.0)
        start.fov, start.near = look.fov, look.near
        for client in self._server.get_clients().values():
            camera = client.camera
            with client.atomic():
                camera.position, camera.look_at = look.position, look.look_at
                camera.up_direction = np.array([0.0, 0.0, 1.0])
                camera.fov, camera.near = look.fov, look.near

    def _draw_cloud(self) -> None:
        assert self._run is not None
        assert self._baseline is not None
        cloud = self._shown = self._run.points(self._view.min_confidence_percentile, self._view.max_points)
        viewer_from_world = self._baseline.viewer_from_world
        self._spacing = viewer_from_world.scale * point_spacing(cloud)
        self._cloud = self._server.scene.add_point_cloud(
            "/cloud", viewer_from_world.apply(cloud.xyz), self._colours(cloud), point_size=self._point_size(),
            point_shape="rounded", point_shading="flat",
        )  # fmt: skip

    def _recolour(self) -> None:
        if self._cloud is not None and self._shown is not None:
            self._cloud.colors = self._colours(self._shown)

    def _point_size(self) -> float:
        return max(CLOSING * self._spacing, 1e-4) * self._view.point_size / 100

    def _colours(self, cloud: PointCloud) -> np.ndarray:  # [N, 3] uint8
        """Their own, or what the view asks for on the baseline's scales: a colour means the same in both panes."""
        run, baseline, by = self._run, self._baseline, self._view.colour
        assert run is not None
        assert baseline is not None
        if by == "depth":
            return paint(depth_from(cloud, run, self._frame), by, baseline.depth)
        if by == "confidence":
            return paint(cloud.confidence, by, baseline.confidence)
        moved = Scale(0.0, self._view.moved_percent / 100)
        if by == "difference":
            return paint(baseline.difference(cloud, run), by, moved)
        if by == "error":
            return paint(baseline.error(cloud, run), by, moved)
        return cloud.rgb

    def _draw_cameras(self) -> None:
        assert self._run is not None
        assert self._baseline is not None
        scene = self._run.transformed(self._baseline.viewer_from_world)
        if self._cameras is not None:
            self._cameras.remove()
        self._cameras = self._server.scene.add_frame("/cameras", show_axes=False, visible=self._view.cameras)
        centres = scene.world_from_camera[:, :3, 3]
        if len(scene) > 1:
            self._server.scene.add_line_segments(
                "/cameras/path", np.stack([centres[:-1], centres[1:]], axis=1), np.array(PATH_COLOUR, np.uint8),
                thickness=2.0, thickness_units="screen",
            )  # fmt: skip
        for index in np.unique(np.linspace(0, len(scene) - 1, min(len(scene), MAX_FRUSTA)).astype(int)):
            self._draw_frustum(f"/cameras/{index:05d}", scene, int(index), FRUSTUM_SIZE, CAMERA_COLOUR, 1.2)
        self._draw_frustum(HIGHLIGHT, scene, self._frame, HIGHLIGHT_SIZE, HIGHLIGHT_COLOUR, 3.0)

    def _draw_frustum(
        self, name: str, scene: Reconstruction, index: int, size: float, colour: tuple[int, int, int], thickness: float
    ) -> None:
        height, width = scene.images.shape[1:3]
        shrink = THUMBNAIL_PIXELS / max(height, width)
        image = None
        if name != HIGHLIGHT:
            small = (max(1, round(width * shrink)), max(1, round(height * shrink)))
            image = cv2.resize(scene.images[index], small, interpolation=cv2.INTER_AREA)
        pose = scene.world_from_camera[index]
        self._server.scene.add_camera_frustum(
            name, fov=2 * float(np.arctan2(height / 2, scene.intrinsics[index, 1, 1])), aspect=width / height,
            scale=size, thickness=thickness, thickness_units="screen", color=colour, image=image, format="jpeg",
            wxyz=wxyz_from_matrix(pose[:3, :3]), position=pose[:3, 3], cast_shadow=False, receive_shadow=False,
        )  # fmt: skip


def wxyz_from_matrix(rotation: np.ndarray) -> np.ndarray:  # [..., 3, 3] → [..., 4]
    """Unit quaternions in viser's order."""
    import torch

    from spark3r.geometry import quaternion_from_matrix

    return np.roll(quaternion_from_matrix(torch.from_numpy(rotation.astype(np.float64))).numpy(), 1, axis=-1)
