"""Whatever happens to a rank, all end within seconds, one sentence names rank and cause, and nothing half is left."""

import json
from pathlib import Path

import pytest

from tests.distributed.nursery import Ended, Nursery
from tests.media import numbered_video

pytestmark = pytest.mark.slow

RUN_SECONDS = 60.0  # of a run with its end, on a busy machine; a collective alone would wait for ten minutes


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two groups of frames, as small as may be."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    numbered_video(path, 23, (64, 64))
    return path


def reconstruct(nursery: Nursery, clip: Path, out: Path, fault: str = "", at: int = -1, *more: str) -> Ended:
    words = ["reconstruct", str(clip), "--resolution", "64", "--quiet", "--schedule", "2x4", "-o", str(out), *more]
    return nursery.run("command", 2, RUN_SECONDS, arguments=words, fault=fault, at=at)


OUT_OF_MEMORY = "rank 1 failed: it ran out of memory: take fewer frames"
FATAL = {
    ("killed", 1): "rank 1 failed: it is gone: killed, out of memory, or its machine cannot be reached",
    ("killed", 0): "rank 0 failed: it is gone: killed, out of memory, or its machine cannot be reached",
    ("without memory", 1): OUT_OF_MEMORY,
    ("without memory", 0): OUT_OF_MEMORY.replace("1", "0"),
    ("without device memory", 1): OUT_OF_MEMORY,
    ("broken", 1): "rank 1 failed: KeyError: 'a mistake in the program'",
    ("other code", 1): "rank 1 has torch",
    ("other weights", 1): "rank 1 has weights",
    ("unreadable", 1): "rank 1 could not read its part: clip.mp4 breaks off at frame 21: copy it again",
    ("unreadable", 0): "rank 0 could not read its part: clip.mp4 breaks off at frame 21: copy it again",
}


@pytest.mark.parametrize(("fault", "at"), FATAL, ids=lambda value: str(value))
def test_a_fault_is_one_sentence(fault: str, at: int, nursery: Nursery, clip: Path, tmp_path: Path) -> None:
    ended = reconstruct(nursery, clip, tmp_path / "scene.npz", fault, at)
    assert len(ended.said) == 1, ended
    assert ended.said[0].startswith(f"spark3r: {FATAL[fault, at]}"), ended
    assert any(ended.codes), ended
    assert ended.seconds < RUN_SECONDS
    assert not any("Traceback" in text for text in ended.printed), ended
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_kept_where_one_rank_cannot_write(nursery: Nursery, clip: Path, tmp_path: Path) -> None:
    ended = reconstruct(nursery, clip, tmp_path / "scene.npz", "unwritable", 1, "--shards")
    assert ended.said == ["spark3r: rank 1 could not write its part: The disk is full"], ended
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_all_quietly(nursery: Nursery, clip: Path, tmp_path: Path) -> None:
    ended = reconstruct(nursery, clip, tmp_path / "scene.npz", "interrupted", 0)
    assert ended.codes == [130, 1], ended
    assert not any("Traceback" in text for text in ended.printed), ended
    assert list(tmp_path.iterdir()) == []


def test_a_follower_does_not_hear_ctrl_c(nursery: Nursery, clip: Path, tmp_path: Path) -> None:
    """It reaches every process of a terminal; rank 0 answers for all."""
    ended = reconstruct(nursery, clip, tmp_path / "scene.npz", "interrupted", 1)
    assert ended.codes == [0, 0], ended
    assert (tmp_path / "scene.npz").is_file()


def test_a_terminated_rank_ends_all(nursery: Nursery, clip: Path, tmp_path: Path) -> None:
    ended = reconstruct(nursery, clip, tmp_path / "scene.npz", "terminated", 1)
    assert ended.codes == [1, 1], ended
    assert len(ended.said) == 1, ended
    assert list(tmp_path.iterdir()) == []


def test_what_was_stopped_or_unreadable_hinders_nothing_after(nursery: Nursery, clip: Path, tmp_path: Path) -> None:
    """One group: a read that fails on rank 1, a run that is stopped on all, and then a whole one, whose progress is
    that of the rank furthest behind."""
    ended = nursery.run("stopped_then_whole", 2, RUN_SECONDS, clip=str(clip), told=str(tmp_path / "told.json"))
    assert ended.codes == [0, 0], ended
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["unreadable"] == "rank 1 could not read its part: not this time"
    assert told["stopped"] == ["Cancelled", "Cancelled"]
    assert told["read"][-1] == [23, 23]  # of the whole clip, not of rank 0's part
    assert told["frames"] == 23
    assert told["fractions"] == sorted(told["fractions"])
    assert max(told["while another was behind"]) <= 0.25
