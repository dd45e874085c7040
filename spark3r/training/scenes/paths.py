"""Smooth hand-held camera paths through a scene, at video rate and of any length."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .scene import SceneBuilder

CLEARANCE = 0.3  # metres that a camera keeps from any solid
CANDIDATES = 10
MAX_SWEEP = np.radians(120.0)
MAX_STEP = np.radians(14.0)  # turn between two neighbouring training frames
FRAMES_OF_A_PASSAGE = 10  # fewer would not lead through a door


@dataclass(frozen=True)
class CameraPath:
    """Where a camera is and looks over time; angles in radians, yaw from +x to +y, pitch up."""

    position: np.ndarray  # [S, 3] metres
    yaw: np.ndarray  # [S]
    pitch: np.ndarray  # [S]
    roll: np.ndarray  # [S]

    def world_from_camera(self) -> np.ndarray:
        """Rigid transforms [S, 4, 4] of OpenCV cameras (x right, y down, z forward)."""
        cy, sy, cp, sp = np.cos(self.yaw), np.sin(self.yaw), np.cos(self.pitch), np.sin(self.pitch)
        forward = np.stack([cy * cp, sy * cp, sp], -1)
        right = np.stack([sy, -cy, np.zeros_like(cy)], -1)
        down = np.cross(forward, right)
        cr, sr = np.cos(self.roll)[:, None], np.sin(self.roll)[:, None]
        out = np.tile(np.eye(4), (len(self.yaw), 1, 1))
        out[:, :3, :3] = np.stack([cr * right + sr * down, cr * down - sr * right, forward], -1)
        out[:, :3, 3] = self.position
        return out

    def resampled(self, frames: int) -> CameraPath:
        """The same course in so many frames: from the same first view to the same last, smooth in between."""
        return CameraPath(*(resampled(values, frames) for values in (self.position, self.yaw, self.pitch, self.roll)))


def resampled(
    values: np.ndarray,  # [S, ...] at even times
    frames: int,
) -> np.ndarray:  # [frames, ...]
    """A smooth curve through evenly timed values (Catmull–Rom), read at other even times from first to last."""
    if len(values) == 1:
        return np.repeat(values, frames, 0)
    slope = np.gradient(values, axis=0)
    time = np.linspace(0, len(values) - 1, frames)
    before = np.minimum(time.astype(np.int64), len(values) - 2)
    t = (time - before).reshape(-1, *[1] * (values.ndim - 1))
    share = t * t * (3 - 2 * t)
    bend = t * (1 - t) * ((1 - t) * slope[before] - t * slope[before + 1])
    return (1 - share) * values[before] + share * values[before + 1] + bend


def tremor(rng: np.random.Generator, times: np.ndarray, channels: int) -> np.ndarray:
    """Hand shake of unit amplitude [S, channels]: a few slow sines (times in seconds)."""
    frequency = rng.uniform(0.25, 1.6, (4, channels))
    phase = rng.uniform(0, 2 * np.pi, (4, channels))
    weight = np.array([0.5, 0.3, 0.2, 0.15])[:, None, None]
    return (weight * np.sin(2 * np.pi * frequency[:, None] * times[:, None] + phase[:, None])).sum(0)


def eased(progress: np.ndarray) -> np.ndarray:
    """Slow start and stop, [0, 1] → [0, 1]."""
    return 0.35 * progress + 0.65 * progress * progress * (3 - 2 * progress)


def hulls(scene: SceneBuilder) -> np.ndarray:
    """All solids of a scene as boxes [K, 8] like `SceneBuilder.boxes`, solids of revolution as their hulls."""
    boxes = np.asarray(scene.boxes, dtype=np.float64).reshape(-1, 8)
    rounds = np.asarray(scene.rounds, dtype=np.float64).reshape(-1, 8)
    radius = np.sqrt(np.maximum(rounds[:, 3] + np.abs(rounds[:, 4]) * rounds[:, 6], 1e-6))
    upright = np.tile([1.0, 0.0], (len(rounds), 1))
    return np.concatenate([boxes, np.c_[rounds[:, :3], radius, radius, rounds[:, 6], upright]])


def clearance(scene: SceneBuilder, points: np.ndarray) -> np.ndarray:
    """Distance of points [..., 3] to the nearest solid or wall, metres (solids of revolution as their hulls)."""
    solids = hulls(scene)
    offset = points[..., None, :] - solids[:, :3]
    c, s = solids[:, 6], solids[:, 7]
    local = np.stack(
        [c * offset[..., 0] + s * offset[..., 1], c * offset[..., 1] - s * offset[..., 0], offset[..., 2]], -1
    )
    gap = np.linalg.norm(np.maximum(np.abs(local) - solids[:, 3:6], 0), axis=-1).min(-1)
    half = np.array([scene.size[0] / 2, scene.size[1] / 2])
    walls = (half - np.abs(points[..., :2])).min(-1)
    return np.minimum(gap, walls)


def progress_of(rng: np.random.Generator, frames: int) -> np.ndarray:
    """How far along its path each of S frames is, [0, 1], at uneven steps."""
    steps = rng.uniform(0.5, 1.5, max(frames - 1, 1))
    return np.concatenate([[0.0], np.cumsum(steps) / steps.sum()])[:frames]


def stroll(
    rng: np.random.Generator, scene: SceneBuilder, progress: np.ndarray, sweep: float, travel: float
) -> CameraPath:
    """A stroll: from one place to another, turning by `sweep` radians on the way."""
    half = np.array(scene.size[:2]) / 2 - 0.45
    middle = rng.uniform(-1, 1, 2) * half
    heading = rng.uniform(0, 2 * np.pi)
    toward = np.arctan2(-middle[1], -middle[0]) + rng.uniform(-1.0, 1.0)
    s = eased(progress)[:, None]
    along = np.array([np.cos(heading), np.sin(heading)])
    across = np.array([-along[1], along[0]])
    xy = middle + along * travel * (s - 0.5) + across * travel * rng.uniform(-0.25, 0.25) * np.sin(np.pi * s)
    z = np.full(len(s), rng.uniform(1.15, 1.7))
    yaw = toward + sweep * (s[:, 0] - 0.5)
    pitch = rng.uniform(-0.38, 0.04) + rng.uniform(-0.12, 0.12) * (s[:, 0] - 0.5)
    return CameraPath(np.concatenate([xy, z[:, None]], -1), yaw, pitch, np.zeros(len(s)))


def orbit(
    rng: np.random.Generator, target: np.ndarray, progress: np.ndarray, sweep: float, radius: float, height: float
) -> CameraPath:
    """An arc around a target [3] at `radius` metres and `height` above it, looking at it."""
    s = eased(progress)
    angle = rng.uniform(0, 2 * np.pi) + sweep * (s - 0.5)
    r = radius * (1 + rng.uniform(-0.15, 0.15) * (s - 0.5))
    rise = height * (1 + rng.uniform(-0.3, 0.3) * (s - 0.5))
    position = target + np.stack([r * np.cos(angle), r * np.sin(angle), rise], -1)
    aim = rng.uniform(-0.08, 0.08, 2)
    pitch = np.arctan2(-rise, r) + aim[1]
    return CameraPath(position, angle + np.pi + aim[0], pitch, np.zeros(len(s)))


def shaken(path: CameraPath, rng: np.random.Generator, seconds: float) -> CameraPath:
    """The same path in a human hand: centimetres and about a degree of tremor."""
    times = np.linspace(0, seconds, len(path.yaw))
    noise = tremor(rng, times, 6) * rng.uniform(0.4, 1.2)
    return CameraPath(
        path.position + 0.012 * noise[:, :3],
        path.yaw + 0.015 * noise[:, 3],
        path.pitch + 0.015 * noise[:, 4],
        path.roll + 0.02 * noise[:, 5] + rng.uniform(-0.03, 0.03),
    )


def inside(scene: SceneBuilder, path: CameraPath, margin: float = 0.2) -> CameraPath:
    """The same path, kept off the outer walls."""
    limit = np.array([scene.size[0] / 2 - margin, scene.size[1] / 2 - margin, scene.size[2] - margin])
    return replace(path, position=np.clip(path.position, [-limit[0], -limit[1], margin], limit))


def free_view(scene: SceneBuilder, path: CameraPath) -> float:
    """How free a path is: the least clearance of the camera, and of points before it (metres, larger is better)."""
    flat = np.stack([np.cos(path.yaw), np.sin(path.yaw), np.zeros_like(path.yaw)], -1)
    some = slice(None, None, max(1, len(path.yaw) // 12))
    here = clearance(scene, path.position[some]).min()
    ahead = clearance(scene, (path.position + 0.7 * flat)[some]).min()
    far = clearance(scene, (path.position + 1.4 * flat)[some]).mean()
    return float(min(here, CLEARANCE) * 4 + min(ahead, 0.3) * 2 + min(far, 0.5))


def training_path(rng: np.random.Generator, scene: SceneBuilder, kind: str, frames: int, breadth: float) -> CameraPath:
    """The freest of a few random paths of S frames; `breadth` in 0..1 scales turn and travel."""
    progress = progress_of(rng, frames)
    limit = min(MAX_SWEEP, MAX_STEP * max(frames - 1, 1)) * breadth
    best, best_score = None, -np.inf
    for _ in range(4 if kind == "table" else CANDIDATES):
        sweep = limit * rng.choice((-1, 1)) * rng.uniform(0.15, 1.0)
        if kind == "table":
            target = np.array([*rng.uniform(-0.15, 0.15, 2), 0.82])
            path = orbit(rng, target, progress, sweep, rng.uniform(0.75, 1.35), rng.uniform(0.25, 0.75))
        elif kind == "room" and rng.random() < 0.2:
            target = np.array([*rng.uniform(-0.6, 0.6, 2), rng.uniform(0.4, 0.9)])
            path = orbit(rng, target, progress, sweep, rng.uniform(1.4, 2.1), rng.uniform(0.5, 0.9))
        elif kind == "flat" and frames >= FRAMES_OF_A_PASSAGE and rng.random() < 0.75:
            path = passage(rng, scene, progress, 0.3 * (frames - 1) * breadth)
        else:
            travel = rng.uniform(0.05, 0.28) * max(frames - 1, 1) * breadth if rng.random() < 0.8 else 0.1
            path = stroll(rng, scene, progress, sweep, min(travel, 2.5))
        score = free_view(scene, path)
        if score > best_score:
            best, best_score = path, score
        if score > 4 * CLEARANCE + 0.95:
            break
    assert best is not None
    return inside(scene, shaken(best, rng, 0.35 * frames))


def doorway(scene: SceneBuilder, progress: np.ndarray) -> CameraPath:
    """From one end of two rooms to the other, through the door at the origin, looking about."""
    return _through_the_door(scene, eased(progress), sway=0.7, glance=0.7, glances=1.25, height=1.45, pitch=-0.17)


def passage(rng: np.random.Generator, scene: SceneBuilder, progress: np.ndarray, travel: float) -> CameraPath:
    """A stretch of such a path, of about `travel` metres at most, by anybody."""
    span = min(1.0, travel / (scene.size[0] - 3.5))
    return _through_the_door(
        scene,
        rng.uniform(0, 1 - span) + span * eased(progress),
        sway=rng.uniform(-0.8, 0.8),
        glance=rng.uniform(-0.8, 0.8),
        glances=rng.uniform(0.6, 1.6),
        height=rng.uniform(1.2, 1.65),
        pitch=rng.uniform(-0.35, 0.0),
    )


def _through_the_door(
    scene: SceneBuilder,
    s: np.ndarray,  # [S] how far on the way, [0, 1]
    *,
    sway: float,  # metres aside
    glance: float,  # radians to either side,
    glances: float,  # and how many times both
    height: float,
    pitch: float,
) -> CameraPath:
    """Straight on at the door, swaying and looking about in the rooms."""
    reach = scene.size[0] / 2 - 0.9
    x = -reach + (2 * reach - 1.7) * s
    aside = sway * np.sin(2 * np.pi * s) * np.exp(-0.5 * (0.5 / (np.abs(x) + 0.12)) ** 4)
    calm = np.clip((np.abs(x) - 0.6) / 1.2, 0.0, 1.0)
    yaw = glance * np.sin(2 * glances * np.pi * s) * calm * calm * (3 - 2 * calm)
    z = np.full(len(s), height)
    return CameraPath(np.stack([x, aside, z], -1), yaw, np.full(len(s), pitch), np.zeros(len(s)))
