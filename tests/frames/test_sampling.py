"""Which frames are taken: laws over every length and limit."""

import numpy as np
import pytest

from spark3r.errors import InputError
from spark3r.frames import SourceInfo, natural_key, planned_frames
from spark3r.frames.sampling import (
    MIN_SIDE_PX,
    check_limits,
    check_memory,
    even_positions,
    fitted_size,
    stored_size,
)


def clip(frame_count: int, fps: float | None = 30.0) -> SourceInfo:
    return SourceInfo("video" if fps else "folder", frame_count, fps, frame_count / fps if fps else None, 640, 480)


@pytest.mark.parametrize("available", [1, 2, 3, 7, 100, 1799])
@pytest.mark.parametrize("wanted", [1, 2, 3, 10, 99, 5000])
def test_positions_are_even_and_span_the_source(available: int, wanted: int) -> None:
    positions = even_positions(available, wanted)
    assert len(positions) == min(available, wanted)
    assert positions[0] == 0
    if len(positions) > 1:
        assert positions[-1] == available - 1
        gaps = np.diff(positions)
        assert gaps.min() >= 1
        assert gaps.max() - gaps.min() <= 1


def test_no_limit_takes_everything() -> None:
    assert planned_frames(clip(123)) == 123


@pytest.mark.parametrize(
    ("max_frames", "fps", "planned"),
    [(None, 1.0, 10), (None, 2.0, 20), (5, 2.0, 5), (500, 2.0, 20), (None, 60.0, 300), (7, None, 7), (1, 2.0, 1)],
)
def test_both_limits_combine_over_ten_seconds(max_frames: int | None, fps: float | None, planned: int) -> None:
    assert planned_frames(clip(300), max_frames, fps) == planned


def test_a_low_rate_still_shows_motion() -> None:
    assert planned_frames(clip(12), fps=0.5) == 2
    assert planned_frames(clip(1), fps=0.5) == 1


def test_photos_have_no_rate() -> None:
    assert planned_frames(clip(40, fps=None), fps=0.1) == 40


@pytest.mark.parametrize("limits", [{"max_frames": 0}, {"max_frames": -3}, {"fps": 0.0}, {"fps": float("nan")}])
def test_limits_that_mean_nothing_are_refused(limits: dict[str, float]) -> None:
    name = next(iter(limits))
    with pytest.raises(InputError, match=f"{name}=.*must be"):
        planned_frames(clip(10), **limits)  # type: ignore[arg-type]


def test_a_resolution_below_any_model_is_refused() -> None:
    with pytest.raises(InputError, match="resolution=8: must be 64 or more"):
        check_limits(resolution=8)


def test_memory_is_foreseen() -> None:
    check_memory(10, 1024, 768)
    with pytest.raises(InputError, match=r"GB and this machine has .* set max_frames"):
        check_memory(10**9, 1024, 768)


@pytest.mark.parametrize("size", [(4000, 3000), (3000, 4000), (640, 480), (1024, 1024)])
def test_fitting_bounds_the_longer_side_keeps_the_shape_and_never_enlarges(size: tuple[int, int]) -> None:
    width, height = fitted_size(*size, 1024)
    assert max(width, height) == min(1024, max(size))
    assert width / height == pytest.approx(size[0] / size[1], rel=0.01)


@pytest.mark.parametrize(("size", "reason"), [((10, 10), "too small"), ((9000, 40), "too narrow")])
def test_what_no_model_can_see_is_refused(size: tuple[int, int], reason: str) -> None:
    with pytest.raises(InputError, match=rf"a.png is {size[0]}x{size[1]} pixels, {reason}.*{MIN_SIDE_PX} pixels"):
        stored_size("a.png", *size, 1024)


def test_numbers_in_names_count_as_numbers() -> None:
    names = ["frame10", "frame2", "Frame1", "a", "frame2b", "10", "9"]
    assert sorted(names, key=natural_key) == ["9", "10", "a", "Frame1", "frame2", "frame2b", "frame10"]
