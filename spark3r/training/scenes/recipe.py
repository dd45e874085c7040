"""A rendered clip as a few numbers: scene, path, camera. The same recipe always gives the same frames and truth."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from spark3r.errors import InputError

from . import paths, rooms
from .render import Cameras, develop, render, render_depth
from .scene import SceneBuilder, Scenes
from .sequences import pinhole


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a clip. Angles in degrees, lengths in metres."""

    title: str
    scene: Literal["room", "table", "flat"]
    seed: int
    frames: int
    fps: float
    path: Literal["stroll", "orbit", "doorway"]
    path_seed: int = 0
    sweep: float = 100.0  # total turn
    travel: float = 1.8  # length of a stroll
    radius: float = 1.1  # of an orbit
    rise: float = 0.5  # of an orbit's camera above its target
    field_of_view: float = 60.0  # horizontal
    exposure: float = 1.1
    height: int = 384
    width: int = 512

    @staticmethod
    def load(path: Path) -> Recipe:
        """Read recipe.json; raises InputError when it is not one."""
        try:
            return Recipe(**json.loads(path.read_text()))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{path} is not a clip recipe ({error}): use the recipe.json of an example clip"
            ) from error

    def save(self, path: Path) -> None:
        """Writes the recipe as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def path_of(recipe: Recipe, scene: SceneBuilder) -> paths.CameraPath:
    """The camera path of a clip, in a steady hand."""
    rng = np.random.default_rng((recipe.path_seed, recipe.seed, 15485863))
    progress = np.linspace(0, 1, recipe.frames)
    sweep = np.radians(recipe.sweep)
    if recipe.path == "orbit":
        path = paths.orbit(rng, np.array([0.0, 0.0, 0.84]), progress, sweep, recipe.radius, recipe.rise)
    elif recipe.path == "doorway":
        path = paths.doorway(scene, progress)
    else:
        strolls = [paths.stroll(rng, scene, progress, sweep, recipe.travel) for _ in range(30)]
        path = max(strolls, key=lambda candidate: paths.free_view(scene, candidate))
    return paths.shaken(path, rng, recipe.frames / recipe.fps)


@dataclass(frozen=True)
class Stage:
    """A recipe's scene and cameras, ready to be rendered at any size."""

    recipe: Recipe
    scenes: Scenes
    world_from_camera: Tensor  # [S, 4, 4]

    @staticmethod
    def of(recipe: Recipe) -> Stage:
        """The scene and camera path that a recipe describes."""
        builder = rooms.scene(recipe.seed, recipe.scene)
        poses = path_of(recipe, builder).world_from_camera().astype(np.float32)
        return Stage(recipe, Scenes.stack([builder]), torch.from_numpy(poses))

    def cameras(self, height: int, width: int, indices: np.ndarray | None = None) -> Cameras:
        """The cameras of some frames (all by default) for images of H × W pixels."""
        poses = self.world_from_camera if indices is None else self.world_from_camera[torch.from_numpy(indices)]
        k = torch.from_numpy(pinhole(np.radians(self.recipe.field_of_view), height, width).astype(np.float32))
        return Cameras(torch.zeros(len(poses), dtype=torch.int64), poses, k.expand(len(poses), 3, 3))

    def images(self, height: int, width: int, indices: np.ndarray | None = None, samples: int = 4) -> np.ndarray:
        """Frames [S, H, W, 3] uint8."""
        linear, _ = render(self.scenes, self.cameras(height, width, indices), height, width, samples)
        count = len(linear)
        shown = develop(linear, torch.full((count,), self.recipe.exposure), torch.ones(count, 3))
        return (shown * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()

    def depth(self, height: int, width: int, indices: np.ndarray | None = None) -> np.ndarray:
        """z-depth [S, H, W] float32, metres, at the pixel centres."""
        return render_depth(self.scenes, self.cameras(height, width, indices), height, width).numpy()
