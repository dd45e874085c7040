"""The example clips that come with the package, and how they are made."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from spark3r.installation import assets
from spark3r.metrics.truth import Truth, read_truth
from spark3r.models.registry import ENTRIES
from spark3r.training.scenes.recipe import Recipe, Stage

FOLDER = assets("clips")
THUMBNAIL_WIDTH = 256
RENDERED_WIDTH = 256  # pixels of a depth map rendered from a recipe, unless asked otherwise
REAL_FOOTAGE = (
    "{model} is a small model trained on rendered scenes: on 60 frames of a real kitchen its depth was 19 % off and "
    "its cameras by 8° (a constant answer: 27 % and 12°), so for real footage take {small} "
    "({small_name}, suits a CPU) or, with a GPU, {large} ({large_name}, non-commercial use only)."
)

# Seeds from 950,000,000 on are never trained on.
RECIPES: dict[str, Recipe] = {
    "room_walk": Recipe("A walk through a living room", "room", 950_000_008, frames=120, fps=15.0, path="stroll"),
    "table_orbit": Recipe("Around a laid table", "table", 950_000_003, frames=64, fps=15.0, path="orbit", sweep=90.0),
    "long_walk": Recipe("From one room to the next", "flat", 950_000_022, frames=300, fps=20.0, path="doorway"),
}


@dataclass(frozen=True)
class Clip:
    """An example clip on disk."""

    name: str
    title: str
    folder: Path
    video: Path
    thumbnail: Path
    frames: int


def list_clips(folder: Path = FOLDER) -> tuple[Clip, ...]:
    """The example clips, in the order in which a gallery shows them."""
    found = []
    for name in [*RECIPES, *sorted(p.name for p in folder.glob("*") if p.is_dir() and p.name not in RECIPES)]:
        place = folder / name
        if (place / "video.mp4").is_file() and (place / "recipe.json").is_file():
            recipe = Recipe.load(place / "recipe.json")
            found.append(Clip(name, recipe.title, place, place / "video.mp4", place / "thumbnail.jpg", recipe.frames))
    return tuple(found)


def is_rendered(source: str | Path | Sequence[str | Path]) -> bool:
    """Whether a source is a clip of our generator: its folder, or the video in it, beside the recipe."""
    if not isinstance(source, (str, Path)):
        return False
    path = Path(source)
    return (path / "recipe.json").is_file() or (path.name == "video.mp4" and path.with_name("recipe.json").is_file())


def footage_note(model: str, source: str | Path | Sequence[str | Path]) -> str:
    """What to know before a bundled model sees anything but a rendered clip, in words; else nothing."""
    if model not in ENTRIES or not ENTRIES[model].card.bundled or is_rendered(source):
        return ""
    small, large = ENTRIES["da3-small"].card, ENTRIES["vggt"].card
    return REAL_FOOTAGE.format(
        model=model, small=small.title, small_name=small.name, large=large.title, large_name=large.name
    )


def load_truth(source: str | Path, *, size: tuple[int, int] | None = None) -> Truth | None:
    """The truth of a clip folder or of a video in one; None when there is neither truth.npz nor recipe.json.

    size: (H, W) at which the depth of a recipe is rendered, exactly; default 256 pixels wide.
    A stored truth is resized.
    """
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    if (folder / "truth.npz").is_file():
        truth = read_truth(folder / "truth.npz")
        return truth if size is None else truth.resized(*size)
    if (folder / "recipe.json").is_file() and (path.is_dir() or path.name == "video.mp4"):
        recipe = Recipe.load(folder / "recipe.json")
        height = round(RENDERED_WIDTH * recipe.height / recipe.width)
        return _rendered(recipe, *(size or (height, RENDERED_WIDTH)))
    return None


@lru_cache(maxsize=4)
def _rendered(recipe: Recipe, height: int, width: int) -> Truth:
    stage = Stage.of(recipe)
    cameras = stage.cameras(height, width)
    return Truth(stage.depth(height, width), stage.world_from_camera.numpy(), cameras.intrinsics.numpy().copy())


def frames_of(recipe: Recipe, at_once: int = 4) -> Iterator[np.ndarray]:
    """Rendered frames [H, W, 3] uint8 one after the other."""
    stage = Stage.of(recipe)
    for start in range(0, recipe.frames, at_once):
        yield from stage.images(recipe.height, recipe.width, np.arange(start, min(start + at_once, recipe.frames)))


def make_clip(name: str, recipe: Recipe, folder: Path = FOLDER, quality: int = 25) -> Path:
    """Render a clip into folder/name: video.mp4 (H.264, plays in browsers), recipe.json, thumbnail.jpg."""
    import av
    import cv2

    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    recipe.save(place / "recipe.json")
    with av.open(str(place / "video.mp4"), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=round(recipe.fps))
        stream.width, stream.height, stream.pix_fmt = recipe.width, recipe.height, "yuv420p"
        stream.options = {"crf": str(quality), "preset": "slow", "g": "30"}
        for number, image in enumerate(frames_of(recipe)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            if number == recipe.frames // 2:
                height = round(THUMBNAIL_WIDTH * recipe.height / recipe.width)
                small = cv2.resize(image, (THUMBNAIL_WIDTH, height), interpolation=cv2.INTER_AREA)
                cv2.imwrite(str(place / "thumbnail.jpg"), small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
        container.mux(stream.encode(None))
    return place


def main() -> None:
    """`python -m spark3r.examples [NAME …]`: render the example clips anew."""
    parser = argparse.ArgumentParser(prog="spark3r.examples", description="Render the example clips.")
    parser.add_argument("names", nargs="*", choices=[*RECIPES, []], help="which (default: all)")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument(
        "--compile", action="store_true", help="compile the renderer: a minute to start, then far faster"
    )
    arguments = parser.parse_args()
    if arguments.compile:
        os.environ["SPARK3R_COMPILE"] = "1"
    for name in arguments.names or RECIPES:
        print(make_clip(name, RECIPES[name], arguments.folder))


if __name__ == "__main__":
    main()
