"""Where to stand and how to look, so that a stranger recognises the scene: coordinates, views, size of points.

Viewer coordinates have z up, y along the heading of the first camera, and a radius of about 1.
"""

from dataclasses import dataclass

import numpy as np

from spark3r.geometry import Similarity, upright
from spark3r.reconstruction import PointCloud, Reconstruction

SAMPLE_POINTS = 60_000  # enough to find the centre and the bounds of a scene
CELLS = 60  # along the diagonal; of the points in one cell, one counts
SAMPLE_PERCENTILE = 30.0  # of confidence: stray points shall not decide
TRIMMED = 3.0  # percent of the points on each side that a fitted view may cut off
MARGIN = 0.04  # of the pane, left free around a fitted view
FOV = np.radians(50.0)  # vertical; viser's own 75° bends a room
USUAL_ASPECT = 1.6  # width / height of a pane that has not told its own yet
PITCH = np.radians(38.0)  # of the fitted view, downwards: the floor tells where things stand
PATH_SHARE = 0.05  # of the points, that the camera path stands for in a fit: more than is trimmed, so it is seen
BEFORE_CAMERAS = 0.06  # left between the cutting plane and the nearest camera, so that cameras are seen
NEAREST = 0.02  # near plane of views from inside
Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # from x right, y up, z back


@dataclass(frozen=True, eq=False)
class Look:
    """A camera of a pane; up is +z."""

    position: np.ndarray  # [3]
    look_at: np.ndarray  # [3], the centre of orbiting
    fov: float = float(FOV)  # vertical, radians
    near: float = NEAREST  # what is nearer is not drawn

    @property
    def near_ratio(self) -> float:
        """near / distance to `look_at`: kept while the visitor orbits and zooms."""
        return self.near / max(float(np.linalg.norm(self.position - self.look_at)), 1e-6)


def viewer_from_world(scene: Reconstruction) -> Similarity:
    """Centre the scene, scale it to a radius of about 1, set it upright, its first camera looking along +y."""
    points = _sample(scene)
    centre = np.median(points, axis=0)
    radius = float(np.percentile(np.linalg.norm(points - centre, axis=1), 80))
    rotation = Z_UP @ upright(_finite(scene.world_from_camera))
    scale = 1 / radius if radius > 0 else 1.0
    return Similarity(scale, rotation, -scale * rotation @ centre)


