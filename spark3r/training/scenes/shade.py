"""What a surface looks like: material, light, shadow. Elementwise on [F, R] like `cast`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .cast import Vector
from .material import column
from .scene import BOXES, WALLS

OCTAVES = 3


def fraction_hash(x: Tensor, y: Tensor, salt: Tensor | int) -> Tensor:
    """A fixed pseudo-random number in [0, 1) for each whole-numbered place (int32 tensors)."""
    h = x * 73856093 + y * 19349663 + salt
    h = (h ^ (h >> 15)) * 739982445
    h = (h ^ (h >> 12)) * 297121507
    h = h ^ (h >> 15)
    return (h & 0xFFFF).float() * (1.0 / 65536.0)


def value_noise(u: Tensor, v: Tensor, salt: Tensor) -> Tensor:
    """Smooth noise in [-1, 1] with one feature per unit."""
    fu, fv = u.floor(), v.floor()
    a, b = u - fu, v - fv
    iu, iv = fu.to(torch.int32), fv.to(torch.int32)
    a = a * a * (3.0 - 2.0 * a)
    b = b * b * (3.0 - 2.0 * b)
    low = torch.lerp(fraction_hash(iu, iv, salt), fraction_hash(iu + 1, iv, salt), a)
    high = torch.lerp(fraction_hash(iu, iv + 1, salt), fraction_hash(iu + 1, iv + 1, salt), a)
    return 2.0 * torch.lerp(low, high, b) - 1.0


class Facet(NamedTuple):
    """The surface at the points where rays meet it."""

    point: Vector  # world, metres
    normal: Vector  # world
    u: Tensor  # [F, R] surface coordinates, metres
    v: Tensor


def facet_at(
    geometry: Tensor,  # [F, R, 8] of the surface met
    surface: Tensor,  # [F, R] its number
    point: Vector,
) -> Facet:
    """Normal and surface coordinates; walls face inward, solids outward."""
    is_round = surface >= WALLS + BOXES
    cx, cy, cz, ga, gb, gc, c, s = geometry.unbind(-1)
    ex, ey, z = point[0] - cx, point[1] - cy, point[2] - cz
    x, y = c * ex + s * ey, c * ey - s * ex
    rx, ry, rz = (x / ga).abs(), (y / gb).abs(), (z / gc).abs()
    on_x = (rx >= ry) & (rx >= rz)
    on_y = ~on_x & (ry >= rz)
    side = torch.where(surface < WALLS, -1.0, 1.0)
    bx = torch.where(on_x, side * x.sign(), 0.0)
    by = torch.where(on_y, side * y.sign(), 0.0)
    bz = torch.where(on_x | on_y, 0.0, side * z.sign())
    # solids of revolution store q1, q2, half height in the place of the half sizes
    cap = z.abs() > 0.998 * gc
    slope = -(0.5 * ga + gb * z)
    scale = torch.rsqrt(x * x + y * y + slope * slope + 1e-12)
    nx = torch.where(is_round, torch.where(cap, 0.0, x * scale), bx)
    ny = torch.where(is_round, torch.where(cap, 0.0, y * scale), by)
    nz = torch.where(is_round, torch.where(cap, z.sign(), slope * scale), bz)
    around = torch.atan2(y, x) * (x * x + y * y).sqrt()
    u = torch.where(is_round, torch.where(cap, x, around), torch.where(on_x, y, x))
    v = torch.where(is_round, torch.where(cap, y, z), torch.where(on_x | on_y, z, y))
    return Facet(point, (c * nx - s * ny, s * nx + c * ny, nz), u, v)


class Cells(NamedTuple):
    """Which tile, plank or book spine a point lies on, all [F, R]."""

    column: Tensor  # int32
    row: Tensor  # int32
    joint: Tensor  # share of the point's surroundings that is joint, 0..1
    seen: Tensor  # how clearly single cells are seen, 0 (far too small) to 1


def field_of(material: Tensor, name: str) -> Tensor:
    """One number of the materials [F, R, M], as [F, R]."""
    return material[..., column(name)]


def cells_at(material: Tensor, u: Tensor, v: Tensor, footprint: Tensor) -> Cells:
    """The pattern of joints at surface coordinates u, v."""
    salt = field_of(material, "salt").to(torch.int32)
    cell_u, cell_v = field_of(material, "cell_u"), field_of(material, "cell_v")
    across = (v - field_of(material, "origin_v")) / cell_v
    row = across.floor()
    number = row.to(torch.int32)
    shift = field_of(material, "stagger")
    shift = torch.where(shift > 0.9, fraction_hash(number, number + 7, salt), shift * (number & 1).float())
    along = (u - field_of(material, "origin_u")) / cell_u + shift
    to_u = (0.5 - (along - along.floor() - 0.5).abs()) * cell_u
    to_v = (0.5 - (across - row - 0.5).abs()) * cell_v
    width = field_of(material, "line")
    joint = ((width - torch.minimum(to_u, to_v)) / footprint + 0.5).clamp(0.0, 1.0)
    joint = joint * (2.0 * width / footprint).clamp(0.0, 1.0)
    seen = 1.0 / (1.0 + (footprint / torch.minimum(cell_u, cell_v) * 1.5) ** 4)
    return Cells(along.floor().to(torch.int32), number, joint, seen)


def albedo(
    material: Tensor,  # [F, R, Material.size()]
    u: Tensor,  # [F, R] metres
    v: Tensor,
    footprint: Tensor,  # [F, R] metres that one sample covers on the surface
) -> Vector:
    """Surface colour (red, green, blue); detail finer than the footprint fades out."""
    cells, salt = cells_at(material, u, v, footprint), field_of(material, "salt").to(torch.int32)
    fine = torch.zeros_like(u)
    frequency_u, frequency_v, strength = field_of(material, "grain_u"), field_of(material, "grain_v"), 0.5
    for octave in range(OCTAVES):
        gone = torch.maximum(frequency_u, frequency_v) * footprint * 2.0
        noise = value_noise(u * frequency_u + cells.column, v * frequency_v + cells.row, salt + octave)
        fine = fine + strength / (1.0 + gone**4) * noise
        frequency_u, frequency_v, strength = frequency_u * 2.1, frequency_v * 2.1, strength * 0.7
    scale = field_of(material, "mix_scale")
    cloud = value_noise(u * scale + 17.3, v * scale + 5.1, salt + 11)
    cloud = cloud + 0.5 * value_noise(u * scale * 2.3, v * scale * 2.3, salt + 12)
    blend = (0.5 + 0.5 * cloud * field_of(material, "sharpness")).clamp(0.0, 1.0) * field_of(material, "mix")
    tint = field_of(material, "tint") * cells.seen * (2.0 * fraction_hash(cells.column, cells.row, salt + 31) - 1.0)
    bright = 1.0 + field_of(material, "grain") * fine * 2.0 + tint
    bright = bright * (1.0 - cells.joint * (1.0 - field_of(material, "line_shade")))
    hue = field_of(material, "hue") * cells.seen
    channels = []
    for i in range(3):
        base = torch.lerp(material[..., i], material[..., 3 + i], blend)
        base = base * (1.0 + hue * (2.0 * fraction_hash(cells.column, cells.row, salt + 41 + i) - 1.0))
        channels.append((base * bright).clamp(0.0, 1.0))
    return channels[0], channels[1], channels[2]


def corner_shade(facet: Facet, room: Tensor) -> Tensor:  # room: [F, 2, 3]
    """Ambient light [F, R] left by the walls nearby: corners are darker."""
    sky = torch.ones_like(facet.u)
    for axis in range(3):
        for end in range(2):
            gap = (facet.point[axis] - room[:, end, axis, None]).abs()
            sky = sky * (1.0 - 0.38 * (1.0 - facet.normal[axis].abs()) / (1.0 + 14.0 * gap * gap))
    return sky


def lit(facet: Facet, light: Tensor) -> Tensor:  # light: [F, 6]
    """Share of one lamp's light [F, R] that a surface catches, before shadow and colour."""
    (px, py, pz), (nx, ny, nz) = facet.point, facet.normal
    lx, ly, lz = light[:, 0, None] - px, light[:, 1, None] - py, light[:, 2, None] - pz
    distance2 = lx * lx + ly * ly + lz * lz
    cosine = (lx * nx + ly * ny + lz * nz) * torch.rsqrt(distance2 + 1e-6)
    return (0.15 + 0.85 * cosine).clamp_min(0.0) / (1.0 + 0.09 * distance2)


class Arriving(NamedTuple):
    """Shares of each source's light that arrive at the points, all [F, R]."""

    key: Tensor
    fill: Tensor
    sky: Tensor


def radiance(
    colour: Vector,
    glow: Tensor,  # [F, R] light given off
    arriving: Arriving,
    upward: Tensor,  # [F, R] z of the normal
    lights: Tensor,  # [F, 2, 6]
    ambient: Tensor,  # [F, 3]
) -> Vector:
    """Light that reaches the camera (red, green, blue), linear."""
    dome = arriving.sky * (0.88 + 0.12 * upward)
    out = []
    for i in range(3):
        light = (
            ambient[:, i, None] * dome
            + lights[:, 0, 3 + i, None] * arriving.key
            + lights[:, 1, 3 + i, None] * arriving.fill * (0.35 + 0.65 * arriving.sky)
        )
        out.append(colour[i] * (light + glow))
    return out[0], out[1], out[2]
