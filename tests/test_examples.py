"""Example clips: the stored video is what its recipe renders, and truth follows from the recipe."""

from pathlib import Path

import numpy as np
import pytest

from spark3r.errors import InputError
from spark3r.examples import RECIPES, list_clips, load_truth, make_clip
from spark3r.metrics.truth import Truth
from spark3r.training.config import EXAMPLE_SEED
from spark3r.training.scenes.recipe import Recipe, Stage

SMALL = Recipe(
    "A test", "room", 949_999_000, frames=5, fps=10.0, path="stroll", sweep=20.0, travel=0.2, height=96, width=128
)


def video_frames(path: Path, numbers: tuple[int, ...]) -> list[np.ndarray]:
    import av

    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(video=0)) if i in numbers]


def test_bundled_clips_are_all_there_and_small() -> None:
    clips = list_clips()
    assert [clip.name for clip in clips] == list(RECIPES)
    files = [file for clip in clips for file in clip.folder.iterdir()]
    assert sum(file.stat().st_size for file in files) < 3_000_000
    for clip in clips:
        assert clip.thumbnail.is_file()
        assert Recipe.load(clip.folder / "recipe.json") == RECIPES[clip.name]
        assert RECIPES[clip.name].seed >= EXAMPLE_SEED, "example scenes are never trained on"


@pytest.mark.parametrize("name", ["room_walk", "table_orbit", "long_walk"])
def test_a_stored_frame_is_what_the_recipe_renders(name: str) -> None:
    import cv2

    (clip,) = (c for c in list_clips() if c.name == name)
    (stored,) = video_frames(clip.video, (7,))
    rendered = Stage.of(RECIPES[name]).images(96, 128, np.array([7]))[0]
    shrunk = cv2.resize(stored, (128, 96), interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk.astype(int) - rendered.astype(int)).mean() < 5.0


def test_truth_of_a_clip_matches_its_frames(tmp_path: Path) -> None:
    place = make_clip("test", SMALL, tmp_path)
    assert len(video_frames(place / "video.mp4", tuple(range(9)))) == SMALL.frames
    for source in (place, place / "video.mp4"):
        truth = load_truth(source, size=(24, 32))
        assert truth is not None
        assert truth.depth.shape == (SMALL.frames, 24, 32)
        assert truth.depth.dtype == np.float32


def test_stored_truth_wins_and_nothing_gives_none(tmp_path: Path) -> None:
    assert load_truth(tmp_path) is None
    eye = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    truth = Truth(np.ones((2, 6, 8), np.float32), eye, eye[:, :3, :3].copy())
    truth.save(tmp_path / "truth.npz")
    SMALL.save(tmp_path / "recipe.json")
    loaded = load_truth(tmp_path)
    assert loaded is not None
    assert len(loaded) == 2


def test_resizing_truth_is_rendering_at_that_size() -> None:
    stage = Stage.of(SMALL)
    large, small = stage.cameras(72, 96), stage.cameras(24, 32)
    truth = Truth(stage.depth(72, 96), stage.world_from_camera.numpy(), large.intrinsics.numpy().copy())
    resized = truth.resized(24, 32)
    np.testing.assert_allclose(resized.intrinsics, small.intrinsics.numpy(), atol=1e-4)
    np.testing.assert_allclose(resized.depth, stage.depth(24, 32), rtol=1e-4)


def test_selection_and_its_bounds() -> None:
    eye = np.tile(np.eye(4, dtype=np.float32), (3, 1, 1))
    truth = Truth(np.arange(3, dtype=np.float32)[:, None, None] * np.ones((3, 2, 2), np.float32), eye, eye[:, :3, :3])
    assert truth.select(np.array([2, 0])).depth[:, 0, 0].tolist() == [2.0, 0.0]
    with pytest.raises(InputError, match="3 frames"):
        truth.select(np.array([3]))


def test_a_wrong_recipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text('{"size": 3}')
    (tmp_path / "video.mp4").write_bytes(b"")
    with pytest.raises(InputError, match="recipe"):
        load_truth(tmp_path)
