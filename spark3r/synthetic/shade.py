"""What a surface looks like: material, light, shadow. Elementwise on [F, R] like `cast`."""

from __future__ import annotations

import torch
from torch import Tensor

from .material import column
from .scene import WALLS

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


def surface_frame(
    geometry: Tensor,  # [F, R, 8] of the surface met
    inward: Tensor,  # [F, R] true for walls
    is_round: Tensor,  # [F, R]
    px: Tensor,
    py: Tensor,
    pz: Tensor,  # [F, R] world points
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """World normal (3 × [F, R]) and surface coordinates u, v in metres."""
    cx, cy, cz, ga, gb, gc, c, s = geometry.unbind(-1)
    ex, ey, z = px - cx, py - cy, pz - cz
    x, y = c * ex + s * ey, c * ey - s * ex
    rx, ry, rz = (x / ga).abs(), (y / gb).abs(), (z / gc).abs()
    on_x = (rx >= ry) & (rx >= rz)
    on_y = ~on_x & (ry >= rz)
    side = torch.where(inward, -1.0, 1.0)
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
    radius = (x * x + y * y).sqrt()
    around = torch.atan2(y, x) * radius
    u = torch.where(is_round, torch.where(cap, x, around), torch.where(on_x, y, x))
    v = torch.where(is_round, torch.where(cap, y, z), torch.where(on_x | on_y, z, y))
    return c * nx - s * ny, s * nx + c * ny, nz, u, v


def albedo(
    material: Tensor,  # [F, R, Material.size()]
    u: Tensor,
    v: Tensor,  # [F, R] metres
    footprint: Tensor,  # [F, R] metres that one sample covers on the surface
) -> tuple[Tensor, Tensor, Tensor]:
    """Surface colour (3 × [F, R]); detail finer than the footprint fades out."""

    def get(name: str) -> Tensor:
        return material[..., column(name)]

    salt = get("salt").to(torch.int32)
    cell_u, cell_v = get("cell_u"), get("cell_v")
    cv = (v - get("origin_v")) / cell_v
    row = cv.floor()
    irow = row.to(torch.int32)
    shift = get("stagger")
    shift = torch.where(shift > 0.9, fraction_hash(irow, irow + 7, salt), shift * (irow & 1).float())
    cu = (u - get("origin_u")) / cell_u + shift
    icol = cu.floor().to(torch.int32)
    edge = torch.minimum((0.5 - (cu - cu.floor() - 0.5).abs()) * cell_u, (0.5 - (cv - row - 0.5).abs()) * cell_v)
    width = get("line")
    joint = ((width - edge) / footprint + 0.5).clamp(0.0, 1.0) * (2.0 * width / footprint).clamp(0.0, 1.0)
    seen = 1.0 / (1.0 + (footprint / torch.minimum(cell_u, cell_v) * 1.5) ** 4)
    fine = 0.0
    frequency_u, frequency_v, strength = get("grain_u"), get("grain_v"), 0.5
    for octave in range(OCTAVES):
        gone = torch.maximum(frequency_u, frequency_v) * footprint * 2.0
        fine = fine + strength / (1.0 + gone**4) * value_noise(
            u * frequency_u + icol, v * frequency_v + irow, salt + octave
        )
        frequency_u, frequency_v, strength = frequency_u * 2.1, frequency_v * 2.1, strength * 0.7
    scale = get("mix_scale")
    cloud = value_noise(u * scale + 17.3, v * scale + 5.1, salt + 11) + 0.5 * value_noise(
        u * scale * 2.3, v * scale * 2.3, salt + 12
    )
    blend = (0.5 + 0.5 * cloud * get("sharpness")).clamp(0.0, 1.0) * get("mix")
    bright = 1.0 + get("grain") * fine * 2.0 + get("tint") * seen * (2.0 * fraction_hash(icol, irow, salt + 31) - 1.0)
    bright = bright * (1.0 - joint * (1.0 - get("line_shade")))
    hue = get("hue") * seen
    channels = []
    for i in range(3):
        base = torch.lerp(material[..., i], material[..., 3 + i], blend)
        base = base * (1.0 + hue * (2.0 * fraction_hash(icol, irow, salt + 41 + i) - 1.0))
        channels.append((base * bright).clamp(0.0, 1.0))
    return channels[0], channels[1], channels[2]


def corner_shade(
    px: Tensor,
    py: Tensor,
    pz: Tensor,
    nx: Tensor,
    ny: Tensor,
    nz: Tensor,  # [F, R]
    room: Tensor,  # [F, 2, 3]
) -> Tensor:
    """Ambient light [F, R] left by the walls nearby: corners are darker."""
    sky = torch.ones_like(px)
    for axis, (p, n) in enumerate(((px, nx), (py, ny), (pz, nz))):
        for end in range(2):
            gap = (p - room[:, end, axis, None]).abs()
            sky = sky * (1.0 - 0.38 * (1.0 - n.abs()) / (1.0 + 14.0 * gap * gap))
    return sky


def lit(
    px: Tensor,
    py: Tensor,
    pz: Tensor,
    nx: Tensor,
    ny: Tensor,
    nz: Tensor,  # [F, R]
    light: Tensor,  # [F, 6]
) -> Tensor:
    """Share of one lamp's light [F, R] that a surface catches, before shadow and colour."""
    lx, ly, lz = light[:, 0, None] - px, light[:, 1, None] - py, light[:, 2, None] - pz
    distance2 = lx * lx + ly * ly + lz * lz
    cosine = (lx * nx + ly * ny + lz * nz) * torch.rsqrt(distance2 + 1e-6)
    return (0.15 + 0.85 * cosine).clamp_min(0.0) / (1.0 + 0.09 * distance2)


def radiance(
    colour: tuple[Tensor, Tensor, Tensor],
    glow: Tensor,
    key_share: Tensor,
    sky: Tensor,
    fill_share: Tensor,
    nz: Tensor,  # [F, R]
    lights: Tensor,  # [F, 2, 6]
    ambient: Tensor,  # [F, 3]
) -> tuple[Tensor, Tensor, Tensor]:
    """Light that reaches the camera, 3 × [F, R], linear."""
    dome = sky * (0.88 + 0.12 * nz)
    out = []
    for i in range(3):
        arriving = (
            ambient[:, i, None] * dome
            + lights[:, 0, 3 + i, None] * key_share
            + lights[:, 1, 3 + i, None] * fill_share * (0.35 + 0.65 * sky)
        )
        out.append(colour[i] * (arriving + glow))
    return out[0], out[1], out[2]


def is_wall(surface: Tensor) -> Tensor:
    """Whether a surface number [F, R] is one of the room's walls."""
    return surface < WALLS
