"""Scenes and cameras to images and z-depth."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from spark3r.stopping import may_stop

from . import cast, shade
from .cast import Vector
from .scene import BOXES, WALLS, Scenes

CHUNK = 8  # solids per compiled call
_compiled: dict[str, Callable] = {}


@dataclass(frozen=True)
class Cameras:
    """F cameras, each in one scene."""

    scene: Tensor  # [F] int64, which scene of the batch
    world_from_camera: Tensor  # [F, 4, 4] OpenCV axes
    intrinsics: Tensor  # [F, 3, 3] pixels, integer pixel centres


def _fast(function: Callable) -> Callable:
    """The compiled form of an elementwise function, or itself where SPARK3R_COMPILE is not 1."""
    if os.environ.get("SPARK3R_COMPILE", "0") != "1":
        return function
    name = function.__name__
    if name not in _compiled:
        _compiled[name] = torch.compile(function, dynamic=False)
    return _compiled[name]


def sample_offsets(samples: int) -> list[tuple[float, float]]:
    """Where in a pixel the rays pass, relative to its centre: 1, 2 (diagonal) or 4 (2×2 grid) per pixel."""
    patterns = {
        1: [(0.0, 0.0)],
        2: [(-0.25, -0.25), (0.25, 0.25)],
        4: [(-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25)],
    }
    if samples not in patterns:
        raise ValueError(f"samples={samples}: must be 1, 2 or 4")
    return patterns[samples]


def ray_directions(cameras: Cameras, height: int, width: int, samples: int) -> Vector:
    """World directions with camera z = 1, 3 × [F, samples·H·W]."""
    device = cameras.intrinsics.device
    v, u = torch.meshgrid(
        torch.arange(height, device=device, dtype=torch.float32),
        torch.arange(width, device=device, dtype=torch.float32),
        indexing="ij",
    )
    us = torch.cat([(u + du).flatten() for du, _ in sample_offsets(samples)])
    vs = torch.cat([(v + dv).flatten() for _, dv in sample_offsets(samples)])
    k = cameras.intrinsics
    x = (us - k[:, 0, 2, None]) / k[:, 0, 0, None]
    y = (vs - k[:, 1, 2, None]) / k[:, 1, 1, None]
    r = cameras.world_from_camera[:, :3, :3]
    dx, dy, dz = (r[:, i, 0, None] * x + r[:, i, 1, None] * y + r[:, i, 2, None] for i in range(3))
    return dx, dy, dz


def visible_first(
    solids: Tensor,  # [F, K, 8]
    radius: Tensor,  # [F, K] bounding radius, negative for unused places
    cameras: Cameras,
    height: int,
    width: int,
) -> tuple[Tensor, int]:
    """Order [F, K] that puts solids that may be in view first, and how many leading places are needed."""
    w = cameras.world_from_camera
    centre = torch.einsum("fji,fkj->fki", w[:, :3, :3], solids[..., :3] - w[:, None, :3, 3])
    k = cameras.intrinsics
    corner = torch.stack([0.5 * width / k[:, 0, 0], 0.5 * height / k[:, 1, 1]], -1).norm(dim=-1)
    away = centre[..., :2].norm(dim=-1)
    cos = torch.rsqrt(1 + corner**2)[:, None]
    sin = corner[:, None] * cos
    outside = away * cos - centre[..., 2] * sin > radius + 0.02 * centre[..., 2].abs()
    hidden = outside & (centre.norm(dim=-1) > radius) | (radius <= 0)
    order = hidden.to(torch.int32).sort(dim=1, stable=True).indices
    return order, int((~hidden).sum(1).max())


def _ordered(x: Tensor, order: Tensor) -> Tensor:
    """Rows of x [F, K, C] in the given order."""
    return x.gather(1, order[:, :, None].expand(-1, -1, x.shape[-1]))


@dataclass(frozen=True)
class _View:
    """The scene of each of F frames, solids that may be in view first."""

    origin: Tensor  # [F, 3]
    room: Tensor  # [F, 2, 3]
    boxes: Tensor  # [F, BOXES, 8]
    rounds: Tensor  # [F, ROUNDS, 8]
    geometry: Tensor  # [F, WALLS + BOXES + ROUNDS, 8] as `shade.surface_frame` reads it
    materials: Tensor  # [F, WALLS + BOXES + ROUNDS, M]
    boxes_in_view: int
    rounds_in_view: int


def _seen(scenes: Scenes, cameras: Cameras, height: int, width: int) -> _View:
    which = cameras.scene
    boxes, rounds, materials = scenes.boxes[which], scenes.rounds[which], scenes.materials[which]
    box_radius = torch.where(boxes[..., 3] > 0, boxes[..., 3:6].norm(dim=-1), -1.0)
    q0, q1, q2, half = rounds[..., 3:7].unbind(-1)
    widest = torch.stack([q0, q0 + half * (q1 + q2 * half), q0 - half * (q1 - q2 * half)]).amax(0)
    round_radius = torch.where(half > 0, (widest.clamp_min(0) + half**2).sqrt(), -1.0)
    box_order, box_count = visible_first(boxes, box_radius, cameras, height, width)
    round_order, round_count = visible_first(rounds, round_radius, cameras, height, width)
    boxes, rounds = _ordered(boxes, box_order), _ordered(rounds, round_order)
    room = scenes.room[which]
    straight = torch.tensor([1.0, 0.0]).to(room)
    walls = torch.cat([room.mean(1), 0.5 * (room[:, 1] - room[:, 0]), straight.expand(len(room), 2)], 1)
    turned = straight.expand(*rounds.shape[:2], 2)
    geometry = [walls[:, None].expand(-1, WALLS, -1), boxes, torch.cat([rounds[..., :3], rounds[..., 4:7], turned], -1)]
    solids = materials[:, WALLS:]
    order = torch.cat([box_order, round_order + BOXES], 1)
    return _View(
        cameras.world_from_camera[:, :3, 3].contiguous(), room, boxes, rounds, torch.cat(geometry, 1),
        torch.cat([materials[:, :WALLS], _ordered(solids, order)], 1), box_count, round_count,
    )  # fmt: skip


def _meet(view: _View, direction: Vector) -> tuple[Tensor, Tensor]:
    """Depth and surface number, both [F, R] float."""
    depth, surface = _fast(cast.hit_room)(view.origin, direction, view.room)
    x, y, z = (view.origin[:, None] - view.boxes[..., :3]).unbind(-1)
    c, s = view.boxes[..., 6], view.boxes[..., 7]
    local = torch.stack([c * x + s * y, c * y - s * x, z], -1)
    for start in range(0, view.boxes_in_view, CHUNK):
        part = slice(start, start + CHUNK)
        first = torch.full((1,), float(WALLS + start), device=depth.device)
        depth, surface = _fast(cast.nearest_box)(
            depth, surface, direction, local[:, part].contiguous(), view.boxes[:, part].contiguous(), first
        )
    offset = view.origin[:, None] - view.rounds[..., :3]
    for start in range(0, view.rounds_in_view, CHUNK):
        part = slice(start, start + CHUNK)
        first = torch.full((1,), float(WALLS + BOXES + start), device=depth.device)
        depth, surface = _fast(cast.nearest_round)(
            depth, surface, direction, offset[:, part].contiguous(), view.rounds[:, part].contiguous(), first
        )
    return depth, surface


class _Look(NamedTuple):
    """Surfaces under the rays before shadows fall on them."""

    facet: shade.Facet
    colour: Vector
    glow: Tensor  # [F, R]
    arriving: shade.Arriving


def _look(
    depth: Tensor,  # [F, R]
    surface: Tensor,  # [F, R]
    origin: Tensor,  # [F, 3]
    direction: Vector,
    tables: tuple[Tensor, Tensor, Tensor, Tensor],  # geometry, materials, room, lights of each frame
    focal: Tensor,  # [F] samples per radian
) -> _Look:
    """Points, normals, colours and light in one elementwise pass."""
    geometry, materials, room, lights = tables
    frame = torch.arange(depth.shape[0], device=depth.device)[:, None]
    index = surface.to(torch.int64)
    material = materials[frame, index]
    (dx, dy, dz), (ox, oy, oz) = direction, (origin[:, i, None] for i in range(3))
    facet = shade.facet_at(geometry[frame, index], surface, (ox + depth * dx, oy + depth * dy, oz + depth * dz))
    nx, ny, nz = facet.normal
    slant = (nx * dx + ny * dy + nz * dz).abs() * torch.rsqrt(dx * dx + dy * dy + dz * dz)
    footprint = depth / focal[:, None] / slant.clamp_min(0.15).sqrt()
    arriving = shade.Arriving(
        shade.lit(facet, lights[:, 0]), shade.lit(facet, lights[:, 1]), shade.corner_shade(facet, room)
    )
    colour = shade.albedo(material, facet.u, facet.v, footprint)
    return _Look(facet, colour, shade.field_of(material, "glow"), arriving)


def render(scenes: Scenes, cameras: Cameras, height: int, width: int, samples: int = 2) -> tuple[Tensor, Tensor]:
    """Linear images [F, 3, H, W] ≥ 0 and z-depth [F, H, W] in metres at the pixel centres.

    Where the rays of a pixel meet different surfaces, its depth is that of one of them, never a mixture.
    """
    parts = [
        _render_group(scenes, group, height, width, samples) for group in _groups(cameras, height * width * samples)
    ]
    return torch.cat([image for image, _ in parts]), torch.cat([depth for _, depth in parts])


def render_depth(scenes: Scenes, cameras: Cameras, height: int, width: int) -> Tensor:
    """z-depth alone, [F, H, W] metres at the pixel centres."""
    parts = []
    for group in _groups(cameras, height * width):
        may_stop()
        depth, _ = _meet(_seen(scenes, group, height, width), ray_directions(group, height, width, 1))
        parts.append(depth.reshape(-1, height, width))
    return torch.cat(parts)


def _groups(cameras: Cameras, rays_per_frame: int) -> list[Cameras]:
    """Cameras in groups that fit a processor's cache (a GPU takes larger ones)."""
    budget = 1 << (17 if cameras.intrinsics.device.type == "cpu" else 24)
    size = 1
    while 2 * size * rays_per_frame <= budget:
        size *= 2
    fields = (cameras.scene, cameras.world_from_camera, cameras.intrinsics)
    return [Cameras(*parts) for parts in zip(*(field.split(size) for field in fields), strict=True)]


