"""Stop, wherever it comes: how much is still begun after it, counted in blocks, frames and pieces, not in seconds."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from spark3r import export
from spark3r.compare import turns
from spark3r.errors import Cancelled
from spark3r.examples import list_clips, load_truth
from spark3r.frames import frames_for
from spark3r.inference import Run, reconstruct
from spark3r.metrics import consistency, evaluate, match_features
from spark3r.metrics.truth import Truth
from spark3r.reconstruction import Reconstruction
from spark3r.stopping import stoppable
from spark3r.training.scenes import render
from tests.viewer.conftest import FRAMES, Nobody, in_own_loop
from viewer import report
from viewer.engine import Engine
from viewer.job import Job
from viewer.request import RunRequest
from viewer.run_handlers import RunHandlers
from viewer.session import Session
from viewer.state import ViewSettings
from viewer.sweep import Grid, SweepJob
from viewer.timeline import Timeline
from viewer.world import Baseline

RequestFor = Callable[..., RunRequest]


def begun_after_stop(job: Job, when: Callable[[Job], bool], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Work until Stop is pressed, which is as soon as `when` holds, and to the end: the parts of the network that were
    begun after that."""
    tell, step, begun = job._tell, Run._step, []

    def stopping(**changes: object) -> None:
        tell(**changes)
        if when(job) and not job._cancel.is_set():
            job.stop()

    def counted(run: Run, stage: str, block: int | None = None) -> None:
        was_stopped = job._cancel.is_set()
        step(run, stage, block)  # leaves here where Stop is heard
        if was_stopped:
            begun.append(stage)

    monkeypatch.setattr(job, "_tell", stopping)
    monkeypatch.setattr(Run, "_step", counted)
    job.work()
    assert job.report.phase == "stopped"
    return begun


@pytest.mark.parametrize("doing", ["Warming up", "Dense run", "Reduced run"])
def test_no_block_is_begun_after_stop(
    doing: str, engine: Engine, request_for: RequestFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "SHORT_SECONDS", 0.0)  # each run once
    job = Job(request_for(), engine, Nobody())
    assert begun_after_stop(job, lambda job: job.report.doing.startswith(doing), monkeypatch) == []


@pytest.mark.parametrize(("point", "doing"), [(1, "Scoring"), (2, "Warming up"), (2, "Reduced run")])
def test_no_block_of_a_sweep_is_begun_after_stop(
    point: int, doing: str, engine: Engine, request_for: RequestFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "SHORT_SECONDS", 0.0)  # each run once
    nobody = Nobody()
    sweep = SweepJob(request_for(), Grid((1,), (2, 4), others=False), engine, nobody)

    def is_there(job: Job) -> bool:
        return job.report.point == point and job.report.doing.startswith(doing)

    assert begun_after_stop(sweep, is_there, monkeypatch) == []
    assert len(nobody.runs) == 2  # the dense run and the first point


class Turned:
    """A session whose run is being ended, because a dial was turned in the middle of it."""

    has_baseline, planned, is_working, wishes, _job, _exports = True, ("clip", "schedule"), True, 0, None, ()
    stop, stop_run, runs = Session.stop, Session.stop_run, SimpleNamespace(find=lambda *_: None)


@pytest.mark.parametrize("presses_stop", [False, True])
def test_stop_cancels_a_rerun_that_waits(presses_stop: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    session, began = Turned(), []

    async def run(*_: object) -> object:
        began.append(session)
        yield {}

    async def turn_the_dial() -> None:
        sessions, showing = SimpleNamespace(of=lambda _: session), SimpleNamespace(whole=lambda _: {})
        handlers = RunHandlers(None, sessions, None, None, showing)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        monkeypatch.setattr(handlers, "run", run)

        async def rerun() -> None:
            async for _ in handlers.run_again({}, SimpleNamespace(session_hash="")):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
                pass

        waiting = asyncio.create_task(rerun())
        await asyncio.sleep(0)
        if presses_stop:
            session.stop()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        session.is_working = False
        await waiting

    in_own_loop(turn_the_dial())
    assert bool(began) is not presses_stop


@pytest.fixture(scope="module")
def result(engine: Engine, request_for: RequestFor) -> tuple[Reconstruction, Baseline]:
    """A scene, and its world."""
    request = request_for()
    model = engine.models.get(request.sampling.model)
    scene = reconstruct(frames_for(request.clip.source, model, resolution=request.sampling.resolution), model)
    return scene, Baseline(scene)


def stopped_at(ask: int, work: Callable[[], object]) -> int:
    """Stop, heard when `work` asks for the n-th time; how often it asked in the end."""
    asked = 0

    def is_stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked >= ask

    with pytest.raises(Cancelled), stoppable(is_stopped):
        work()
    return asked


def test_no_frame_of_a_truth_is_rendered_after_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    clip, meet, met = list_clips()[0], render._meet, []
    monkeypatch.setattr(render, "_meet", lambda *given: met.append(1) or meet(*given))
    assert stopped_at(3, lambda: load_truth(clip.folder, size=(243, 324))) == 3  # of no other test
    assert len(met) == 2
    assert clip.frames > 4  # there were more


def test_scores_ask_between_their_pieces(result: tuple[Reconstruction, Baseline]) -> None:
    scene, _ = result
    truth = Truth(scene.depth, scene.world_from_camera, scene.intrinsics)
    assert stopped_at(2, lambda: match_features(scene.images)) == 2
    assert stopped_at(5, lambda: evaluate(scene, truth)) == 5  # depth, path, and three of the cloud
    noise = np.random.default_rng(0).integers(0, 255, scene.images.shape, np.uint8)
    scene = replace(scene, images=np.ascontiguousarray(np.broadcast_to(noise[:1], noise.shape)))
    matches = match_features(scene.images)
    assert len(matches) > 0
    assert stopped_at(2, lambda: consistency(scene, matches)) == 2


# How often an export asks: between its steps, with every block that is written, with every frame.
@pytest.mark.parametrize(("suffix", "asks"), [(".glb", 3), (".ply", 2), (".npz", 12), (".zip", 6 * FRAMES)])
def test_exports_ask_between_their_steps(
    suffix: str, asks: int, result: tuple[Reconstruction, Baseline], tmp_path: Path
) -> None:
    path = tmp_path / f"scene{suffix}"
    assert stopped_at(asks, lambda: export.write(result[0], path)) <= asks + 2  # a file that is closed asks, too
    assert list(tmp_path.iterdir()) == []


def test_recordings_and_reports_ask_between_their_steps(
    result: tuple[Reconstruction, Baseline], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, baseline = result
    assert stopped_at(2, lambda: report.recording(scene, baseline, ViewSettings())) == 2
    timeline = Timeline(baseline, {"left": scene, "right": scene}, {}, key="")
    drawn: list[str] = []
    monkeypatch.setattr(Timeline, "sheet", lambda *given: drawn.append(given[1]) or b"")
    assert stopped_at(2, lambda: report._sheets(timeline)) == 2
    assert len(drawn) == 1
