"""`python -m spark3r`: exit codes, one-line errors, tables and JSON."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import spark3r.commands.compare
from spark3r.__main__ import main
from spark3r.commands.options import RunOptions, UsageError
from spark3r.commands.report import table
from spark3r.examples import footage_note, list_clips
from spark3r.formatting import factor
from spark3r.models.checkpoints import load_model
from spark3r.reconstruction import Reconstruction
from spark3r.reduction import ReductionSchedule
from tests.analytic import room_walk


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip folder with four frames and their truth."""
    folder = tmp_path_factory.mktemp("clips") / "room"
    (folder / "rgb").mkdir(parents=True)
    for index, image in enumerate(np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)):
        cv2.imwrite(str(folder / "rgb" / f"{index:06d}.png"), image)
    depth, cameras, intrinsics = room_walk(4, 48, 64)
    np.savez(folder / "truth.npz", depth=depth, world_from_camera=cameras, intrinsics=intrinsics)
    return folder


@pytest.fixture
def flags(untrained: Path) -> list[str]:
    return ["--model", str(untrained), "--device", "cpu", "--dtype", "float32", "--resolution", "64"]


def test_reconstruct_writes_the_scene_and_tells_the_cost(clip, flags, tmp_path, capsys):
    target = tmp_path / "out" / "scene.npz"
    assert main(["reconstruct", str(clip / "rgb"), "-o", str(target), *flags, "--query-factor", "2"]) == 0
    scene = Reconstruction.load(target)
    assert len(scene) == 4
    assert scene.schedule.query_factor == 2
    printed = capsys.readouterr()
    assert "global attention" in printed.out
    assert "queries 2→1" in printed.out
    assert not printed.err


def test_reconstruct_checks_the_suffix_before_any_work(clip, capsys):
    assert main(["reconstruct", str(clip / "rgb"), "-o", "scene.obj", "--model", "no such model"]) == 1
    assert ".glb, .ply" in capsys.readouterr().err


@pytest.mark.slow
def test_compare_prints_a_table_and_writes_the_same_as_json(clip, flags, tmp_path, capsys):
    target = tmp_path / "comparison.json"
    assert main(["compare", str(clip), *flags, "--query-factor", "2", "--kv-factor", "2", "--json", str(target)]) == 0
    printed = capsys.readouterr().out
    content = json.loads(target.read_text())
    for word in ("dense", "reduced", "factor", "aggregator", "total", "against truth", "float32", "64×48", "torch"):
        assert word in printed
    assert [row["policy"] for row in content["rows"]] == ["dense", "spark3r"]
    assert factor(content["rows"][1]["speedup_total"]) in printed
    assert set(content["truth"]) == {"dense", "reduced"}


