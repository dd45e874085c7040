"""torchrun itself: one sentence when a rank is killed, and two machines."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spark3r.installation import assets
from spark3r.reconstruction import Reconstruction

ROOT = Path(__file__).parents[2]
SECONDS = 180.0


def torchrun(ranks: int, *command: str) -> subprocess.Popen[str]:
    return torchrun_node("--standalone", f"--nproc-per-node={ranks}", *command)


def torchrun_node(*command: str) -> subprocess.Popen[str]:
    start = [sys.executable, "-m", "torch.distributed.run", *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        start, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def can_make_namespaces() -> bool:
    """Tried: a container may be root and yet not be allowed to."""
    ip, name = shutil.which("ip"), "spark3r-probe"
    if ip is None or os.geteuid() != 0 or subprocess.run([ip, "netns", "add", name], capture_output=True).returncode:
        return False
    subprocess.run([ip, "netns", "del", name], check=True)
    return True


def finished(process: subprocess.Popen[str]) -> str:
    try:
        return process.communicate(timeout=SECONDS)[0]
    finally:
        process.kill()


def reconstruct(clip: Path, out: Path, *more: str) -> list[str]:
    return ["-m", "spark3r", "reconstruct", str(clip), "-o", str(out), *more]


@pytest.mark.slow
def test_a_killed_rank_ends_all_within_seconds_and_is_named(tmp_path: Path) -> None:
    clip = assets("clips") / "long_walk"
    process = torchrun(2, *reconstruct(clip, tmp_path / "scene.npz", "--schedule", "off"))
    victim = _rank_at_work(process.pid, rank=1)
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    printed = finished(process)
    assert time.monotonic() - killed < 30
    assert process.returncode != 0
    assert printed.count("spark3r: rank 1 failed: it is gone") == 1, printed
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


@pytest.mark.slow
def test_two_machines_share_a_clip(tmp_path: Path) -> None:
    """Two torchruns, started as docs/distributed.md says: in two network namespaces, else on the loopback."""
    clip, out = assets("clips") / "long_walk", tmp_path / "scene.npz"
    words = reconstruct(clip, out, "--max-frames", "40", "--resolution", "64", "--quiet")
    printed = (on_two_networks if can_make_namespaces() else on_one)(*words)
    assert out.is_file(), printed
    assert [rank.frames for rank in Reconstruction.load(out).cost.ranks] == [20, 20]


def on_one(*words: str) -> list[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}"]
    return [finished(node) for node in [torchrun_node(*meeting, f"--node-rank={node}", *words) for node in (0, 1)]]


def on_two_networks(*words: str) -> str:
    done = subprocess.run(
        [ROOT / "tests" / "distributed" / "two_machines.sh", *words], cwd=ROOT, capture_output=True, text=True,
        timeout=SECONDS, env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
