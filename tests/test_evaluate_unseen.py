"""`evaluate --unseen`: one path at every length, rows and means, confidence, and a training stream as it always was."""

import json
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from spark3r.__main__ import main
from spark3r.benchmark.unseen import BASELINE, BREADTH, FIRST_SEED, PATH_FRAMES, rendered_clip
from spark3r.metrics.confidence import BINS, STEP
from spark3r.reconstruction import USUAL_PERCENTILE
from spark3r.training.config import EXAMPLE_SEED, VALIDATION_SEED, TrainingConfig
from spark3r.training.scenes import paths, sequences

pytestmark = pytest.mark.slow


def test_a_denser_clip_walks_the_same_path() -> None:
    plan = sequences.plan(VALIDATION_SEED + 7, 32, 0.8)
    sparse, dense = plan.resampled(32).path, plan.resampled(120).path
    np.testing.assert_array_equal(sparse.world_from_camera(), plan.path.world_from_camera())
    np.testing.assert_array_equal(sparse.world_from_camera()[[0, -1]], dense.world_from_camera()[[0, -1]])
    step = np.linalg.norm(np.diff(sparse.position, axis=0), axis=1).max()
    away = np.linalg.norm(dense.position[:, None] - sparse.position[None], axis=-1).min(1)
    assert away.max() < step
    assert np.linalg.norm(np.diff(dense.position, axis=0), axis=1).max() < 0.5 * step


def test_the_light_goes_with_the_path() -> None:
    plan = sequences.plan(VALIDATION_SEED + 7, 32, 0.8)
    dense = plan.resampled(125)  # 4 steps for each of the 31
    np.testing.assert_allclose(dense.exposure[::4], plan.exposure)
    np.testing.assert_allclose(dense.balance[::4], plan.balance)
    assert dense.field_of_view == plan.field_of_view


def test_a_straight_course_stays_straight_and_one_frame_stays_one_view() -> None:
    time = np.linspace(0, 1, 9)
    line = np.stack([3 * time, 1 - time], -1)
    np.testing.assert_allclose(paths.resampled(line, 33)[:, 0], 3 * np.linspace(0, 1, 33))
    assert (paths.resampled(line[:1], 4) == line[0]).all()
    assert paths.resampled(line, 1).tolist() == [line[0].tolist()]


def test_training_clips_are_what_they_were() -> None:
    clips = sequences.sample(123456, 1, 6, 24, 32, breadth=0.63)
    first, last = clips.world_from_camera[0, [0, -1], :3, 3].tolist()
    assert first == pytest.approx([-1.1165093183517456, -0.14214353263378143, 1.615194320678711], rel=1e-6)
    assert last == pytest.approx([-0.2912434935569763, 0.06365104764699936, 1.6238377094268799], rel=1e-6)
    assert clips.intrinsics[0, 0, 0, 0].item() == pytest.approx(28.854398727416992, rel=1e-6)
    assert clips.images.mean().item() == pytest.approx(0.7578524947166443, rel=1e-4)
    assert clips.depth.mean().item() == pytest.approx(2.7020816802978516, rel=1e-4)


def test_unseen_seeds_are_neither_those_watched_while_training_nor_the_examples() -> None:
    watched = VALIDATION_SEED + TrainingConfig(Path()).validation_clips
    assert watched < FIRST_SEED < EXAMPLE_SEED


def test_a_rendered_clip_is_what_training_shows_in_bytes() -> None:
    images, truth = rendered_clip(sequences.plan(77, 4, 0.8), 77, 4, 24, 32)
    clips = sequences.sample(77, 1, 4, 24, 32, breadth=0.8)
    shown = clips.images[0].permute(0, 2, 3, 1).numpy()
    assert np.abs(images / 255 - shown).max() <= 0.5 / 255 + 1e-6
    np.testing.assert_array_equal(truth.depth, clips.depth[0].numpy())
    np.testing.assert_array_equal(truth.world_from_camera, clips.world_from_camera[0].numpy())


def test_the_filter_marked_lies_on_a_step() -> None:
    assert USUAL_PERCENTILE % STEP == 0


