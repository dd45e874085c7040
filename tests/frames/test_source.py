"""Whatever is dropped on us: recognised by what it holds, or refused in one sentence with its remedy."""

from pathlib import Path

import pytest

from spark3r.errors import Cancelled, InputError
from spark3r.frames import describe_source, read_frames
from spark3r.frames.source import shown
from tests.media import number_of, numbered_photos, numbered_video

PLAYLIST = "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
SESSION = "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"


def refusal(source: object) -> str:
    """The one sentence both verbs answer with."""
    with pytest.raises(InputError) as by_reading:
        read_frames(source)  # type: ignore[arg-type]  also what no type checker would let through
    with pytest.raises(InputError) as by_describing:
        describe_source(source)  # type: ignore[arg-type]
    sentence = str(by_reading.value)
    assert sentence == str(by_describing.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


@pytest.mark.parametrize("text", ["just words", PLAYLIST, SESSION, "ffconcat version 1.0\nfile /etc/passwd\n"])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.webm", "list.m3u8", "notes.txt", "noname"])
def test_what_is_no_video_is_never_handed_to_the_decoder(tmp_path: Path, text: str, name: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert refusal(path).startswith(f"{name} is neither a video nor a picture nor a zip: choose a video (mp4")


@pytest.mark.parametrize("name", ["clip.mp4", "a.jpg", "a.zip", "x"])
def test_an_empty_file_is_called_empty(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert f"{name} is an empty file" in refusal(tmp_path / name)


@pytest.mark.parametrize("source", ["/nowhere/clip.mp4", "http://127.0.0.1/a.mp4", "rtsp://h/a", "a\0b.mp4", "x" * 300])
def test_a_missing_path_is_called_missing(source: str) -> None:
    assert "does not exist: check the path" in refusal(source)


@pytest.mark.parametrize("source", ["", "  ", [], [""]])
def test_nothing_chosen_is_called_so(source: object) -> None:
    assert refusal(source).startswith("Nothing was chosen: choose a video")


def test_an_empty_folder_and_one_without_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "clip.mp4"
    folder.mkdir()
    assert refusal(folder).startswith("clip.mp4 is a folder without pictures or anything else: choose")
    (folder / "notes.txt").write_text("words")
    assert refusal(folder).startswith("clip.mp4 is a folder without pictures: choose")
    (folder / "day1").mkdir()
    assert "(it has day1: name one of them)" in refusal(folder)


def test_a_folder_of_videos_asks_which(tmp_path: Path) -> None:
    numbered_video(tmp_path / "a.mp4", 2)
    assert read_frames(tmp_path).indices.tolist() == [0, 1]
    numbered_video(tmp_path / "b.mp4", 2)
    assert "with 2 videos (name one of them)" in refusal(tmp_path)


@pytest.mark.parametrize("inner", ["rgb", "images"])
def test_a_clip_folder_is_its_pictures(tmp_path: Path, inner: str) -> None:
    numbered_photos(tmp_path / inner, ["000000.png", "000001.png"])
    (tmp_path / "truth.npz").write_bytes(b"numbers")
    assert read_frames(tmp_path).names == ("000000.png", "000001.png")


def test_hidden_files_are_not_frames(tmp_path: Path) -> None:
    numbered_photos(tmp_path, ["a.png", ".hidden.png", "._a.png"])
    (tmp_path / "__MACOSX").mkdir()
    frames = read_frames(tmp_path)
    assert frames.names == ("a.png",)
    assert describe_source(tmp_path).frame_count == 1


def test_several_files_must_all_be_pictures(tmp_path: Path) -> None:
    photo = numbered_photos(tmp_path, ["a.png"])[0]
    clip = numbered_video(tmp_path / "a.mp4", 2)
    assert refusal([photo, clip]).startswith("a.mp4 is no picture: several files at once must all be pictures")
    assert refusal([photo, tmp_path]).startswith(f"{tmp_path.name} is a folder: several files")
    assert len(read_frames([clip])) == 2


@pytest.mark.parametrize(
    "name", ["two words.png", 'it\'s "so".png', "größe ✓ 写真.png", "<img src=x>&amp;.png", "%d.png"]
)
def test_odd_names_are_names(tmp_path: Path, name: str) -> None:
    path = numbered_photos(tmp_path, [name])[0]
    frames = read_frames(str(path))
    assert frames.names == (name,)
    assert number_of(frames.images[0]) == 0


def test_a_name_is_shown_on_one_line() -> None:
    assert shown("a\nb\x1b[31m.png") == "a?b?[31m.png"
    assert shown(Path("/folder/" + "x" * 200 + ".png")) == "x" * 80 + "…" + "x" * 35 + ".png"


def test_a_cancelled_reader_opens_nothing() -> None:
    with pytest.raises(Cancelled):
        read_frames("/nowhere.mp4", cancel=lambda: True)
