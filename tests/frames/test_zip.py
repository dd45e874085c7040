"""Zips: pictures in natural order from memory; whatever leads out or grows without bound is refused."""

import io
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from spark3r.errors import InputError
from spark3r.frames import archive, describe_source, read_frames
from spark3r.frames.archive import ZipMembers
from tests.media import number_of, numbered, numbered_photos, numbered_video


def picture(number: int) -> bytes:
    import cv2

    return cv2.imencode(".png", numbered(number))[1].tobytes()


def packed(path: Path, members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as target:
        for name, data in members.items():
            target.writestr(name, data)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_frames(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_pictures_come_in_natural_order_whatever_the_folders(tmp_path: Path) -> None:
    names = ["shot/frame10.png", "shot/frame2.png", "shot/frame1.png", "shot/notes.txt"]
    path = packed(tmp_path / "my photos.zip", {name: picture(i) for i, name in enumerate(names)})
    frames = read_frames(path)
    assert [number_of(image) for image in frames.images] == [2, 1, 0]
    assert frames.names == ("shot/frame1.png", "shot/frame2.png", "shot/frame10.png")
    assert frames.source == "my photos.zip"
    info = describe_source(path)
    assert (info.kind, info.frame_count, info.width, info.height) == ("zip", 3, 160, 96)


def test_only_the_wanted_members_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.zip", {f"{i}.png": picture(i) for i in range(9)})
    opened: list[str] = []
    read = ZipMembers.read
    monkeypatch.setattr(ZipMembers, "read", lambda self, member: opened.append(member) or read(self, member))
    assert read_frames(path, max_frames=2).indices.tolist() == [0, 8]
    assert opened == ["0.png", "8.png"]


def test_what_a_mac_adds_is_ignored(tmp_path: Path) -> None:
    members = {"a.png": picture(1), "__MACOSX/._a.png": b"fork", ".DS_Store": b"x", "day/.hid.png": picture(2)}
    frames = read_frames(packed(tmp_path / "a.zip", members))
    assert frames.names == ("a.png",)
    assert not any("skipped" in note for note in frames.notes)


@pytest.mark.parametrize("name", ["../out.png", "/etc/out.png", "a/../../out.png", "..\\out.png", "C:\\out.png"])
def test_a_path_leading_out_is_refused(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path / "a.zip", {"a.png": picture(0), name: picture(1)})
    assert "has an entry that leads out of it" in refusal(path)
    assert [item.name for item in tmp_path.iterdir()] == ["a.zip"]


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("passwd.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as target:
        target.writestr(link, "/etc/passwd")
    assert "has a symbolic link ('passwd.png')" in refusal(tmp_path / "a.zip")


def test_a_password_is_named(tmp_path: Path) -> None:
    data = bytearray(packed(tmp_path / "a.zip", {"a.png": picture(0)}).read_bytes())
    for signature, flags_at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags_at] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    assert "protected by a password: pack it again without one" in refusal(tmp_path / "a.zip")


def test_a_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"bomb.png": bytes(64 * 2**20)})
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    assert "'bomb.png' in a.zip unpacks to more than 200 times its size" in refusal(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 8 * 2**20


def test_a_bomb_that_lies_about_its_size_is_stopped_while_reading(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"bomb.png": bytes(64 * 2**20)})
    data = bytearray(path.read_bytes())
    for signature, size_at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = data.index(signature) + size_at
        data[start : start + 4] = struct.pack("<I", 1000)
    path.write_bytes(data)
    tracemalloc.start()
    assert "bomb.png in a.zip is damaged" in refusal(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 16 * 2**20


def test_the_total_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).bytes(3000)
    path = packed(tmp_path / "a.zip", {f"{i}.png": noise for i in range(10)})
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 20_000)
    assert "a.zip unpacks to over" in refusal(path)
    monkeypatch.setattr(archive, "MAX_ENTRIES", 9)
    assert "a.zip has 10 entries: at most 9 are read; split it" in refusal(path)


def test_reading_counts_on_where_the_table_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.zip", {f"{i}.png": picture(i) for i in range(5)})
    with ZipMembers(path, "a.zip") as members:
        monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 10)
        with pytest.raises(InputError, match=r"'3.png' in a.zip unpacks to over"):
            members.read("3.png")


def test_nested_archives_and_videos_are_named_not_opened(tmp_path: Path) -> None:
    inner = packed(tmp_path / "inner.zip", {"a.png": picture(0)}).read_bytes()
    frames = read_frames(packed(tmp_path / "a.zip", {"b.png": picture(1), "inner.zip": inner}))
    assert frames.names == ("b.png",)
    assert any("inner.zip in a.zip not opened" in note for note in frames.notes)
    assert "zip without pictures: it holds inner.zip" in refusal(packed(tmp_path / "b.zip", {"inner.zip": inner}))
    clip = numbered_video(tmp_path / "v.mp4", 2).read_bytes()
    assert "it holds v.mp4; unpack it and choose that" in refusal(packed(tmp_path / "c.zip", {"v.mp4": clip}))


@pytest.mark.parametrize("members", [{}, {"notes.txt": b"words"}])
def test_a_zip_without_pictures(tmp_path: Path, members: dict[str, bytes]) -> None:
    assert "a.zip is a zip without pictures: put JPEG" in refusal(packed(tmp_path / "a.zip", members))


@pytest.mark.parametrize("keep", [0.5, 0.98])
def test_a_cut_off_zip_is_refused(tmp_path: Path, keep: float) -> None:
    path = packed(tmp_path / "a.zip", {f"{i}.png": picture(i) for i in range(5)})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    assert "a.zip is not a complete zip file: pack or upload it again" in refusal(path)


def test_one_damaged_member_costs_only_itself(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {f"{i}.png": picture(i) for i in range(3)}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    at = data.index(b"1.png") + 60
    data[at : at + 8] = b"scramble"
    path.write_bytes(data)
    frames = read_frames(path)
    assert frames.indices.tolist() == [0, 2]
    assert any("1 skipped: 1.png in a.zip is damaged" in note for note in frames.notes)


def test_nothing_is_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    photos = numbered_photos(tmp_path / "in", ["a.jpg", "b.jpg"])
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for photo in photos:
            target.write(photo, photo.name)
    (tmp_path / "a.zip").write_bytes(stream.getvalue())
    assert len(read_frames(tmp_path / "a.zip")) == 2
    assert not list((tmp_path / "tmp").iterdir())