@pytest.fixture(scope="module")
def study(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """Two clips of 4 and 6 frames under two schedules, and the chart."""
    folder = tmp_path_factory.mktemp("unseen")
    target, chart = folder / "unseen.json", folder / "confidence.png"
    flags = ["--model", str(untrained), "--device", "cpu", "--dtype", "float32", "--resolution", "32"]
    lengths = ["--frames", "4", "6", "--schedule", "dense", "2x2"]
    assert main(["evaluate", "--unseen", "2", *lengths, *flags, "--json", str(target), "--chart", str(chart)]) == 0
    return json.loads(target.read_text()), chart


def test_a_row_for_every_clip_length_and_schedule_beside_the_trivial_baseline(study: tuple[dict, Path]) -> None:
    rows = study[0]["rows"]
    found = [(row["clip"] - FIRST_SEED, row["frames"], row["schedule"]) for row in rows]
    assert found == [
        (clip, frames, word) for clip in (0, 1) for frames in (4, 6) for word in ("dense", "2x2", BASELINE)
    ]
    assert {(row["query_factor"], row["kv_factor"]) for row in rows if row["schedule"] == "2x2"} == {(2, 2)}
    assert rows[0]["abs_rel"] != rows[6]["abs_rel"]


def test_the_summary_is_means_and_medians_of_the_rows(study: tuple[dict, Path]) -> None:
    content = study[0]
    assert len(content["summary"]) == 6
    for line in content["summary"]:
        same = [row for row in content["rows"] if all(row[key] == line[key] for key in ("frames", "schedule"))]
        assert len(same) == line["clips"] == 2
        assert line["mean"]["abs_rel"] == pytest.approx(fmean(row["abs_rel"] for row in same))
        assert line["median"]["rotation_deg"] == pytest.approx(np.median([row["rotation_deg"] for row in same]))


def test_confidence_is_pooled_over_clips(study: tuple[dict, Path]) -> None:
    content, chart = study
    assert [(row["frames"], row["schedule"]) for row in content["confidence"]] == [
        (4, "dense"), (4, "2x2"), (6, "dense"), (6, "2x2")
    ]  # fmt: skip
    for row in content["confidence"]:
        assert len(row["percentiles"]) == len(row["abs_rel"]) == BINS
        same = [
            each["abs_rel"]
            for each in content["rows"]
            if (each["frames"], each["schedule"]) == (row["frames"], row["schedule"])
        ]
        assert row["all"]["abs_rel"] == pytest.approx(fmean(same), rel=1e-6)
    assert chart.stat().st_size > 10_000


def test_the_answer_names_machine_command_and_seeds(study: tuple[dict, Path]) -> None:
    about = study[0]["machine"]
    assert about["first_seed"] == FIRST_SEED
    assert {"processor", "threads", "torch", "command", "model", "dtype", "seconds"} <= about.keys()


def test_longer_clips_of_one_seed_share_their_ends() -> None:
    plan = sequences.plan(FIRST_SEED, PATH_FRAMES, BREADTH)
    (_, short), (_, long) = (rendered_clip(plan, FIRST_SEED, frames, 12, 16) for frames in (3, 7))
    np.testing.assert_array_equal(short.world_from_camera[[0, -1]], long.world_from_camera[[0, -1]])
    np.testing.assert_allclose(short.depth[[0, -1]], long.depth[[0, -1]], rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "clip folders (before the flags) or --unseen"),
        (["clip", "--unseen", "2"], "clip folders (before the flags) or --unseen"),
        (["--schedule", "off", "clip"], "clip folders (before the flags) or --unseen"),
        (["--unseen", "0"], "1 or more"),
        (["--unseen", "2", "--frames", "0"], "1 or more"),
        (["--unseen", "2", "--max-frames", "4"], "--max-frames is for clip folders only"),
        (["clip", "--frames", "4"], "--frames is for --unseen only"),
        (["clip", "--chart", "c.png"], "--chart is for --unseen only"),
        (["--unseen", "2", "--schedule", "dense", "--kv-factor", "2"], "exclude each other"),
    ],
)
def test_flags_that_contradict_are_a_sentence(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *arguments, "--model", "no such model"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
