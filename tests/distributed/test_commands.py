"""The command line on ranks: the same answers as alone."""

import json
from pathlib import Path

import numpy as np
import pytest

from spark3r.models.families.mini import MINI_CONFIG
from spark3r.reconstruction import Reconstruction
from spark3r.reduction import ReductionSchedule
from spark3r.tokens import TokenLayout
from tests.distributed.nursery import Nursery
from tests.media import numbered_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty frames: three groups, the last one short."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    numbered_video(path, 50, (96, 72))
    return path


def reconstruct(nursery: Nursery, ranks: int, clip: Path, out: Path, *more: str) -> str:
    """What was printed."""
    words = ["reconstruct", str(clip), "--dtype", "float32", "--resolution", "64", "-o", str(out), "--quiet"]
    # no queries are merged: these pictures have patches that are equally similar, and rounding decides between them
    ended = nursery.run("command", ranks, arguments=[*words, "--schedule", "1x4", *more])
    assert not any(ended.codes), ended
    return ended.printed[0]


@pytest.fixture(scope="module")
def alone(nursery: Nursery, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Reconstruction:
    out = tmp_path_factory.mktemp("alone") / "scene.npz"
    reconstruct(nursery, 1, clip, out)
    return Reconstruction.load(out)


def same(one: Reconstruction, other: Reconstruction, frames: slice = slice(None)) -> None:
    assert np.array_equal(one.images[frames], other.images)
    assert np.array_equal(one.indices[frames], other.indices)
    for name in ("depth", "confidence", "world_from_camera", "intrinsics"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name)[frames], rtol=1e-4, atol=1e-5)


def test_two_ranks_write_what_one_writes(nursery: Nursery, clip: Path, alone: Reconstruction, tmp_path: Path) -> None:
    out, facts = tmp_path / "scene.npz", tmp_path / "facts.json"
    reconstruct(nursery, 2, clip, out, "--json", str(facts))
    same(alone, Reconstruction.load(out))
    ranks = json.loads(facts.read_text())["rows"][0]["ranks"]
    assert [rank["frames"] for rank in ranks] == [20, 30]
    assert all(sum(rank["received_bytes"].values()) > 0 for rank in ranks)


def test_each_rank_keeps_its_own_frames(nursery: Nursery, clip: Path, alone: Reconstruction, tmp_path: Path) -> None:
    reconstruct(nursery, 2, clip, tmp_path / "scene.npz", "--shards")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.0000.npz", "scene.0001.npz"]
    for rank, frames in enumerate((slice(0, 20), slice(20, 50))):
        same(alone, Reconstruction.load(tmp_path / f"scene.{rank:04d}.npz"), frames)


def test_more_ranks_than_groups(nursery: Nursery, clip: Path, tmp_path: Path) -> None:
    reconstruct(nursery, 3, clip, tmp_path / "scene.npz", "--max-frames", "1")
    assert len(Reconstruction.load(tmp_path / "scene.npz")) == 1


def test_a_clip_that_cannot_be_read_at_all_names_no_rank(nursery: Nursery, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    ended = nursery.run("command", 2, arguments=["reconstruct", str(bad), "-o", str(tmp_path / "scene.npz")])
    assert ended.codes == [1, 0]
    assert len(ended.said) == 1
    assert ended.said[0].startswith("spark3r: bad.mp4 is neither a video")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips, of which the second cannot be read."""
    folder = tmp_path_factory.mktemp("clips")
    for name in ("a", "c"):
        numbered_video(folder / f"{name}.mp4", 22, (64, 64))
    (folder / "b.mp4").write_bytes(b"no video")
    return folder


@pytest.mark.parametrize("more", [(), ("--spread",)], ids=["every clip shared", "each rank its own"])
def test_a_batch_on_ranks(nursery: Nursery, clips: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    """As torchrun does, the others are ended when a rank ends with an error: rank 1, which alone has a clip that fails,
    must wait for rank 0."""
    words = ["batch", str(clips), "-o", str(tmp_path), "--resolution", "64", "--quiet", *more]
    ended = nursery.run("command", 2, ends=True, arguments=words)
    assert sorted(ended.codes) == [0, 1], ended
    assert sorted(path.stem for path in tmp_path.glob("*.npz")) == ["a", "c"], ended
    lines = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert ["error" in line for line in sorted(lines, key=lambda line: line["clip"])] == [False, True, False]
    assert {len(line.get("ranks", ())) for line in lines} == ({0} if more else {0, 2})


@pytest.mark.checkout  # the page and its tests need packages of their own
def test_the_page_runs_stops_and_fails_on_ranks_and_goes_on(nursery: Nursery, clip: Path, tmp_path: Path) -> None:
    ended = nursery.run("page", 2, clip=str(clip), told=str(tmp_path / "told.json"))
    assert ended.codes == [0, 0], ended
    told = json.loads((tmp_path / "told.json").read_text())
    stopped, failed, done = told["phases"]
    assert stopped[0] == "stopped"
    assert failed == ["failed", "rank 1 could not read its part: not this time"]
    assert done[0] == "done", done
    assert told["ranks"] == [[11, 12], [20, 3]]  # dense runs are split by single frames


def test_a_benchmark_tells_what_travels(nursery: Nursery, tmp_path: Path) -> None:
    facts, frames, tokens, width = tmp_path / "facts.json", 23, 2 + 3 * 4, 192  # special ones and patches of 16 pixels
    words = ["benchmark", "--random-weights", "--dtype", "float32", "--frames", "23", "--repeats", "1", "--quiet"]
    words += ["--resolution", "64", "--schedule", "dense", "2x4", "--json", str(facts)]
    ended = nursery.run("command", 2, arguments=words)
    assert not any(ended.codes), ended
    dense, reduced = json.loads(facts.read_text())["rows"]
    assert [rank["frames"] for rank in dense["ranks"]] == [11, 12]
    blocks = dense["sharing"]["blocks"]
    assert {block["scope"] for block in blocks} == {"global"}
    assert len(blocks) == 6
    assert {block["received_bytes"] for block in blocks} == {2 * frames * tokens * width * 4}  # keys and values of all
    schedule = ReductionSchedule.parse("2x4", frames, MINI_CONFIG.sensitive_layers)
    whole = TokenLayout(frames, 2, (3, 4), reference=frames // 2)
    for layer, block in enumerate(reduced["sharing"]["blocks"]):
        kept = max(schedule.token_counts(whole.part(*part), layer)[1] for part in ((0, 20), (20, 23)))
        places = block["received_bytes"] - 2 * kept * width * 4  # tokens, not yet keys and values; parts of one length
        assert 0 <= places < 0.02 * block["received_bytes"]
        assert block["waited_ms"] > 0
    stages = {stage["stage"] for stage in reduced["sharing"]["stages"]}
    assert {"global_attention", "results"} <= stages
    assert 1.0 <= reduced["sharing"]["balance"] <= 2.0
    assert "2x4, 23 frames: the busiest rank works" in ended.printed[0]
    assert "block 11 (global)" in ended.printed[0]
