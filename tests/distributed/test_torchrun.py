"""The command line under torchrun: the same answers as alone, and one sentence when a rank fails."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from spark3r.reconstruction import Reconstruction
from tests.media import numbered_video

ROOT = Path(__file__).parents[2]
SECONDS = 180.0


def torchrun(ranks: int, *command: str) -> subprocess.Popen[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        start, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finished(process: subprocess.Popen[str]) -> str:
    try:
        return process.communicate(timeout=SECONDS)[0]
    finally:
        process.kill()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty frames: three groups, the last one short."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    numbered_video(path, 50, (96, 72))
    return path


@pytest.fixture(scope="module")
def alone(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Reconstruction:
    out = tmp_path_factory.mktemp("alone") / "scene.npz"
    command = ["reconstruct", str(clip), "--dtype", "float32", "-o", str(out), "--quiet", "--schedule", "2x4"]
    subprocess.run([sys.executable, "-m", "spark3r", *command], cwd=ROOT, check=True, timeout=SECONDS)
    return Reconstruction.load(out)


def reconstruct(clip: Path, out: Path, *more: str) -> list[str]:
    return ["-m", "spark3r", "reconstruct", str(clip), "--dtype", "float32", "-o", str(out), "--schedule", "2x4", *more]


def same(one: Reconstruction, other: Reconstruction, frames: slice = slice(None)) -> None:
    assert np.array_equal(one.images[frames], other.images)
    assert np.array_equal(one.indices[frames], other.indices)
    for name in ("depth", "confidence", "world_from_camera", "intrinsics"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name)[frames], rtol=1e-4, atol=1e-5)


def test_two_ranks_write_what_one_writes(clip: Path, alone: Reconstruction, tmp_path: Path) -> None:
    out, facts = tmp_path / "scene.npz", tmp_path / "facts.json"
    printed = finished(torchrun(2, *reconstruct(clip, out, "--json", str(facts))))
    assert out.is_file(), printed
    same(alone, Reconstruction.load(out))
    ranks = json.loads(facts.read_text())["rows"][0]["ranks"]
    assert [rank["frames"] for rank in ranks] == [20, 30]
    assert all(sum(rank["received_bytes"].values()) > 0 for rank in ranks)


def test_each_rank_keeps_its_own_frames(clip: Path, alone: Reconstruction, tmp_path: Path) -> None:
    printed = finished(torchrun(2, *reconstruct(clip, tmp_path / "scene.npz", "--shards")))
    assert not (tmp_path / "scene.npz").exists()
    for rank, frames in enumerate((slice(0, 20), slice(20, 50))):
        assert (tmp_path / f"scene.{rank:04d}.npz").is_file(), printed
        same(alone, Reconstruction.load(tmp_path / f"scene.{rank:04d}.npz"), frames)


def test_more_ranks_than_groups(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "scene.npz"
    printed = finished(torchrun(3, *reconstruct(clip, out, "--max-frames", "1")))
    assert out.is_file(), printed
    assert len(Reconstruction.load(out)) == 1


def test_a_clip_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    process = torchrun(2, *reconstruct(bad, tmp_path / "scene.npz"))
    printed = finished(process)
    assert process.returncode != 0
    assert printed.count("spark3r: bad.mp4 is neither a video") == 1
    assert "rank" not in printed.split("spark3r: ")[1].splitlines()[0]


def test_a_killed_rank_ends_all_within_seconds_and_is_named(tmp_path: Path) -> None:
    clip = ROOT / "assets" / "clips" / "long_walk"
    process = torchrun(3, *reconstruct(clip, tmp_path / "scene.npz", "--schedule", "off")[:-2])
    victim = _rank_at_work(process.pid, rank=2)
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    printed = finished(process)
    assert time.monotonic() - killed < 30
    assert process.returncode != 0
    assert printed.count("spark3r: rank 2 failed: it is gone") == 1, printed
    assert list(tmp_path.iterdir()) == []


def _rank_at_work(launcher: int, rank: int) -> int:
    """The process of a rank, once it has joined: it has then used a few seconds of processor time."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                status, environment = (folder / "status").read_text(), (folder / "environ").read_bytes()
                ticks = (folder / "stat").read_text().rpartition(")")[2].split()[11]
            except OSError:
                continue
            is_it = f"PPid:\t{launcher}\n" in status and f"\0RANK={rank}\0".encode() in b"\0" + environment
            if is_it and int(ticks) > 3 * os.sysconf("SC_CLK_TCK"):
                return int(folder.name)
        time.sleep(0.2)
    raise AssertionError("no rank came to work")
