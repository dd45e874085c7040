"""Page and command line are two ways to ask for the same thing: every number agrees for the same settings."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from spark3r.__main__ import main
from spark3r.compare import cost_row
from spark3r.frames import describe_source
from spark3r.models.checkpoints import save_checkpoint
from spark3r.models.config import ResizeRule
from spark3r.models.families.mini import MINI_CONFIG
from spark3r.models.network import build
from tests.viewer.conftest import Nobody
from viewer.engine import Engine
from viewer.job import Job
from viewer.request import Clip, RunRequest
from viewer.state import ReductionSettings, SamplingSettings

# What depends on the settings alone, and not on the moment.
SETTINGS = "name model policy query_factor kv_factor frames height width dtype device kernel"


@pytest.fixture(scope="module")
def cropping_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that crops portraits around their middle, as VGGT does."""
    path = tmp_path_factory.mktemp("weights") / "cropping.safetensors"
    save_checkpoint(build(dataclasses.replace(MINI_CONFIG, resize=ResizeRule(64, 16, "crop"))), path)
    return path


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of moving noise, higher than wide."""
    folder = tmp_path_factory.mktemp("portrait")
    noise = np.random.default_rng(0).integers(0, 255, (40, 14, 3), np.uint8)
    picture = cv2.resize(noise, (160, 480), interpolation=cv2.INTER_CUBIC)
    for index in range(5):
        cv2.imwrite(str(folder / f"{index}.png"), picture[10 * index : 10 * index + 320])
    return folder


def test_compare_and_page_agree_on_every_number(
    cropping_model: Path, portrait: Path, engine: Engine, tmp_path: Path
) -> None:
    flags = ["--model", str(cropping_model), "--query-factor", "2", "--kv-factor", "2", "--max-frames", "4"]
    assert main(["compare", str(portrait), *flags, "--quiet", "--json", str(tmp_path / "command.json")]) == 0
    command = json.loads((tmp_path / "command.json").read_text())
    request = RunRequest(
        Clip("portrait", (portrait,)),
        describe_source(portrait),
        SamplingSettings(4, 0.0, str(cropping_model), 0),
        ReductionSettings("manual", 2, 2, 20, 1, "spark3r"),
    )
    nobody = Nobody()
    job = Job(request, engine, nobody)
    job.work()
    assert job.report.phase == "done", job.report.message
    dense, reduced = nobody.runs.values()
    assert reduced.difference is not None
    assert reduced.difference.to_json() == command["difference"]
    for run, printed in ((dense, command["rows"][0]), (reduced, command["rows"][1])):
        assert run.fit is not None
        assert run.scene is not None
        assert run.fit.to_json() == command["consistency"][printed["name"]]
        shown = {**cost_row(run.scene, run.cost), "name": printed["name"]}
        assert {key: shown[key] for key in SETTINGS.split()} == {key: printed[key] for key in SETTINGS.split()}
        assert (printed["height"], printed["width"], printed["frames"]) == (64, 64, 4)
    assert reduced.against.arithmetic == command["rows"][1]["speedup_arithmetic"]
