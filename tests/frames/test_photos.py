"""Photos: every format, upright, one size, and one clear sentence for each that cannot be used."""

import io
import resource
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spark3r.errors import InputError
from spark3r.frames import describe_source, read_frames
from spark3r.frames.exif import exif_orientation
from spark3r.frames.image import decode_image, image_size
from tests.media import SIZE, number_of, numbered, numbered_photos, write_photo

FULL = 1024


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)  # type: ignore[arg-type]  options differ by format
    return stream.getvalue()


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def as_displayed(image: np.ndarray, orientation: int) -> np.ndarray:
    """[H, W, 3] as it must be *stored* so that a viewer obeying `orientation` shows `image` (EXIF 2.32, table 4)."""
    stored = {
        1: image,
        2: image[:, ::-1],
        3: image[::-1, ::-1],
        4: image[::-1],
        5: image.transpose(1, 0, 2),
        6: np.rot90(image, 1),
        7: np.rot90(image, 2).transpose(1, 0, 2),
        8: np.rot90(image, -1),
    }[orientation]
    return np.ascontiguousarray(stored)


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.JPG", "a.png", "a.webp", "a.bmp", "a.tif"])
def test_every_format_is_read(tmp_path: Path, name: str) -> None:
    frames = read_frames(write_photo(tmp_path / name, numbered(37)))
    assert number_of(frames.images[0]) == 37
    assert frames.images.shape == (1, SIZE[1], SIZE[0], 3)
    assert frames.names == (name,)
    assert frames.timestamps.tolist() == [0.0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_honoured(file_format: str, orientation: int) -> None:
    upright = numbered(0b01110010)
    upright[:30] = (255, 0, 0)  # a red sky tells up from down
    stored = Image.fromarray(as_displayed(upright, orientation))
    data = saved(stored, file_format, exif=exif(orientation), quality=95)
    image = decode_image(data, "a", FULL)
    assert np.abs(image.astype(int) - upright).mean() < 6


def test_a_large_jpeg_is_folded_while_decoding_and_still_upright() -> None:
    upright = numbered(0b10110001, (1280, 960))
    data = saved(Image.fromarray(as_displayed(upright, 6)), "JPEG", exif=exif(6))
    image = decode_image(data, "a.jpg", 300)
    assert image.shape == (225, 300, 3)
    assert number_of(image) == 0b10110001


def test_heic_is_read_upright() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    upright = numbered(0b11010010, (320, 192))
    stream = io.BytesIO()
    stored = pillow_heif.from_pillow(Image.fromarray(as_displayed(upright, 8)))
    stored.save(stream, quality=90, exif=exif(8).tobytes())
    image = decode_image(stream.getvalue(), "IMG_1.HEIC", FULL)
    assert image.shape == upright.shape
    assert number_of(image) == 0b11010010


def test_heic_without_its_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InputError, match=r"a.heic, a HEIC photo.*pip install pillow-heif"):
        decode_image(b"\x00\x00\x00\x18ftypheic", "a.heic", FULL)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_transparency_lies_on_white(file_format: str) -> None:
    pixels = np.zeros((32, 48, 4), np.uint8)
    pixels[:, :24] = (200, 0, 0, 255)
    pixels[:, 24:] = (0, 0, 0, 128)
    pixels[:16, 24:, 3] = 0
    image = decode_image(saved(Image.fromarray(pixels), file_format, lossless=True), "a", FULL)
    assert image[0, 0].tolist() == [200, 0, 0]
    assert image[0, 40].tolist() == [255, 255, 255]
    assert image[31, 40].tolist() == [127, 127, 127]


