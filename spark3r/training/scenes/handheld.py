"""Camera paths of anybody with a phone: any height, roll and pitch, walking, turning, circling, or all at once."""

from __future__ import annotations

import numpy as np

from .paths import MAX_STEP, CameraPath, clearance, eased, hulls, inside, progress_of, shaken
from .scene import SceneBuilder

STEP = (0.015, 0.30)  # metres between neighbouring frames
REACH = 2.2  # metres of a path in a room; large places allow more
ROAM = 5.0  # metres from the middle of a large place where a path may lie
WIDE_FROM = 16  # clips of so many frames and more may turn so far that frames no longer overlap the middle one
NARROW_SWEEP, WIDE_SWEEP = np.radians((120.0, 270.0))
PITCH = np.radians((-69.0, 46.0))
CANDIDATES = 8
INTEREST = 2.5  # metres of freedom that a view full of relief is worth
DULL = 0.15  # share of paths taken as they come, be there nothing but a wall before the camera
FLAT = 0.04  # metres: thinner solids lie on a wall or a floor


def handheld_path(rng: np.random.Generator, scene: SceneBuilder, frames: int, breadth: float) -> CameraPath:
    """The best of a few random paths of S frames: free, and with something to see at different distances.

    `breadth` in 0..1 scales turn and travel.
    """
    paths = [_candidate(rng, scene, frames, breadth) for _ in range(CANDIDATES)]
    dull = rng.random() < DULL
    best = max(paths, key=lambda path: _freedom(scene, path) + (0.0 if dull else INTEREST * _interest(scene, path)))
    return inside(scene, shaken(best, rng, 0.35 * frames))


def _candidate(rng: np.random.Generator, scene: SceneBuilder, frames: int, breadth: float) -> CameraPath:
    s = eased(progress_of(rng, frames)) if rng.random() < 0.5 else progress_of(rng, frames)
    position = _course(rng, scene, s, breadth)
    yaw, pitch = _gaze(rng, scene, position, s, breadth)
    roll = rng.uniform(-0.7, 0.7) if rng.random() < 0.15 else 0.13 * rng.standard_normal()
    return CameraPath(position, yaw, pitch, roll + 0.07 * rng.standard_normal() * (s - 0.5))


