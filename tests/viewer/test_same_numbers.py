"""Page and command line are two ways to ask for the same thing: every number agrees for the same settings."""

import dataclasses
import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

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
from viewer import address
from viewer.engine import Engine
from viewer.job import Job
from viewer.request import Clip, RunRequest
from viewer.runs import KeptRun
from viewer.state import ReductionSettings, SamplingSettings

pytestmark = pytest.mark.slow

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


def shown_by_the_page(source: Path, model: Path, reduction: ReductionSettings, engine: Engine) -> list[KeptRun]:
    request = RunRequest(
        Clip("portrait", (source,)), describe_source(source), SamplingSettings(4, 0.0, str(model), 0), reduction
    )  # fmt: skip
    nobody = Nobody()
    job = Job(request, engine, nobody)
    job.work()
    assert job.report.phase == "done", job.report.message
    return list(nobody.runs.values())


def said_by(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command that the page shows finds, run as a shell would run it in an empty folder."""
    monkeypatch.chdir(folder)
    *before, compare = command.split(" && ")
    for line in before:
        subprocess.run(["sh", "-c", line], check=True)
    python, module, name, *arguments = shlex.split(compare)
    assert (python, module, name) == ("python", "-m", "spark3r")
    assert main([*arguments, "--quiet", "--json", "command.json"]) == 0
    return json.loads((folder / "command.json").read_text())


@pytest.mark.parametrize("group_size", [20, 3])  # the usual; one for which there is no flag
def test_the_command_that_the_page_shows_finds_the_same_numbers(
    group_size: int,
    cropping_model: Path,
    portrait: Path,
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = ReductionSettings("manual", 2, 2, group_size, 3, "spark3r")
    dense, reduced = shown_by_the_page(portrait, cropping_model, settings, engine)
    command = said_by(address.command(reduced), tmp_path, monkeypatch)
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