def test_grey_and_sixteen_bits_become_rgb_bytes(tmp_path: Path) -> None:
    grey = np.full((32, 48), 90, np.uint8)
    deep = np.full((32, 48), 90 * 257, np.uint16)
    colour = np.stack([deep, deep // 2, deep // 3], -1)
    paths = [write_photo(tmp_path / f"{i}.png", pixels) for i, pixels in enumerate((grey, deep, colour))]
    images = read_frames(paths).images
    assert images[0, 5, 5].tolist() == images[1, 5, 5].tolist() == [90, 90, 90]
    assert images[2, 5, 5].tolist() == [90, 45, 30]


def test_palettes_and_print_colours_are_read() -> None:
    picture = Image.fromarray(numbered(9))
    assert number_of(decode_image(saved(picture.convert("P"), "PNG"), "p", FULL)) == 9
    assert number_of(decode_image(saved(picture.convert("CMYK"), "JPEG"), "c", FULL)) == 9
    assert number_of(decode_image(saved(picture.convert("LA"), "PNG"), "la", FULL)) == 9


def test_a_list_keeps_its_order_and_a_folder_takes_the_natural_one(tmp_path: Path) -> None:
    names = ["frame1.png", "frame10.png", "frame2.png"]
    paths = numbered_photos(tmp_path, names)
    assert [number_of(image) for image in read_frames(paths).images] == [0, 1, 2]
    frames = read_frames(tmp_path)
    assert frames.names == ("frame1.png", "frame2.png", "frame10.png")
    assert [number_of(image) for image in frames.images] == [0, 2, 1]
    assert frames.timestamps.tolist() == frames.indices.tolist() == [0, 1, 2]


def test_photos_are_sampled_over_the_whole_list_and_not_by_rate(tmp_path: Path) -> None:
    paths = numbered_photos(tmp_path, [f"{i}.jpg" for i in range(9)])
    assert read_frames(paths, max_frames=3).indices.tolist() == [0, 4, 8]
    assert len(read_frames(paths, fps=0.5)) == 9


def test_equal_names_from_two_folders_stay_apart(tmp_path: Path) -> None:
    paths = numbered_photos(tmp_path / "a", ["x.png"]) + numbered_photos(tmp_path / "b", ["x.png"])
    assert len(set(read_frames(paths).names)) == 2


def test_a_corrupt_picture_among_good_ones_is_named_and_left_out(tmp_path: Path) -> None:
    paths = numbered_photos(tmp_path, [f"{i}.jpg" for i in range(4)])
    paths[1].write_bytes(paths[1].read_bytes()[:500])
    paths[2].write_bytes(b"")
    frames = read_frames(paths)
    assert frames.indices.tolist() == [0, 3]
    assert [number_of(image) for image in frames.images] == [0, 3]
    note = next(note for note in frames.notes if "skipped" in note)
    assert note.startswith("2 skipped: ")
    assert "1.jpg" in note
    assert "2.jpg is an empty file" in note


def test_when_nothing_is_left_the_first_fault_is_told(tmp_path: Path) -> None:
    paths = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for path in paths:
        path.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"None of the 2 pictures could be read; the first: a.jpg cannot be read"):
        read_frames(paths)
    with pytest.raises(InputError, match=r"^a.jpg cannot be read as a picture.*export it again"):
        read_frames(paths[0])


def test_odd_sizes_are_cropped_to_the_majority(tmp_path: Path) -> None:
    paths = numbered_photos(tmp_path, ["0.png", "1.png", "2.png"])
    tall = np.full((400, 200, 3), 80, np.uint8)
    tall[175:225] = 200  # the middle must survive
    paths.append(write_photo(tmp_path / "3.png", tall))
    frames = read_frames(paths)
    assert frames.images.shape == (4, SIZE[1], SIZE[0], 3)
    assert [number_of(image) for image in frames.images[:3]] == [0, 1, 2]
    assert frames.images[3, SIZE[1] // 2].mean() > 190
    assert frames.images[3, 0].mean() < 90
    assert any("1 of 4 pictures" in note and "3.png" in note for note in frames.notes)


def test_a_ten_pixel_picture_is_too_small(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dot.png is 10x10 pixels, too small.*16 pixels or more"):
        read_frames(write_photo(tmp_path / "dot.png", np.zeros((10, 10, 3), np.uint8)))


@pytest.mark.parametrize(
    ("side", "said"), [(60_000, "is 60000x60000 pixels: at most .* export a smaller"), (15_000, "it is damaged")]
)
def test_a_header_that_asks_for_gigabytes_is_not_believed(side: int, said: str) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6)))
    tracemalloc.start()
    with pytest.raises(InputError, match=f"bomb.png .*{said}"):
        decode_image(png, "bomb.png", FULL)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2**20


