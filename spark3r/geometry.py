"""Rotations, cameras and similarities: OpenCV axes (x right, y down, z forward), integer pixel centres.

Quaternions are ordered xyzw. The torch functions are batched and differentiable (models and training use
them); everything else is numpy in float64 on the way, for results and metrics.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

# Below this fraction of the larger spread, camera centres count as one point (float32 poses of a unit scene).
STANDING_STILL = 1e-6


def matrix_from_quaternion(
    quaternion: Tensor,  # [..., 4] xyzw, any length but zero
) -> Tensor:  # [..., 3, 3]
    """Rotation matrix of a quaternion of any length: the factor 2/|q|² normalises without a square root.

    The zero quaternion gives the identity with finite gradients.
    """
    x, y, z, w = quaternion.unbind(-1)
    factor = 2 / quaternion.square().sum(-1).clamp_min(1e-12)
    entries = (
        1 - factor * (y * y + z * z), factor * (x * y - z * w), factor * (x * z + y * w),
        factor * (x * y + z * w), 1 - factor * (x * x + z * z), factor * (y * z - x * w),
        factor * (x * z - y * w), factor * (y * z + x * w), 1 - factor * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def quaternion_from_matrix(
    rotation: Tensor,  # [..., 3, 3]
) -> Tensor:  # [..., 4] xyzw, unit length, w >= 0
    """Unit quaternion of a rotation matrix, exact and differentiable at every angle, 180° included.

    The entries of R give 4·q·qᵀ; each of its rows is a multiple of q, and the row with the largest diagonal
    entry (at least 1) is the best conditioned one.
    """
    (r00, r01, r02), (r10, r11, r12), (r20, r21, r22) = (row.unbind(-1) for row in rotation.unbind(-2))
    xy, xz, yz = r01 + r10, r02 + r20, r12 + r21
    xw, yw, zw = r21 - r12, r02 - r20, r10 - r01
    outer = torch.stack(
        (
            1 + r00 - r11 - r22, xy, xz, xw,
            xy, 1 - r00 + r11 - r22, yz, yw,
            xz, yz, 1 - r00 - r11 + r22, zw,
            xw, yw, zw, 1 + r00 + r11 + r22,
        ),
        dim=-1,
    ).unflatten(-1, (4, 4))  # fmt: skip
    best = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None]
    quaternion = torch.take_along_dim(outer, best, dim=-2).squeeze(-2)
    sign = torch.where(quaternion[..., 3:] < 0, -1.0, 1.0).to(quaternion)
    return sign * quaternion / quaternion.norm(dim=-1, keepdim=True)


def rotation_degrees(
    rotation: np.ndarray,  # [..., 3, 3]
) -> np.ndarray:  # [...], 0 to 180
    """Angle of a rotation. By the arc tangent, as the arc cosine loses everything below 0.03° in float32."""
    rotation = np.asarray(rotation, dtype=np.float64)
    skew = rotation - rotation.swapaxes(-1, -2)
    twice_sine = np.sqrt(skew[..., 2, 1] ** 2 + skew[..., 0, 2] ** 2 + skew[..., 1, 0] ** 2)
    twice_cosine = np.trace(rotation, axis1=-2, axis2=-1) - 1
    return np.degrees(np.arctan2(twice_sine, twice_cosine))


def unproject(
    depth: np.ndarray,  # [S, H, W] z-depth
    intrinsics: np.ndarray,  # [S, 3, 3] pixels of H x W
    world_from_camera: np.ndarray | None = None,  # [S, 4, 4]; None leaves the points in camera coordinates
) -> np.ndarray:  # [S, H, W, 3] float32
    """The 3-D point behind each pixel: X = (u - cx) / fx · z with u = 0 .. W-1, likewise Y."""
    height, width = depth.shape[-2:]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    cameras = None if world_from_camera is None else world_from_camera[:, None, None]
    return unproject_pixels(columns, rows, depth, intrinsics[:, None, None], cameras)


def unproject_pixels(
    columns: np.ndarray,  # [...] u
    rows: np.ndarray,  # [...] v
    depth: np.ndarray,  # [...] z-depth
    intrinsics: np.ndarray,  # [..., 3, 3] (or broadcastable)
    world_from_camera: np.ndarray | None = None,  # [..., 4, 4] (or broadcastable)
) -> np.ndarray:  # [..., 3] float32
    """As `unproject`, for chosen pixels only."""
    x = (columns - intrinsics[..., 0, 2]) / intrinsics[..., 0, 0] * depth
    y = (rows - intrinsics[..., 1, 2]) / intrinsics[..., 1, 1] * depth
    points = np.stack(np.broadcast_arrays(x, y, depth), axis=-1).astype(np.float32)
    if world_from_camera is None:
        return points
    rotation, centre = world_from_camera[..., :3, :3], world_from_camera[..., :3, 3]
    return ((rotation @ points[..., None])[..., 0] + centre).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Similarity:
    """x ↦ scale · rotation · x + translation: an element of Sim(3)."""

    scale: float = 1.0  # > 0
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))  # [3, 3]
    translation: np.ndarray = field(default_factory=lambda: np.zeros(3))  # [3]

    def apply(
        self,
        points: np.ndarray,  # [..., 3]
    ) -> np.ndarray:  # [..., 3] of the same dtype
        """The points moved."""
        moved = points @ (self.scale * self.rotation).T.astype(points.dtype)
        return moved + self.translation.astype(points.dtype)

    def apply_to_cameras(
        self,
        world_from_camera: np.ndarray,  # [S, 4, 4]
    ) -> np.ndarray:  # [S, 4, 4] of the same dtype
        """The cameras moved and turned; they stay rigid, so depth has to be scaled beside them."""
        moved = np.array(world_from_camera, dtype=np.float64)
        moved[..., :3, :3] = self.rotation @ moved[..., :3, :3]
        moved[..., :3, 3] = self.apply(moved[..., :3, 3])
        return moved.astype(world_from_camera.dtype)

    def inverse(self) -> "Similarity":
        """The similarity that undoes this one."""
        rotation = self.rotation.T
        return Similarity(1 / self.scale, rotation, -(rotation @ self.translation) / self.scale)

    def __matmul__(self, other: "Similarity") -> "Similarity":
        """First `other`, then this: `(a @ b).apply(x) == a.apply(b.apply(x))`."""
        return Similarity(
            self.scale * other.scale,
            self.rotation @ other.rotation,
            self.scale * self.rotation @ other.translation + self.translation,
        )


def umeyama(
    source: np.ndarray,  # [N, 3]
    target: np.ndarray,  # [N, 3]
    weights: np.ndarray | None = None,  # [N] >= 0
    scale: float | None = None,
) -> Similarity:
    """The similarity with least (weighted) squares from source to target; Umeyama 1991, never a mirror.

    `scale`: taken as given, otherwise fitted too.
    Always defined: coinciding points give scale 1 and no rotation; collinear points leave the turn about
    their line free, where any choice has the same residual (`align_cameras` settles it by the orientations).
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    shares = np.ones(len(source)) if weights is None else np.asarray(weights, dtype=np.float64)
    shares = shares / shares.sum()
    source_mean, target_mean = shares @ source, shares @ target
    source, target = source - source_mean, target - target_mean
    covariance = (shares[:, None] * target).T @ source  # eq. 38
    rotation = nearest_rotation(covariance)
    if scale is None:
        scale = _least_squares_scale(source @ rotation.T, target, shares)
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)


