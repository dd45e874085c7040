"""Videos of numbered frames: what comes back is what was asked for, also from broken files."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from spark3r.errors import Cancelled, InputError
from spark3r.frames import describe_source, read_frames
from spark3r.frames.video import seeking_is_quicker
from tests.media import SIZE, number_of, numbered, numbered_video, turn_video, write_photo, write_video


def numbers(images: np.ndarray) -> list[int]:
    return [number_of(image) for image in images]


@pytest.mark.parametrize(
    ("file", "codec"),
    [
        ("clip.mp4", "libx264"),
        ("clip.mov", "mpeg4"),
        ("clip.webm", "libvpx"),
        ("clip.avi", "mjpeg"),
        ("clip.mp4", "libx265"),
        ("clip.mkv", "libx264"),
        ('a clip\'s "größte" <b>ü&amp; ✓ 100%d.mp4', "libx264"),
    ],
)
def test_every_container_gives_every_frame_in_order(tmp_path: Path, file: str, codec: str) -> None:
    path = numbered_video(tmp_path / file, 12, codec=codec)
    frames = read_frames(path)
    assert numbers(frames.images) == list(range(12))
    assert frames.indices.tolist() == list(range(12))
    assert frames.timestamps == pytest.approx(np.arange(12) / 10)
    assert frames.images.shape == (12, SIZE[1], SIZE[0], 3)
    assert frames.images.flags["C_CONTIGUOUS"]
    assert frames.notes == ()
    assert frames.source == file
    assert len(set(frames.names)) == 12


def test_red_is_red(tmp_path: Path) -> None:
    red = np.broadcast_to(np.array([250, 10, 10], np.uint8), (96, 160, 3))
    image = read_frames(write_video(tmp_path / "red.mp4", [np.ascontiguousarray(red)] * 3)).images[1]
    assert np.abs(image.reshape(-1, 3).mean(0) - [250, 10, 10]).max() < 8


def test_description_counts_what_reading_gives(tmp_path: Path) -> None:
    info = describe_source(numbered_video(tmp_path / "clip.mp4", 30))
    assert (info.kind, info.frame_count, info.width, info.height) == ("video", 30, *SIZE)
    assert info.fps == pytest.approx(10)
    assert info.duration_s == pytest.approx(3)


@pytest.mark.parametrize(("max_frames", "fps", "expected"), [(3, None, [0, 15, 29]), (None, 1.0, [0, 14, 29])])
def test_sampling_spans_the_whole_clip(
    tmp_path: Path, max_frames: int | None, fps: float | None, expected: list[int]
) -> None:
    path = numbered_video(tmp_path / "clip.mp4", 30)
    frames = read_frames(path, max_frames=max_frames, fps=fps)
    assert numbers(frames.images) == frames.indices.tolist()
    assert np.abs(frames.indices - expected).max() <= 1
    assert frames.timestamps == pytest.approx(frames.indices / 10)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_seeking_and_running_through_give_the_same_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    path = numbered_video(tmp_path / "clip.mp4", 250, gop=5, codec=codec)
    results = []
    for seek in (False, True):
        monkeypatch.setattr("spark3r.frames.video.seeking_is_quicker", lambda *_, seek=seek: seek)
        results.append(read_frames(path, max_frames=6))
        monkeypatch.setattr("spark3r.frames.video._run_through", lambda *_: pytest.fail("seeking fell back"))
    run, sought = results
    assert numbers(sought.images) == sought.indices.tolist() == [0, 50, 100, 149, 199, 249]
    assert np.array_equal(sought.images, run.images)


def test_seeking_pays_only_over_long_gaps() -> None:
    assert seeking_is_quicker(np.arange(0, 1000, 100), keyframe_gap=30)
    assert not seeking_is_quicker(np.arange(0, 1000, 10), keyframe_gap=30)
    assert not seeking_is_quicker(np.arange(0, 1000, 100), keyframe_gap=250)
    assert not seeking_is_quicker(np.array([0]), keyframe_gap=1)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_honoured(tmp_path: Path, degrees: int) -> None:
    path = numbered_video(tmp_path / "clip.mp4", 6)
    turn_video(path, degrees)
    frames = read_frames(path)
    undone = np.rot90(frames.images, k=degrees // 90, axes=(1, 2))  # counter-clockwise
    assert numbers(undone) == list(range(6))
    info = describe_source(path)
    assert frames.images.shape[1:3] == (info.height, info.width) == (SIZE if degrees != 180 else SIZE[::-1])


@pytest.mark.parametrize("resolution", [64, 100, 4000])
def test_resolution_bounds_the_longer_side(tmp_path: Path, resolution: int) -> None:
    frames = read_frames(numbered_video(tmp_path / "clip.mp4", 5), resolution=resolution)
    assert max(frames.images.shape[1:3]) == min(resolution, SIZE[0])
    assert numbers(frames.images) == list(range(5))


def test_wide_pixels_are_made_square(tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "clip.mp4", 4, pixel_aspect=2)
    frames = read_frames(path)
    assert frames.images.shape[1:3] == (SIZE[1], 2 * SIZE[0])
    assert describe_source(path).width == 2 * SIZE[0]
    assert numbers(frames.images) == list(range(4))


def test_an_unusable_rate_is_measured_and_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = numbered_video(tmp_path / "clip.mp4", 11)
    monkeypatch.setattr("spark3r.frames.video.FPS_BOUNDS", (20.0, 480.0))
    frames = read_frames(path)
    assert frames.timestamps[-1] == pytest.approx(1.0, rel=0.01)
    assert any("no usable frame rate: 10 frames per second" in note for note in frames.notes)


def test_large_frames_are_never_all_in_memory(tmp_path: Path) -> None:
    size, count = (1280, 720), 40
    path = numbered_video(tmp_path / "clip.mp4", count, size, options={"preset": "ultrafast"})
    tracemalloc.start()
    read_frames(path, resolution=64)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 8 * size[0] * size[1] * 3


def test_a_stream_without_duration_is_counted(tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "recorded.webm", 25, codec="libvpx", to_pipe=True)
    assert describe_source(path).frame_count == 25
    assert numbers(read_frames(path, max_frames=2).images) == [0, 24]


def test_a_cut_off_video_gives_what_there_is_and_says_so(tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "clip.mp4", 100, options={"movflags": "faststart"})
    data = path.read_bytes()
    start = data.index(b"mdat")
    path.write_bytes(data[: start + (len(data) - start) // 2])
    frames = read_frames(path, max_frames=5)
    assert len(frames) == 5
    assert 20 < frames.indices[-1] < 80
    assert np.ptp(np.diff(frames.indices)) <= 1
    assert numbers(frames.images)[:4] == frames.indices.tolist()[:4]
    assert [("announces 100 frames" in note, "cut off" in note) for note in frames.notes] == [(True, True)]


def test_a_video_cut_before_its_index_is_refused(tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "clip.mp4", 50)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(InputError, match=r"No picture can be read from clip.mp4 .*export it again as mp4"):
        read_frames(path)


def test_an_unknown_codec_is_named_as_the_reason(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = numbered_video(tmp_path / "clip.mp4", 10)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))
    with pytest.raises(InputError, match=r"clip.mp4 \(.* a codec that this machine does not decode\).*H.264"):
        read_frames(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("count", "noted"), [(1, True), (2, False)])
def test_one_and_two_frames_are_enough(tmp_path: Path, count: int, noted: bool) -> None:
    frames = read_frames(numbered_video(tmp_path / "clip.mp4", count))
    assert numbers(frames.images) == list(range(count))
    assert any("no camera motion" in note for note in frames.notes) == noted


def test_progress_rises_to_the_planned_count(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    path = numbered_video(tmp_path / "clip.mp4", 20)
    read_frames(path, max_frames=7, progress=lambda done, total: heard.append((done, total)))
    assert heard == [(done, 7) for done in range(8)]


def test_cancelling_stops_between_frames(tmp_path: Path) -> None:
    heard: list[int] = []
    path = numbered_video(tmp_path / "clip.mp4", 20)
    with pytest.raises(Cancelled):
        read_frames(path, progress=lambda done, _: heard.append(done), cancel=lambda: len(heard) >= 4)
    assert heard == [0, 1, 2, 3]


def test_selecting_keeps_the_parts_together(tmp_path: Path) -> None:
    frames = read_frames(numbered_video(tmp_path / "clip.mp4", 10))
    chosen = frames.select([7, 2])
    assert numbers(chosen.images) == chosen.indices.tolist() == [7, 2]
    assert chosen.names == (frames.names[7], frames.names[2])
    assert len(frames.select(slice(None, None, 3))) == 4


def test_a_folder_with_its_video_is_that_video(tmp_path: Path) -> None:
    numbered_video(tmp_path / "video.mp4", 4)
    write_photo(tmp_path / "thumbnail.jpg", numbered(200))
    assert numbers(read_frames(tmp_path).images) == [0, 1, 2, 3]