def bmp_of(width: int, height: int) -> bytes:
    return b"BM" + bytes(12) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(26_000)


def tiff_of(width: int, height: int) -> bytes:
    """One strip of deflated zeros under a header that promises float32 RGBA of this size."""
    strip = zlib.compress(bytes(20 * 10**6), 9)
    tags = [(256, 4, width), (257, 4, height), (258, 3, 32), (259, 3, 8), (262, 3, 2), (273, 4, 8 + 2 + 12 * 9 + 4)]
    tags += [(277, 3, 4), (278, 4, height), (279, 4, len(strip))]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + strip


@pytest.mark.parametrize("make", [bmp_of, tiff_of])
@pytest.mark.parametrize(("side", "said"), [(17_000, "at most"), (15_900, "it is damaged")])
def test_wide_pixels_are_not_promised_for_nothing(make: Callable[[int, int], bytes], side: int, said: str) -> None:
    data = make(side, side)
    assert len(data) < 50_000
    assert image_size(data) == (side, side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=said):
        decode_image(data, "bomb.tif", FULL)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


@pytest.mark.parametrize("data", [b"AVIF", bytes(64), b"P6\n9999 9999\n255\n", b"#?RADIANCE\n", b"II*\0" + 4 * b"\xff"])
def test_what_tells_no_size_is_not_opened(data: bytes) -> None:
    with pytest.raises(InputError, match=r"x\.png cannot be read as a picture"):
        decode_image(data, "x.png", FULL)


def test_avif_is_named() -> None:
    with pytest.raises(InputError, match=r"x\.png is an AVIF picture.*JPEG"):
        decode_image(b"\0\0\0\x20ftypavif" + bytes(64), "x.png", FULL)


@pytest.mark.parametrize("file_format", ["BMP", "TIFF"])
def test_plain_formats_tell_the_size(file_format: str) -> None:
    data = saved(Image.fromarray(numbered(1, (123, 45))), file_format)
    assert image_size(data) == (123, 45)
    for length in range(0, min(len(data), 400), 7):
        assert image_size(data[:length]) in (None, (123, 45))


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": exif(6)}, {"progressive": True}])
def test_headers_tell_the_size(file_format: str, options: dict[str, object]) -> None:
    data = saved(Image.fromarray(numbered(1, (123, 45))), file_format, **options)
    assert image_size(data) == (123, 45)
    for length in range(0, min(len(data), 400), 7):
        assert image_size(data[:length]) in (None, (123, 45))


@pytest.mark.parametrize("order", ["II", "MM"])
def test_broken_exif_means_upright(order: str) -> None:
    mark = order.encode()
    little = order == "II"
    head = mark + (b"*\x00\x08\x00\x00\x00\x01\x00" if little else b"\x00*\x00\x00\x00\x08\x00\x01")
    entry = struct.pack(("<" if little else ">") + "HHIHH", 0x0112, 3, 1, 6, 0)
    assert exif_orientation(head + entry) == 6
    assert exif_orientation(b"Exif\x00\x00" + head + entry) == 6
    assert exif_orientation(head + entry.replace(b"\x06", b"\x63")) == 1
    for length in range(len(head + entry) - 1):
        assert exif_orientation((head + entry)[:length]) == 1


def test_describing_tells_the_upright_size(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(saved(Image.fromarray(numbered(5)), "JPEG", exif=exif(6)))
    (tmp_path / "b.jpg").write_bytes(b"broken")
    info = describe_source(tmp_path)
    assert (info.kind, info.frame_count, info.fps, info.duration_s) == ("folder", 2, None, None)
    assert (info.width, info.height) == (SIZE[1], SIZE[0])