def align_cameras(
    source: np.ndarray,  # [S, 4, 4] world_from_camera
    target: np.ndarray,  # [S, 4, 4] world_from_camera
    scale: float | None = None,
) -> Similarity:
    """The similarity that lays one camera path over another, by centres and orientations.

    The rotation solves Procrustes on the centres (each path divided by its spread) and the three axes of
    every camera together, so a single camera, pure rotation and straight paths have one answer too.
    `scale`: taken as given, for paths too short to tell it; otherwise least squares over the centres, and 1
    where a path does not move.
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    source_mean, target_mean = source[:, :3, 3].mean(0), target[:, :3, 3].mean(0)
    source_path, target_path = source[:, :3, 3] - source_mean, target[:, :3, 3] - target_mean
    covariance = (target[:, :3, :3] @ source[:, :3, :3].swapaxes(1, 2)).mean(0)
    spreads = path_spread(source), path_spread(target)
    if _moves(spreads[0], source_mean) and _moves(spreads[1], target_mean):
        covariance = covariance + target_path.T @ source_path / (len(source) * spreads[0] * spreads[1])
    rotation = nearest_rotation(covariance)
    if scale is None:
        scale = _least_squares_scale(source_path @ rotation.T, target_path, np.full(len(source), 1 / len(source)))
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)


def upright(
    world_from_camera: np.ndarray,  # [S, 4, 4]
) -> np.ndarray:  # [3, 3], turns world points into x right, y up, z towards the viewer
    """The rotation that sets a scene on its feet, as seen by the first camera.

    Up is the mean up of the cameras, made orthogonal to their right axes as far as these differ: people hold
    a camera level but tilt it, so all right axes lie in the horizontal plane.
    """
    rotations = np.asarray(world_from_camera, dtype=np.float64)[:, :3, :3]
    right_axes, mean_up = rotations[:, :, 0], -rotations[:, :, 1].mean(0)
    level = right_axes.T @ right_axes / len(rotations)
    up = np.linalg.solve(level + 0.01 * np.eye(3), mean_up)
    if np.linalg.norm(up) < 1e-6:  # cameras in all attitudes: the first one decides
        up = -rotations[0, :, 1]
    up = up / np.linalg.norm(up)
    # The first camera's right, or its down where it is rolled on its side.
    candidates = [axis - (axis @ up) * up for axis in rotations[0].T[:2]]
    right = max(candidates, key=np.linalg.norm) if np.linalg.norm(candidates[0]) < 0.1 else candidates[0]
    right = right / np.linalg.norm(right)
    return np.stack([right, up, np.cross(right, up)])


def path_spread(
    world_from_camera: np.ndarray,  # [S, 4, 4]
) -> float:
    """Root mean square distance of the camera centres from their mean, in world units; 0 for one camera."""
    centres = np.asarray(world_from_camera, dtype=np.float64)[:, :3, 3]
    return float(np.sqrt(np.square(centres - centres.mean(0)).sum(-1).mean()))


def nearest_rotation(
    matrix: np.ndarray,  # [3, 3]
) -> np.ndarray:  # [3, 3], determinant +1
    """The rotation R with the largest trace(Rᵀ·matrix); the identity for the zero matrix."""
    left, _, right = np.linalg.svd(matrix)
    mirror = np.array([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    return (left * mirror) @ right


def _moves(spread: float, mean: np.ndarray) -> bool:
    return spread > STANDING_STILL * max(float(np.linalg.norm(mean)), STANDING_STILL)


def _least_squares_scale(source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> float:
    """The s with least Σ w |target - s · source|², both [N, 3] centred; 1 where nothing fits."""
    variance = float(weights @ np.square(source).sum(-1))
    fit = float(weights @ (source * target).sum(-1))
    return fit / variance if variance > 1e-24 and fit > 1e-12 * variance else 1.0
