"""A stored truth that cannot be used is a sentence, not a traceback."""

import io
from pathlib import Path

import numpy as np
import pytest

from spark3r.errors import InputError
from spark3r.examples import load_truth

GOOD = {
    "depth": np.ones((2, 6, 8), np.float32),
    "world_from_camera": np.tile(np.eye(4, dtype=np.float32), (2, 1, 1)),
    "intrinsics": np.tile(np.eye(3, dtype=np.float32), (2, 1, 1)),
}


def stored(**changed: np.ndarray | None) -> bytes:
    """truth.npz with some arrays in place of the good ones, None leaving one out."""
    buffer = io.BytesIO()
    arrays = {name: array for name, array in {**GOOD, **changed}.items() if array is not None}
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def bare_array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, GOOD["depth"])
    return buffer.getvalue()


DAMAGED = {
    "empty": b"",
    "words": b"once upon a time",
    "cut": stored()[:200],
    "bent": stored()[:60] + bytes([stored()[60] ^ 255]) + stored()[61:],
    "one array": bare_array(),
    "no depth": stored(depth=None),
    "no cameras": stored(world_from_camera=None),
    "words for numbers": stored(depth=np.array(["near", "far"])),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_truth_is_a_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "truth.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"truth\.npz is damaged or holds no truth: must be a \.npz of depth, world"):
        load_truth(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"depth": np.float32(1)},
        {"depth": np.ones((2, 6), np.float32)},
        {"depth": np.ones((3, 6, 8), np.float32)},
        {"intrinsics": np.ones((2, 4, 4), np.float32)},
    ],
)
def test_wrong_shapes_are_named(changed: dict[str, np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "truth.npz").write_bytes(stored(**changed))
    with pytest.raises(InputError, match=r"truth\.npz holds a truth of shapes depth .*must be \[S, H, W\]"):
        load_truth(tmp_path)


def test_the_good_one_is_read(tmp_path: Path) -> None:
    (tmp_path / "truth.npz").write_bytes(stored())
    truth = load_truth(tmp_path, size=(3, 4))
    assert truth is not None
    assert truth.depth.shape == (2, 3, 4)
