"""`python -m spark3r models`: what a person is told, and the check against the official networks."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from spark3r.__main__ import main
from spark3r.estimate import needed_memory
from spark3r.models.registry import ENTRIES

BUNDLED = Path(__file__).parents[1] / "golden" / "parity"


def test_check_prints_one_row_per_oracle(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "pi3").mkdir()
    shutil.copy(BUNDLED / "pi3" / "tiny_s.safetensors", tmp_path / "pi3")
    shutil.copy(BUNDLED / "da3" / "tiny_s.safetensors", tmp_path / "da3.safetensors")
    assert main(["models", "--check", str(tmp_path), "--json", "-"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["model"], row["file"]) for row in rows] == [("da3", "da3.safetensors"), ("pi3", "tiny_s.safetensors")]
    for row in rows:
        assert set(row) == {"model", "file", "worst_e", "worst_r", "ok"}
        assert row["ok"] is True
        assert 0 < row["worst_e"] <= 2e-5


def test_check_fails_where_a_number_is_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with safe_open(BUNDLED / "pi3" / "tiny_s.safetensors", framework="pt") as file:
        values, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    values["out.conf"] = values["out.conf"] + 1e-3 * torch.rand_like(values["out.conf"])
    save_file(values, tmp_path / "pi3.safetensors", metadata)
    assert main(["models", "--check", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "FAILS" in shown.out
    assert "1 of 1 oracle files" in shown.err


@pytest.mark.slow
def test_the_list_tells_memory_for_the_chosen_frames(capsys: pytest.CaptureFixture[str]):
    assert main(["models", "--frames", "8", "--json", "-"]) == 0
    few = {row["name"]: row["needed_bytes"] for row in json.loads(capsys.readouterr().out)["rows"]}
    assert set(few) == set(ENTRIES)
    assert needed_memory("vggt", 100, 480, 640, dtype="bfloat16", device="cpu") > few["vggt"]
    assert few["da3-small"] < few["da3-base"] < few["vggt"]
