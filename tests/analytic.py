"""A scene whose depth is known in closed form: cameras walking inside an empty box-shaped room."""

import numpy as np

from spark3r.reconstruction import Cost, Reconstruction
from spark3r.reduction.schedule import ReductionSchedule

HALF_ROOM = np.array([2.0, 1.5, 3.0])


def turned(axis: np.ndarray, degrees: float) -> np.ndarray:  # [3, 3]
    """Rotation about an axis (Rodrigues)."""
    x, y, z = np.asarray(axis, dtype=float) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def room_walk(frames: int, height: int = 12, width: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """depth [S, H, W], world_from_camera [S, 4, 4], intrinsics [S, 3, 3] of a walk, looking around."""
    steps = np.linspace(0, 1, frames) if frames > 1 else np.zeros(1)
    cameras = np.tile(np.eye(4), (frames, 1, 1))
    for camera, step in zip(cameras, steps, strict=True):
        camera[:3, :3] = turned(np.array([0, 1, 0.2]), 90 * step)
        camera[:3, 3] = [1.2 * np.sin(2 * step), 0.3 * np.cos(3 * step), 1.5 * step]
    focal = 0.8 * width
    matrix = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    intrinsics = np.tile(matrix, (frames, 1, 1))
    rows, columns = np.mgrid[:height, :width]
    rays = np.stack([(columns - matrix[0, 2]) / focal, (rows - matrix[1, 2]) / focal, np.ones((height, width))], -1)
    rays = np.einsum("sij,hwj->shwi", cameras[:, :3, :3], rays)
    walls = (np.sign(rays) * HALF_ROOM - cameras[:, None, None, :3, 3]) / np.where(rays == 0, 1e-9, rays)
    depth = walls.min(-1)
    return depth.astype(np.float32), cameras.astype(np.float32), intrinsics.astype(np.float32)


def reconstruction(frames: int = 4, height: int = 12, width: int = 16) -> Reconstruction:
    """The walk as a perfect result with random colours and confidence."""
    depth, cameras, intrinsics = room_walk(frames, height, width)
    random = np.random.default_rng(7)
    return Reconstruction(
        images=random.integers(0, 256, (frames, height, width, 3), dtype=np.uint8),
        depth=depth,
        confidence=random.uniform(0.01, 1, depth.shape).astype(np.float32),
        world_from_camera=cameras,
        intrinsics=intrinsics,
        cost=Cost({"encoder": 1.5, "global_attention": 0.1 + 0.2, "total": 4.0}, 123456, 100, 50, 20),
        schedule=ReductionSchedule(query_factor=2, kv_factor=4, sensitive_layers=(1, 2)),
        model="mini",
        device="cpu",
        dtype="float32",
        kernel="math",
        indices=np.arange(frames, dtype=np.int64) * 3,
        timestamps=np.arange(frames) / 10,
        names=tuple(f"frame {i}" for i in range(frames)),
    )