@pytest.mark.slow
def test_json_on_standard_output_stands_alone(clip, flags, capsys):
    assert main(["compare", str(clip / "rgb"), *flags, "--json", "-", "--max-frames", "2"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["rows"][0]["frames"] == 2


def test_evaluate_scores_the_model_beside_the_trivial_baseline(clip, flags, tmp_path, capsys):
    target = tmp_path / "scores.json"
    assert main(["evaluate", str(clip), str(clip), *flags, "--schedule", "off", "--json", str(target)]) == 0
    assert capsys.readouterr().out.count("constant depth, standing still") == 2 * 2  # scores, matched features
    content = json.loads(target.read_text())
    keys = """clip model policy query_factor kv_factor frames abs_rel delta_1_25 ate ate_relative rotation_deg
        auc_3 auc_30 accuracy completeness normal_consistency epipolar_px below_1px below_2px below_4px reprojection_px
        matches"""
    assert list(content["rows"][0]) == keys.split()
    assert content["rows"][0]["clip"] == "room"
    assert content["baselines"][0]["abs_rel"] == pytest.approx(0.35, abs=0.2)


def test_evaluate_without_truth_is_a_sentence(clip, flags, capsys):
    assert main(["evaluate", str(clip / "rgb"), *flags]) == 1
    error = capsys.readouterr().err
    assert error.startswith("spark3r: ")
    assert "truth.npz" in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_models_lists_licences(tmp_path, capsys):
    target = tmp_path / "models.json"
    assert main(["models", "--frames", "2", "--json", str(target)]) == 0
    told = capsys.readouterr().out
    assert max(len(line) for line in told.split("\n\n")[0].splitlines()) <= 80
    rows = json.loads(target.read_text())["rows"]
    assert rows[0]["name"] == "mini"
    for row in rows:
        line = next(line for line in told.splitlines() if line.startswith(f"{row['name']} "))
        assert line.endswith("no" if "non-commercial" in row["weights_licence"].lower() else "yes")
        assert ("CPU" in line) is row["suits_cpu"]
        assert f"code: {row['code_licence']}" in told
        assert f"weights: {row['weights_licence']}" in told
    assert [row["name"] for row in rows if "recommended step up" in row["note"]] == ["da3-small", "da3-base"]


def test_the_bundled_model_recommends_another_for_real_footage(clip, tmp_path, capsys):
    command = ["reconstruct", str(clip / "rgb"), "-o", str(tmp_path / "scene.npz"), "--resolution", "64", "--json", "-"]
    assert main([*command, "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    note = footage_note("mini", clip / "rgb")
    assert printed.err == f"note: {note}\n"
    assert json.loads(printed.out)["notes"] == [note]
    assert note.count(". ") == 0
    assert "da3-small" in note
    assert "vggt" in note
    assert main([*command, "--device", "cpu", "--quiet"]) == 0
    assert not capsys.readouterr().err


def test_nothing_is_recommended_where_the_bundled_model_is_at_home(clip):
    rendered = list_clips()[0]
    for source in (rendered.folder, rendered.video, str(rendered.video)):
        assert footage_note("mini", source) == ""
    assert footage_note("da3-small", clip) == ""
    assert footage_note("/some/file.safetensors", clip) == ""
    assert footage_note("mini", [rendered.video]) != ""  # photos


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["compare", "/no/such/clip"], 1),
        (["evaluate"], 2),
        (["compare", "clip", "--schedule", "auto", "--kv-factor", "2"], 2),
        (["compare", "clip", "--policy", "uniform", "--kv-factor", "2"], 2),
        (["compare", "clip", "--query-factor", "0"], 2),
        (["reconstruct", "clip", "-o", "x.ply", "--min-confidence-percentile", "101"], 2),
        (["reconstruct", "clip", "-o", "x.ply", "--min-confidence-percentile", "nan"], 2),
        (["reconstruct", "clip", "-o", "x.ply", "--max-points", "0"], 2),
        (["reconstruct", "clip", "-o", "/dev/null/x.ply"], 1),
        (["reconstruct", "clip", "-o", "x" * 300 + ".ply"], 1),
        (["compare", "clip", "--json", "/dev/full"], 1),
        (["compare", "clip", "--json", "/"], 1),
        (["evaluate", "clip", "--json", __file__], 1),
        (["compare", "clip", "--json", "x" * 300], 1),
        (["probe", "clip", "-o", __file__], 1),
        (["benchmark", "--chart", "/dev/null"], 1),
    ],
)
def test_failures_are_one_line(arguments, code, flags, capsys):
    assert main([*arguments, *flags]) == code
    printed = capsys.readouterr()
    assert printed.err.startswith("spark3r: ")
    assert printed.err.count("\n") == 1
    assert not printed.out


@pytest.mark.parametrize("arguments", [["compare"], ["no-such-command"], ["compare", "clip", "--query-factor", "two"]])
def test_flags_that_do_not_parse_exit_with_two(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    capsys.readouterr()


def test_interruption_is_quiet(clip, flags, monkeypatch, capsys):
    def interrupted(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(spark3r.commands.compare, "compare", interrupted)
    assert main(["compare", str(clip), *flags]) == 130
    assert capsys.readouterr().err.strip() == ""


def test_interruption_while_packages_are_loaded_is_quiet(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("spark3r.__main__.require", interrupted)
    assert main(["models"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_the_module_runs_as_a_program():
    finished = subprocess.run(
        [sys.executable, "-m", "spark3r", "compare", "/no/such/clip", "--model", "/no/such/model.safetensors"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert finished.returncode == 1
    assert finished.stderr.startswith("spark3r: ")
    assert "Traceback" not in finished.stderr


def test_factors_use_the_models_sensitive_layers_and_one_left_out_is_off(untrained):
    network = load_model(untrained, "cpu", "float32")
    sensitive = network.config.sensitive_layers
    both = RunOptions(query_factor=2, kv_factor=8).reduction(10, network)
    assert both == ReductionSchedule(2, 8, sensitive_layers=sensitive)
    queries_only = RunOptions(query_factor=2).reduction(10, network)
    assert all(queries_only.at(layer).kv_factor == 1 for layer in range(40))
    assert RunOptions(query_factor=1, kv_factor=1).reduction(10, network).is_off
    assert RunOptions(schedule="off").reduction(1000, network).is_off
    assert RunOptions().reduction(500, network) == ReductionSchedule.auto(500, sensitive)
    assert RunOptions(query_factor=4, policy="uniform").reduction(10, network).policy == "uniform"


def test_a_schedule_file_is_read_exactly(untrained, tmp_path):
    network = load_model(untrained, "cpu", "float32")
    schedule = ReductionSchedule(3, 7, group_size=9, kv_boost=2, sensitive_layers=(1, 4))
    (tmp_path / "schedule.json").write_text(schedule.to_json())
    assert RunOptions(schedule=str(tmp_path / "schedule.json")).reduction(10, network) == schedule


def test_contradicting_flags_are_told_before_any_work():
    with pytest.raises(UsageError, match="exclude"):
        RunOptions(schedule="off", query_factor=2).check()


def test_tables():
    assert table([("a", "1.5"), ("long", "10")], ("x", "y")) == "x       y\n─────────\na     1.5\nlong   10"


@pytest.mark.slow
@pytest.mark.checkout  # reports need packages of the page
def test_compare_writes_a_report_with_its_own_command(clip, flags, tmp_path, capsys):
    target = tmp_path / "report.html"
    chosen = ["--repeats", "1", "--query-factor", "2", "--quiet"]
    assert main(["compare", str(clip), *flags, *chosen, "--report", str(target)]) == 0
    page = target.read_text(encoding="utf-8")
    assert "--query-factor 2" in page
    assert "--repeats 1" in page
    assert "--report" not in page.split("<h2>Command</h2>")[1].split("</pre>")[0]
    assert page.count("__VISER_EMBED_DATA__=") == 2
    capsys.readouterr()
    for unusable in (["--report", str(tmp_path / "report.pdf")], ["--sweep", "--report", str(target)]):
        assert main(["compare", str(clip), "--model", "no such model", *unusable]) != 0
        assert "--report" in capsys.readouterr().err