class Framing:
    """The views of one scene, given in viewer coordinates."""

    def __init__(self, scene: Reconstruction) -> None:
        self._points = _sample(scene)
        self._cameras = _finite(scene.world_from_camera)
        self._fov = 2 * np.arctan(scene.height / 2 / scene.intrinsics[:, 1, 1].astype(np.float64))
        self._all_cameras = scene.world_from_camera.astype(np.float64)

    def fit(self, aspect: float = USUAL_ASPECT) -> Look:
        """All of it, from behind the first camera and above; what stands before all cameras is cut away."""
        forward = self._cameras[0][:3, 2] * [1, 1, 0]
        if np.linalg.norm(forward) < 0.1:  # a camera that looks straight down
            forward = np.array([0.0, 1.0, 0.0])
        forward = forward / np.linalg.norm(forward)
        axis = np.cos(PITCH) * forward - np.sin(PITCH) * np.array([0.0, 0.0, 1.0])
        nearest = self._cameras[np.argmin(self._cameras[:, :3, 3] @ axis), :3, 3]
        return self._fitted(axis, aspect, nearest)

    def top(self, aspect: float = USUAL_ASPECT) -> Look:
        """From above, the first camera looking up the pane; what is over the cameras, as a ceiling, is cut away."""
        axis = np.array([0.0, 1e-3, -1.0])  # not quite straight down, where up would be undefined
        centres = self._cameras[:, :3, 3]
        highest = centres[np.argmax(centres[:, 2])]
        return self._fitted(axis / np.linalg.norm(axis), aspect, highest)

    def inside(self) -> Look:
        """From the middle of the camera path, level, the way its camera looks."""
        camera = self._cameras[len(self._cameras) // 2]
        forward = camera[:3, 2] * [1, 1, 0.3]
        return Look(camera[:3, 3] - 0.1 * forward, camera[:3, 3] + 0.4 * forward, np.radians(65.0))

    def camera(self, frame: int) -> Look:
        """Through the camera of a frame, which shows its picture."""
        camera = self._all_cameras[frame]
        return Look(camera[:3, 3], camera[:3, 3] + 0.5 * camera[:3, 2], float(self._fov[frame]))

    def _fitted(self, axis: np.ndarray, aspect: float, keep_beyond: np.ndarray) -> Look:
        """Looking along `axis` from where the trimmed bounds of what lies beyond a point just fill the pane.

        A point at (x, y, z) in the camera's axes is inside the right edge of a camera that stands at (a, b, -D) if
        x - a <= t (z + D), t the tangent of half the angle; so the trimmed maximum of x - t z of the points, and of
        -x - t z for the left edge, give a and D.
        """
        right = np.cross(axis, [0.0, 0.0, 1.0])
        right = right / np.linalg.norm(right)
        axes = np.stack([right, np.cross(axis, right), axis])  # x right, y down, z forward
        points = self._points @ axes.T
        start = float(axes[2] @ keep_beyond)
        beyond = points[points[:, 2] > start]
        is_cut = len(beyond) > len(points) / 3  # else the cameras look at the scene from the other side
        points = beyond if is_cut else points
        path = self._cameras[:, :3, 3] @ axes.T
        points = np.concatenate([points, np.resize(path, (round(PATH_SHARE * len(points)) + 1, 3))])
        across = np.tan(FOV / 2) * (1 - MARGIN) * np.array([aspect, 1.0])
        least = [-np.percentile(points[:, i] + across[i] * points[:, 2], TRIMMED) for i in (0, 1)]
        most = [np.percentile(points[:, i] - across[i] * points[:, 2], 100 - TRIMMED) for i in (0, 1)]
        place = [(high - low) / 2 for high, low in zip(most, least, strict=True)]
        distance = max((high + low) / (2 * t) for high, low, t in zip(most, least, across, strict=True))
        depth = np.median(points[:, 2])
        near = start + distance - BEFORE_CAMERAS if is_cut else 0.0
        position = np.array([*place, -distance]) @ axes
        return Look(position, np.array([*place, depth]) @ axes, near=max(near, NEAREST))


def point_spacing(cloud: PointCloud) -> float:
    """The distance between neighbouring points where they are sparse (upper quartile), in units of the cloud: points
    of this diameter close walls. 0 for fewer than nine."""
    from scipy.spatial import KDTree

    neighbours = 8
    if len(cloud) <= neighbours:
        return 0.0
    asked = cloud.xyz[:: max(1, len(cloud) // 2000)]
    distance, _ = KDTree(cloud.xyz, leafsize=64).query(asked, neighbours + 1)
    spacing = distance[:, -1] * np.sqrt(np.pi / neighbours)  # that many points share a disc of this radius
    return float(np.percentile(spacing, 75))


def _sample(scene: Reconstruction) -> np.ndarray:  # [N, 3] float64, N >= 1
    """Points spread over the surfaces: what many frames saw counts no more than what one did."""
    points = scene.points(SAMPLE_PERCENTILE, SAMPLE_POINTS).xyz.astype(np.float64)
    if not len(points):
        return _finite(scene.world_from_camera)[:, :3, 3]
    cell = float(np.linalg.norm(np.subtract(*np.percentile(points, [95, 5], axis=0)))) / CELLS
    _, first = np.unique(np.floor(points / (cell or 1.0)), axis=0, return_index=True)
    return points[first]


def _finite(cameras: np.ndarray) -> np.ndarray:  # [S, 4, 4] float64, at least one
    usable = np.isfinite(cameras).all((1, 2))
    return cameras[usable].astype(np.float64) if usable.any() else np.eye(4)[None]
