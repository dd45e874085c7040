"""`spark3r batch`: many clips, one report, what is done is left alone, and a clip that fails stops no other."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import spark3r.commands.batch
from spark3r.__main__ import main
from spark3r.commands.batch import clips_of, unique_names
from spark3r.errors import InputError
from spark3r.reconstruction import Reconstruction
from tests.media import numbered_video

FRAMES = {"walk": 2, "room": 1, "yard": 3}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a video, a folder of pictures and another video, beside things that are no clips."""
    folder = tmp_path_factory.mktemp("clips")
    for name in ("walk", "yard"):
        numbered_video(folder / f"{name}.mp4", FRAMES[name], (64, 48))
    (folder / "room").mkdir()
    cv2.imwrite(str(folder / "room" / "0.png"), np.zeros((48, 64, 3), np.uint8))
    (folder / "notes.txt").write_text("no clip")
    (folder / ".hidden.mp4").write_bytes(b"")
    (folder / "empty").mkdir()
    return folder


@pytest.fixture
def flags(untrained: Path) -> list[str]:
    return ["--model", str(untrained), "--device", "cpu", "--dtype", "float32", "--resolution", "64", "--quiet"]


def report(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]


def scenes(out: Path) -> dict[str, int]:
    """How many frames each scene has."""
    return {path.stem: len(Reconstruction.load(path)) for path in out.glob("*.npz")}


def test_a_folder_becomes_scenes_and_a_report(clips: Path, flags: list[str], tmp_path: Path) -> None:
    assert main(["batch", str(clips), "-o", str(tmp_path), *flags]) == 0
    assert scenes(tmp_path) == FRAMES
    lines = report(tmp_path)
    assert [Path(line["clip"]).stem for line in lines] == ["room", "walk", "yard"]
    assert [line["frames"] for line in lines] == [1, 2, 3]
    assert all(line["total_ms"] > 0 and Path(line["output"]).is_file() for line in lines)


def test_it_goes_on_where_it_stopped(clips: Path, flags: list[str], tmp_path: Path) -> None:
    """A scene that is there is not touched, even where it is another clip's."""
    (tmp_path / "walk.npz").write_bytes(b"done before")
    assert main(["batch", str(clips), "-o", str(tmp_path), *flags]) == 0
    assert (tmp_path / "walk.npz").read_bytes() == b"done before"
    assert [Path(line["clip"]).stem for line in report(tmp_path)] == ["room", "yard"]
    assert main(["batch", str(clips), "-o", str(tmp_path), *flags]) == 0
    assert len(report(tmp_path)) == 2


def test_a_clip_that_fails_is_told_and_stops_no_other(
    clips: Path, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"# mine\nnowhere.mp4\n\n{clips / 'walk.mp4'}\n{clips / 'room'}\n")
    whole = spark3r.commands.batch.reconstruct

    def forgetful(frames: Any, *given: Any, **named: Any) -> Reconstruction:
        if len(frames) == FRAMES["walk"]:
            raise MemoryError("too much")
        return whole(frames, *given, **named)

    monkeypatch.setattr(spark3r.commands.batch, "reconstruct", forgetful)
    assert main(["batch", str(listed), "-o", str(tmp_path / "out"), *flags]) == 1
    printed = capsys.readouterr()
    assert scenes(tmp_path / "out") == {"room": 1}
    nowhere, walk, room = report(tmp_path / "out")
    assert "nowhere.mp4" in nowhere["error"]
    assert walk["error"] == "MemoryError: too much"
    assert "error" not in room
    assert printed.err == "spark3r: 2 of 3 clips could not be reconstructed\n"
    assert "1 of 3 clips are in" in printed.out
    assert "walk.mp4: MemoryError: too much" in printed.out


@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_the_tasks_of_an_array_share_all_clips(
    tasks: int, clips: Path, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def noted(self: Any, clip: Path, target: Path, *rest: Any) -> dict[str, Any]:
        taken.append(target.name)
        return {"clip": str(clip)}

    monkeypatch.setattr(spark3r.commands.batch.Batch, "_one", noted)
    for task in range(tasks):
        assert main(["batch", str(clips), "-o", str(tmp_path), *flags, "--part", f"{task}/{tasks}"]) == 0
    assert sorted(taken) == ["room.npz", "walk.npz", "yard.npz"]
    assert len(report(tmp_path)) == 3


@pytest.mark.parametrize("part", ["2/2", "1", "a/b", "-1/2"])
def test_a_part_that_is_none_is_one_sentence(
    part: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["batch", str(clips), "-o", str(tmp_path / "out"), f"--part={part}"]) == 2
    assert capsys.readouterr().err == f"spark3r: --part {part}: must be I/N with I from 0 to N-1, such as 0/4\n"
    assert not (tmp_path / "out").exists()


def test_clips_of_one_name_get_scenes_of_their_own() -> None:
    paths = [Path("a/walk.mp4"), Path("b/walk.mov"), Path("b/room.mp4"), Path("c/walk.mp4")]
    assert list(unique_names(paths)) == ["walk", "walk-2", "room", "walk-3"]


def test_a_list_is_kept_in_its_order_and_relative_to_itself(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("b.mp4\n/else/where/a.mp4\n")
    assert clips_of(listed) == [tmp_path / "b.mp4", Path("/else/where/a.mp4")]


def test_no_clip_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no clip: videos, zips and folders of pictures are taken"):
        clips_of(tmp_path)
    with pytest.raises(InputError, match="does not exist: name a folder of clips"):
        clips_of(tmp_path / "nowhere")
