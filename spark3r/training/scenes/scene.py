"""What a rendered scene consists of, and the builder that the room generator fills.

World axes of a scene: x and y horizontal, z up, metres, floor at z = 0. Cameras are OpenCV cameras.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

from .material import Material

BOXES = 48  # fixed capacities, so that scenes of one batch share a shape
ROUNDS = 16
CASTERS = 12
WALLS = 6

_BLANK = Material()
_BLANK_ROW = _BLANK.row()


@dataclass(frozen=True)
class Scenes:
    """A batch of B scenes. Unused places hold solids of negative size, which no ray can hit."""

    room: Tensor  # [B, 2, 3] lower and upper corner of the walls, metres
    boxes: Tensor  # [B, BOXES, 8] centre 3, half size 3, cosine and sine of the yaw
    rounds: Tensor  # [B, ROUNDS, 8] centre 3, q0 q1 q2 with radius² = q0 + q1 z + q2 z², half height, unused
    materials: Tensor  # [B, WALLS + BOXES + ROUNDS, Material.size()]
    casters: Tensor  # [B, CASTERS, 8] the boxes that throw shadows
    lights: Tensor  # [B, 2, 6] key (shadowed) and fill light: position 3, colour 3
    ambient: Tensor  # [B, 3]

    def to(self, device: str | torch.device) -> Scenes:
        """The same scenes on another device."""
        return Scenes(*(getattr(self, f.name).to(device) for f in fields(self)))

    def __len__(self) -> int:
        return len(self.room)

    @staticmethod
    def stack(scenes: list[SceneBuilder]) -> Scenes:
        """Pack finished builders into one batch."""
        packed = [scene.packed() for scene in scenes]
        return Scenes(*(torch.from_numpy(np.stack([p[i] for p in packed])) for i in range(7)))


@dataclass(frozen=True)
class Placement:
    """Where a piece of furniture stands: its own frame has x along its front, y to its front, z up."""

    x: float
    y: float
    yaw: float = 0.0
    z: float = 0.0

    def at(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        """World position of a point given in the frame of the piece."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return self.x + c * x - s * y, self.y + s * x + c * y, self.z + z

    def moved(self, x: float, y: float, z: float = 0.0, turned: float = 0.0) -> Placement:
        """A placement given relative to this one."""
        wx, wy, wz = self.at(x, y, z)
        return Placement(wx, wy, self.yaw + turned, wz)


@dataclass
class SceneBuilder:
    """A scene while it is being furnished (numpy, one scene)."""

    size: tuple[float, float, float]  # metres of floor x, floor y, height; the floor is centred at the origin
    walls: list[Material]  # six: x-, x+, y-, y+, floor, ceiling
    boxes: list[tuple[float, ...]] = field(default_factory=list)
    box_materials: list[Material] = field(default_factory=list)
    rounds: list[tuple[float, ...]] = field(default_factory=list)
    round_materials: list[Material] = field(default_factory=list)
    casters: list[tuple[float, ...]] = field(default_factory=list)
    lights: list[tuple[float, ...]] = field(default_factory=list)
    ambient: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def box(
        self,
        place: Placement,
        centre: tuple[float, float, float],
        size: tuple[float, float, float],
        material: Material,
        casts: bool = False,
    ) -> None:
        """Add a box of full `size`, centred at `centre` in the frame of `place`; dropped when the scene is full."""
        if len(self.boxes) >= BOXES:
            return
        half = tuple(0.5 * s for s in size)
        self.boxes.append((*place.at(*centre), *half, float(np.cos(place.yaw)), float(np.sin(place.yaw))))
        self.box_materials.append(material)
        if casts:
            self.cast(place, centre, size)

    def cast(self, place: Placement, centre: tuple[float, float, float], size: tuple[float, float, float]) -> None:
        """Let an invisible box of full `size` throw a shadow (round things use it too)."""
        if len(self.casters) < CASTERS:
            half = tuple(0.5 * s for s in size)
            self.casters.append((*place.at(*centre), *half, float(np.cos(place.yaw)), float(np.sin(place.yaw))))

    def round(
        self,
        place: Placement,
        centre: tuple[float, float, float],
        profile: tuple[float, float, float],
        height: float,
        material: Material,
    ) -> None:
        """Add a solid of revolution about the vertical: radius² = q0 + q1 z + q2 z² for |z| ≤ height / 2."""
        if len(self.rounds) >= ROUNDS:
            return
        self.rounds.append((*place.at(*centre), *profile, 0.5 * height, 0.0))
        self.round_materials.append(material)

    def cylinder(
        self,
        place: Placement,
        centre: tuple[float, float, float],
        radius: float,
        height: float,
        material: Material,
        top_radius: float | None = None,
    ) -> None:
        """A cylinder, or a truncated cone when `top_radius` differs."""
        slope = 0.0 if top_radius is None else (top_radius - radius) / height
        middle = radius if top_radius is None else 0.5 * (radius + top_radius)
        self.round(place, centre, (middle**2, 2 * middle * slope, slope**2), height, material)

    def ellipsoid(
        self,
        place: Placement,
        centre: tuple[float, float, float],
        radius: float,
        half_height: float,
        material: Material,
    ) -> None:
        """An ellipsoid of revolution; a ball when both measures agree."""
        self.round(place, centre, (radius**2, 0.0, -((radius / half_height) ** 2)), 2 * half_height, material)

    def packed(self) -> tuple[np.ndarray, ...]:
        """The seven arrays of `Scenes`, padded to capacity."""
        nothing = (0.0, 0.0, -50.0, -1.0, -1.0, -1.0, 1.0, 0.0)
        hollow = (0.0, 0.0, -50.0, -1.0, 0.0, 0.0, -1.0, 0.0)
        half_x, half_y, height = 0.5 * self.size[0], 0.5 * self.size[1], self.size[2]
        blank = _BLANK
        materials = (
            self.walls
            + self.box_materials
            + [blank] * (BOXES - len(self.boxes))
            + self.round_materials
            + [blank] * (ROUNDS - len(self.rounds))
        )
        arrays = (
            [(-half_x, -half_y, 0.0), (half_x, half_y, height)],
            self.boxes + [nothing] * (BOXES - len(self.boxes)),
            self.rounds + [hollow] * (ROUNDS - len(self.rounds)),
            [_BLANK_ROW if m is blank else m.row() for m in materials],
            self.casters + [nothing] * (CASTERS - len(self.casters)),
            self.lights,
            self.ambient,
        )
        return tuple(np.asarray(a, dtype=np.float32) for a in arrays)