def _render_group(scenes: Scenes, cameras: Cameras, height: int, width: int, samples: int) -> tuple[Tensor, Tensor]:
    direction = ray_directions(cameras, height, width, samples)
    view = _seen(scenes, cameras, height, width)
    depth, surface = _meet(view, direction)
    lights, ambient = scenes.lights[cameras.scene], scenes.ambient[cameras.scene]
    focal = cameras.intrinsics[:, 0, 0] * samples**0.5
    tables = (view.geometry, view.materials, view.room, lights)
    look: _Look = _fast(_look)(depth, surface, view.origin, direction, tables, focal)
    arriving = _shadowed(look, lights[:, 0, :3].contiguous(), scenes.casters[cameras.scene])
    rgb = _fast(shade.radiance)(look.colour, look.glow, arriving, look.facet.normal[2], lights, ambient)
    shape = (len(cameras.scene), samples, height, width)
    image = torch.stack([channel.reshape(shape).mean(1) for channel in rgb], 1)
    return image, centre_depth(depth.reshape(shape), surface.reshape(shape))


def _shadowed(look: _Look, key: Tensor, casters: Tensor) -> shade.Arriving:
    """The light that is left when casters [F, K, 8] stand between a surface and the key light [F, 3] or the sky."""
    share, sky = torch.ones_like(look.glow), look.arriving.sky
    for start in range(0, casters.shape[1], CHUNK // 2):
        some = casters[:, start : start + CHUNK // 2].contiguous()
        if bool((some[..., 3] > 0).any()):
            share, sky = _fast(cast.shade_by_casters)(share, sky, look.facet.point, look.facet.normal, key, some)
    return shade.Arriving(look.arriving.key * share, look.arriving.fill, sky)


def centre_depth(depth: Tensor, surface: Tensor) -> Tensor:
    """Depth at the pixel centre [F, H, W] from [F, samples, H, W]: exact on planes, one surface's at edges."""
    first = depth[:, 0]
    if depth.shape[1] == 1:
        return first
    same = (surface == surface[:, :1]).all(1)
    return torch.where(same, 1.0 / (1.0 / depth).mean(1), first)


def develop(
    linear: Tensor,  # [F, 3, H, W]
    exposure: Tensor,  # [F]
    balance: Tensor,  # [F, 3]
) -> Tensor:
    """A display image in 0..1: exposure, white balance, a soft shoulder, gamma."""
    x = linear * (exposure[:, None] * balance)[:, :, None, None]
    x = x * (1.0 + 0.12 * x) / (1.0 + 0.62 * x) * 1.35
    return x.clamp(1e-5, 1.0) ** (1 / 2.2)