def _course(rng: np.random.Generator, scene: SceneBuilder, s: np.ndarray, breadth: float) -> np.ndarray:
    """Positions [S, 3]: a bent, waving line through a random place, kept inside the room."""
    size = np.asarray(scene.size)
    reach = float(np.clip(0.3 * np.hypot(*size[:2]), REACH, ROAM))
    step = np.exp(rng.uniform(*np.log(STEP)))
    travel = min(step * max(len(s) - 1, 1), reach * rng.uniform(0.3, 1.0)) * breadth
    heading = rng.uniform(0, 2 * np.pi) + rng.uniform(-1.8, 1.8) * (s - 0.5)
    pace = np.diff(s, prepend=0.0) * travel
    xy = np.stack([np.cumsum(pace * np.cos(heading)), np.cumsum(pace * np.sin(heading))], -1)
    high = rng.uniform(1.1, 1.75) if rng.random() < 0.7 else rng.uniform(0.4, min(max(2.0, 0.8 * size[2]), 4.0))
    wave = np.sin(2 * np.pi * rng.uniform(0.5, 2.5, 3) * s[:, None] + rng.uniform(0, 6.3, 3))
    rise = travel * rng.uniform(-0.4, 0.4) * (s - 0.5)
    around = rng.uniform(-1, 1, 2) * np.minimum(size[:2] / 2 - 0.35, ROAM)
    position = np.concatenate([around + xy - xy[len(s) // 2], (min(high, size[2] - 0.35) + rise)[:, None]], -1)
    position = position + wave * 0.12 * travel * rng.uniform(0, 1, 3)
    limit = np.array([size[0] / 2 - 0.3, size[1] / 2 - 0.3, size[2] - 0.25])
    return np.clip(position, [-limit[0], -limit[1], 0.25], limit)


def _gaze(
    rng: np.random.Generator, scene: SceneBuilder, position: np.ndarray, s: np.ndarray, breadth: float
) -> tuple[np.ndarray, np.ndarray]:
    """Yaw and pitch [S]: following a target more or less, and turning away from it the rest."""
    target = np.append(rng.uniform(-0.5, 0.5, 2) * np.minimum(scene.size[:2], 3 * ROAM), rng.uniform(0.1, 1.6))
    solids = [box for box in scene.boxes if min(box[3:6]) > FLAT / 2]
    if solids and rng.random() < 0.7:
        target = np.asarray(solids[int(rng.integers(len(solids)))][:3])
    toward = target - position
    away = np.hypot(toward[:, 0], toward[:, 1])
    yaw = np.unwrap(np.arctan2(toward[:, 1], toward[:, 0]))
    pitch = np.arctan2(toward[:, 2], np.maximum(away, 0.3))
    fixation = float(np.clip(rng.uniform(-0.4, 1.4), 0, 1))
    middle, frames = len(s) // 2, len(s)
    widest = WIDE_SWEEP if frames >= WIDE_FROM and rng.random() < 0.4 else NARROW_SWEEP
    sweep = min(widest, MAX_STEP * max(frames - 1, 1)) * breadth * rng.uniform(-1, 1) * (1 - 0.8 * fixation)
    there_and_back = rng.random() < 0.25 and frames >= 6
    turn = 0.4 * np.sin(2 * np.pi * (s + rng.random())) if there_and_back else s - 0.5
    yaw = yaw[middle] + fixation * (yaw - yaw[middle]) + sweep * turn
    pitch = pitch[middle] + fixation * (pitch - pitch[middle]) + 0.2 * rng.standard_normal() * (s - 0.5)
    return yaw, np.clip(pitch + 0.1 * rng.standard_normal(), *PITCH)


def _freedom(scene: SceneBuilder, path: CameraPath) -> float:
    """How free the camera and its view are, metres, less what it turns too fast."""
    some = slice(None, None, max(1, len(path.yaw) // 12))
    ahead = path.world_from_camera()[some, :3, 2]
    here = clearance(scene, path.position[some])
    near = clearance(scene, path.position[some] + 0.45 * ahead)
    haste = np.abs(np.diff(path.yaw)).max(initial=0.0) - 1.5 * MAX_STEP
    return float(min(here.min(), 0.3) * 4 + min(near.min(), 0.15) * 3 + min(near.mean(), 0.5) - 4 * max(haste, 0.0))


def _interest(scene: SceneBuilder, path: CameraPath) -> float:
    """How much there is to see, 0 to 1: spread of the logarithm of depth, and share of the view that is no wall."""
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, 7), np.linspace(-0.37, 0.37, 5))
    rays = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], -1)
    scores = []
    for camera in path.world_from_camera()[:: max(1, len(path.yaw) // 2)]:
        depth, wall = depth_along(scene, camera[:3, 3], rays @ camera[:3, :3].T)
        scores.append(min(np.log(depth).std(), 0.4) + min(1 - (depth == wall).mean(), 0.6))
    return float(np.mean(scores))


def depth_along(scene: SceneBuilder, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth along rays [R, 3] until the first solid or wall, and until the wall, both [R]."""
    rays = np.where(np.abs(rays) < 1e-6, 1e-6, rays)
    half = np.array([0.5 * scene.size[0], 0.5 * scene.size[1], scene.size[2]])
    ends = np.where(rays > 0, half, -half * (1.0, 1.0, 0.0))
    wall = ((ends - origin) / rays).min(-1)
    solids = hulls(scene)
    c, s = solids[:, 6], solids[:, 7]

    def turned(v: np.ndarray) -> np.ndarray:
        x, y, z = np.moveaxis(np.broadcast_to(v, (*v.shape[:-2], len(solids), 3)), -1, 0)
        return np.stack([c * x + s * y, c * y - s * x, z], -1)

    inverse = 1.0 / turned(rays[:, None])  # [R, K, 3]
    middle, reach = -turned(origin - solids[:, :3]) * inverse, solids[:, 3:6] * np.abs(inverse)
    near, far = (middle - reach).max(-1), (middle + reach).min(-1)
    met = np.where((near < far) & (near > 0.05), near, np.inf).min(-1, initial=np.inf)
    return np.minimum(met, wall).clip(0.05), wall.clip(0.05)
