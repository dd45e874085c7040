"""A run: what it reuses, where it can be stopped, and what it says when it breaks."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from spark3r.errors import Cancelled
from spark3r.reconstruction import Reconstruction
from tests.viewer.conftest import some_file, wait_until
from viewer.engine import Engine, RunQueue
from viewer.run import Baseline, Clip, Memory, Run, RunRequest
from viewer.state import Kind

RequestFor = Callable[..., RunRequest]


class Shown:
    """Stands in for the panes and keeps what it is given."""

    def __init__(self) -> None:
        self.scenes: list[tuple[Kind, Reconstruction, Baseline]] = []

    def __call__(self, side: Kind, scene: Reconstruction, baseline: Baseline) -> None:
        self.scenes.append((side, scene, baseline))

    @property
    def sides(self) -> list[Kind]:
        return [side for side, _, _ in self.scenes]


def test_dense_is_shown_first_and_both_share_one_world(engine: Engine, request_for: RequestFor) -> None:
    shown = Shown()
    run = Run(request_for(), engine, Memory(), shown)
    run.work()
    assert run.report.phase == "done", run.report.message
    assert shown.sides == ["dense", "reduced"]
    assert shown.scenes[0][2].scene is shown.scenes[1][2].scene
    assert run.report.dense.state == run.report.reduced.state == "measured"
    assert run.report.comparison is not None
    assert "4 frames" in run.report.conditions
    assert run.report.schedule == "queries 2→1, keys/values 2→1"


def test_another_factor_reuses_the_baseline_and_times_it_anew(engine: Engine, request_for: RequestFor) -> None:
    memory, shown = Memory(), Shown()
    first = Run(request_for(2), engine, memory, shown)
    first.work()
    second = Run(request_for(4), engine, memory, shown)
    assert second.report.dense.state == "reused"  # known at once, so that the pane does not flicker
    second.work()
    assert second.report.dense.state == second.report.reduced.state == "measured"
    assert second.report.dense.cost != first.report.dense.cost
    assert shown.scenes[2][1] is shown.scenes[0][1]


def test_other_frames_need_another_baseline(engine: Engine, request_for: RequestFor) -> None:
    memory = Memory()
    Run(request_for(), engine, memory, Shown()).work()
    fewer = Run(request_for(max_frames=3), engine, memory, Shown())
    assert fewer.report.dense.state == "empty"
    fewer.work()
    assert fewer.report.dense.state == "measured"


def test_a_renamed_copy_is_the_same_clip(engine: Engine, request_for: RequestFor, clip: Clip, tmp_path: Path) -> None:
    copies = tuple(some_file(tmp_path, f"copy{i}.png", path.read_bytes()) for i, path in enumerate(clip.paths))
    memory = Memory()
    first, second = Shown(), Shown()
    Run(request_for(), engine, memory, first).work()
    Run(request_for(source=Clip("copy", copies)), engine, memory, second).work()
    assert second.scenes[0][1] is first.scenes[0][1]


@pytest.mark.parametrize("phase", ["preparing", "dense", "reduced"])
def test_stop_works_in_every_phase(
    phase: str, engine: Engine, request_for: RequestFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(request_for(), engine, Memory(), Shown())
    tell = run._tell

    def stop_when_reached(**changes: object) -> None:
        tell(**changes)
        if run.report.phase == phase and not run._cancel.is_set():
            run.stop()

    monkeypatch.setattr(run, "_tell", stop_when_reached)
    run.work()
    assert run.report.phase == "stopped"
    assert not run.report.reduced.is_done
    assert run.report.dense.is_done is (phase == "reduced")


def test_what_cannot_be_read_is_one_sentence(engine: Engine, request_for: RequestFor, tmp_path: Path) -> None:
    run = Run(request_for(source=Clip("a.mp4", (some_file(tmp_path, "a.mp4"),))), engine, Memory(), Shown())
    run.work()
    assert run.report.phase == "failed"
    assert "a.mp4" in run.report.message
    assert "\n" not in run.report.message


def test_the_unexpected_is_shown_and_logged(
    engine: Engine, request_for: RequestFor, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(side: Kind, scene: Reconstruction, baseline: Baseline) -> None:
        raise RuntimeError("the pane fell off")

    run = Run(request_for(), engine, Memory(), broken)
    with caplog.at_level(logging.ERROR):
        run.work()
    assert run.report.phase == "failed"
    assert "the pane fell off" in run.report.message
    assert "Traceback" in caplog.text


def test_the_queue_serves_in_order_and_tells_the_place() -> None:
    queue, order, places = RunQueue(), [], {1: [], 2: []}
    gate = threading.Event()

    def job(number: int) -> None:
        with queue.turn(lambda: False, lambda ahead: places[number].append(ahead)):
            order.append(number)

    with queue.turn(gate.is_set, lambda _: None):
        threads = []
        for number in (1, 2):
            threads.append(threading.Thread(target=job, args=(number,)))
            threads[-1].start()
            wait_until(lambda number=number: places[number])
        assert (places[1][0], places[2][0]) == (1, 2)
        assert order == []
    for thread in threads:
        thread.join(timeout=5)
    assert order == [1, 2]


def test_who_gives_up_in_line_frees_the_place() -> None:
    queue = RunQueue()
    with queue.turn(lambda: False, lambda _: None):
        with pytest.raises(Cancelled), queue.turn(lambda: True, lambda _: None):
            pytest.fail("had no turn")
        assert len(queue._line) == 1


def test_a_waiting_run_says_so_and_can_be_stopped(engine: Engine, request_for: RequestFor) -> None:
    run = Run(request_for(), engine, Memory(), Shown())
    with engine.queue.turn(lambda: False, lambda _: None):
        thread = threading.Thread(target=run.work)
        thread.start()
        wait_until(lambda: run.report.phase == "waiting")
        assert run.report.doing == "In line: one run is before yours"
        run.stop()
        started = time.monotonic()
        thread.join(timeout=5)
        assert time.monotonic() - started < 2
    assert run.report.phase == "stopped"
