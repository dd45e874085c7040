"""Ray casting: which solid each ray meets first, and at which z-depth.

Every solid is convex, so a ray is inside it over one interval; the nearest entry wins. All functions work on
[F, R] (frames × rays) elementwise, so a compiler can fuse them; without one they run as plain torch.
Ray directions are scaled to camera z = 1, so the ray parameter is the z-depth.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEAR = 0.03  # metres; a camera inside a solid looks through it
FAR = 1e4

Vector = tuple[Tensor, Tensor, Tensor]  # x, y, z apart, each [F, R], so that arithmetic stays elementwise


def hit_room(
    origin: Tensor,  # [F, 3]
    direction: Vector,
    room: Tensor,  # [F, 2, 3]
) -> tuple[Tensor, Tensor]:
    """Where rays leave the room: depth [F, R] and wall number (x-, x+, y-, y+, floor, ceiling) as float."""
    depth = torch.full_like(direction[0], FAR)
    wall = torch.zeros_like(depth)
    for axis in range(3):
        step = direction[axis]
        ahead = step > 0
        plane = torch.where(ahead, room[:, 1, axis, None], room[:, 0, axis, None])
        level = step.abs() < 1e-7  # never reaches this pair of walls
        t = torch.where(level, FAR, (plane - origin[:, axis, None]) / torch.where(level, 1.0, step))
        nearer = t < depth
        wall = torch.where(nearer, 2.0 * axis + ahead.float(), wall)
        depth = torch.where(nearer, t, depth)
    return depth, wall


def box_interval(
    origin: Tensor,  # [F, 3] in the frame of the box
    direction: Vector,
    box: Tensor,  # [F, 8]
) -> tuple[Tensor, Tensor]:
    """Entry and exit [F, R] of rays through one box per frame (entry > exit: missed)."""
    c, s = box[:, 6, None], box[:, 7, None]
    dx, dy, dz = direction
    turned = (c * dx + s * dy, c * dy - s * dx, dz)
    near = far = None
    for axis in range(3):
        inverse = 1.0 / torch.where(turned[axis].abs() < 1e-7, 1e-7, turned[axis])
        middle = -origin[:, axis, None] * inverse
        reach = box[:, 3 + axis, None] * inverse.abs()
        near = middle - reach if near is None else torch.maximum(near, middle - reach)
        far = middle + reach if far is None else torch.minimum(far, middle + reach)
    assert near is not None and far is not None
    return near, far


def round_interval(
    origin: Tensor,  # [F, 3] relative to the centre
    direction: Vector,
    solid: Tensor,  # [F, 8]
) -> tuple[Tensor, Tensor]:
    """Entry and exit [F, R] of rays through one solid of revolution per frame (entry > exit: missed)."""
    dx, dy, dz = direction
    ox, oy, oz = (origin[:, i, None] for i in range(3))
    q0, q1, q2, half = (solid[:, 3 + i, None] for i in range(4))
    a = (dx * dx + dy * dy - q2 * dz * dz).clamp_min(1e-6)
    b = ox * dx + oy * dy - (q2 * oz + 0.5 * q1) * dz
    discriminant = b * b - a * (ox * ox + oy * oy - q0 - (q1 + q2 * oz) * oz)
    root = discriminant.clamp_min(0.0).sqrt()
    inverse = 1.0 / torch.where(dz.abs() < 1e-7, 1e-7, dz)
    middle, reach = -oz * inverse, half * inverse.abs()
    near = torch.maximum((-b - root) / a, middle - reach)
    far = torch.minimum((-b + root) / a, middle + reach)
    return torch.where(discriminant > 0, near, FAR), far


def nearest_box(
    depth: Tensor,  # [F, R] best so far
    surface: Tensor,  # [F, R] its number, as float
    direction: Vector,
    origins: Tensor,  # [F, K, 3] camera in the frame of each box
    boxes: Tensor,  # [F, K, 8]
    first: Tensor,  # [1] number of the first of them
) -> tuple[Tensor, Tensor]:
    """Let K boxes compete with the nearest surface so far."""
    for k in range(boxes.shape[1]):
        near, far = box_interval(origins[:, k], direction, boxes[:, k])
        nearer = (near < far) & (near < depth) & (near > NEAR)
        surface = torch.where(nearer, first + k, surface)
        depth = torch.where(nearer, near, depth)
    return depth, surface


def nearest_round(
    depth: Tensor, surface: Tensor, direction: Vector, origins: Tensor, solids: Tensor, first: Tensor
) -> tuple[Tensor, Tensor]:
    """The same for K solids of revolution."""
    for k in range(solids.shape[1]):
        near, far = round_interval(origins[:, k], direction, solids[:, k])
        nearer = (near < far) & (near < depth) & (near > NEAR)
        surface = torch.where(nearer, first + k, surface)
        depth = torch.where(nearer, near, depth)
    return depth, surface


def shade_by_casters(
    light: Tensor,  # [F, R] share of the key light that arrives
    sky: Tensor,  # [F, R] share of the ambient light that arrives
    point: Vector,  # lit points
    normal: Vector,
    key: Tensor,  # [F, 3] position of the key light
    casters: Tensor,  # [F, K, 8]
) -> tuple[Tensor, Tensor]:
    """Darken by K boxes: soft shadow (a ray that only grazes a box keeps part of its light) and contact shade."""
    (px, py, pz), (nx, ny, nz) = point, normal
    to_light = (key[:, 0, None] - px, key[:, 1, None] - py, key[:, 2, None] - pz)
    for k in range(casters.shape[1]):
        box = casters[:, k]
        c, s = box[:, 6, None], box[:, 7, None]
        ex, ey, ez = px - box[:, 0, None], py - box[:, 1, None], pz - box[:, 2, None]
        local = (c * ex + s * ey, c * ey - s * ex, ez)
        facet = (c * nx + s * ny, c * ny - s * nx, nz)
        toward = (c * to_light[0] + s * to_light[1], c * to_light[1] - s * to_light[0], to_light[2])
        near, far = None, None
        distance2, facing = torch.zeros_like(px), torch.zeros_like(px)
        for axis in range(3):
            half = box[:, 3 + axis, None]
            inverse = 1.0 / torch.where(toward[axis].abs() < 1e-6, 1e-6, toward[axis])
            middle, reach = -local[axis] * inverse, half * inverse.abs()
            near = middle - reach if near is None else torch.maximum(near, middle - reach)
            far = middle + reach if far is None else torch.minimum(far, middle + reach)
            gap = torch.minimum(torch.maximum(local[axis], -half.abs()), half.abs()) - local[axis]
            distance2 = distance2 + gap * gap
            facing = facing + gap * facet[axis]
        assert near is not None and far is not None
        chord = torch.minimum(far, torch.ones_like(far)) - near.clamp_min(0.02)
        light = light * (1.0 - (chord * 5.0).clamp(0.0, 1.0))
        cosine = facing * torch.rsqrt(distance2 + 1e-8)
        sky = sky * (1.0 - 0.55 * cosine.clamp(0.0, 1.0) / (1.0 + 30.0 * distance2))
    return light, sky
