"""Results and pictures of other ranks pass through rank 0 to the file: it never holds all of them in its memory."""

from pathlib import Path

import numpy as np
import pytest

from spark3r.reconstruction import Reconstruction
from tests.distributed.nursery import Nursery

pytestmark = pytest.mark.slow

MIB = 1 << 20


@pytest.mark.parametrize("suffix", [".npz", ".ply", ".glb"])
def test_rank_0_never_holds_all_frames(suffix: str, nursery: Nursery, tmp_path: Path) -> None:
    """Of 192 MiB that arrive, a few at a time are in memory that is this process's own; the rest is the file's, which
    the system drops from memory when it needs room."""
    out, grown = tmp_path / f"scene{suffix}", tmp_path / "grown"
    ended = nursery.run("streamed", 2, frames=64, out=str(out), grown=str(grown))
    assert ended.codes == [0, 0], ended
    received, peak = map(int, grown.read_text().split())
    assert received > 160 * MIB
    assert peak < 64 * MIB
    if suffix == ".npz":
        scene = Reconstruction.load(out)
        assert len(scene) == 64
        assert np.array_equal(scene.depth[:, 0, 0], np.arange(1, 65, dtype=np.float32))
