"""Whatever is in a file, its reader answers with what it reads, or with one sentence.

A bounded search in the ordinary tests; `SPARK3R_FUZZ_EXAMPLES=20000 python -m pytest tests/fuzz` looks further.
"""

import io
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spark3r.errors import InputError
from spark3r.frames import read_frames
from spark3r.frames.exif import exif_orientation, orientation_of
from spark3r.frames.image import decode_image, image_size
from spark3r.models.checkpoints import load_model
from spark3r.models.config import config_to_json
from spark3r.models.families.mini import MINI_CONFIG
from spark3r.reduction.schedule import ReductionSchedule
from tests.fuzz.pictures import samples

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("SPARK3R_FUZZ_EXAMPLES", "150"))
bounded = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))  # pyright: ignore[reportArgumentType]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(["query_factor", "kv_factor", "group_size", "kv_boost", "sensitive_layers", "policy", "x"])


def one_sentence(error: InputError) -> None:
    """A person reads it in one line, without a word of Python's."""
    assert str(error)
    assert "\n" not in str(error).strip()
    assert "Traceback" not in str(error)


@bounded
@given(st.text(max_size=40) | st.dictionaries(fields, values, max_size=6).map(json.dumps))
def test_schedules(text: str) -> None:
    try:
        schedule = ReductionSchedule.from_json(text)
    except InputError as error:
        one_sentence(error)
    else:
        assert ReductionSchedule.from_json(schedule.to_json()) == schedule


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5_000, '{"sensitive_layers": [[1]]}', '{"policy": {}}'])
def test_schedules_beyond_reason(text: str) -> None:
    with pytest.raises(InputError) as caught:
        ReductionSchedule.from_json(text)
    one_sentence(caught.value)


CONFIG = json.loads(config_to_json(MINI_CONFIG))


@bounded
@given(st.dictionaries(st.sampled_from(sorted(CONFIG)), values, max_size=3) | values)
def test_checkpoint_metadata(tmp_path_factory: pytest.TempPathFactory, changed: object) -> None:
    text = json.dumps({**CONFIG, **changed} if isinstance(changed, dict) else changed)
    header = json.dumps({"__metadata__": {"config": text}}).encode()
    path = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(InputError) as caught:  # it holds no weights, whatever it says
        load_model(str(path), "cpu", "float32")
    one_sentence(caught.value)


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """A sound file with some bytes replaced and its end cut off."""
    place = st.integers(0, min(len(data), 600) - 1)
    return st.builds(
        lambda changes, keep: _changed(data, changes)[: max(1, round(keep * len(data)))],
        st.lists(st.tuples(place, st.integers(0, 255)), max_size=6),
        st.floats(0.05, 1.0) | st.just(1.0),
    )


def _changed(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    altered = bytearray(data)
    for place, value in changes:
        altered[place] = value
    return bytes(altered)


@bounded
@given(st.sampled_from(samples()).flatmap(lambda sample: st.tuples(st.just(sample[0]), mutated(sample[1]))))
def test_pictures(named: tuple[str, bytes]) -> None:
    name, data = named
    image_size(data)
    try:
        pixels = decode_image(data, name, 512)
    except InputError as error:
        one_sentence(error)
    else:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        assert max(pixels.shape) <= 512


@bounded
@given(st.binary(max_size=200))
def test_orientations(block: bytes) -> None:
    assert 1 <= exif_orientation(block) <= 8
    for start in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"II*\0"):
        assert 1 <= orientation_of(start + block) <= 8


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in samples()[:3]:
            file.writestr(name, data)
    return stream.getvalue()


@settings(bounded, max_examples=EXAMPLES // 3)
@given(mutated(archive()))
def test_archives(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "fuzzed.zip"
    path.write_bytes(data)
    try:
        frames = read_frames(path, resolution=64)
    except InputError as error:
        one_sentence(error)
    else:
        assert 1 <= len(frames) <= 3
