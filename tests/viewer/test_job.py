"""A job: what it keeps, what it reuses, where it can be stopped, and what it says when it breaks."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from spark3r.compare import compare, comparing, turns
from spark3r.errors import Cancelled, InputError
from spark3r.examples import list_clips, load_truth
from spark3r.metrics import match_features
from spark3r.reduction.schedule import ReductionSchedule
from spark3r.stopping import may_stop, stoppable
from tests.viewer.conftest import Nobody, some_file, wait_until
from viewer import engine as engine_module
from viewer import job as job_module
from viewer import scoring
from viewer.engine import Engine, Models, RunQueue
from viewer.job import Job
from viewer.planning import sweep_seconds
from viewer.request import Clip, RunRequest
from viewer.state import Side
from viewer.sweep import Grid, SweepJob

RequestFor = Callable[..., RunRequest]


def done(job: Job) -> Job:
    job.work()
    assert job.report.phase == "done", job.report.message
    return job


@dataclass(frozen=True)
class Visit:
    """A visitor's first run, which no test may change."""

    visitor: Nobody
    job: Job
    seconds: float

    def again(self) -> Nobody:
        """Another visitor, with the same behind her."""
        other = Nobody()
        other.runs, other.cache, other.placed = copy(self.visitor.runs), copy(self.visitor.cache), []
        other.runs._kept, other.runs.shown = dict(other.runs._kept), dict(other.runs.shown)
        other.cache._dense = dict(other.cache._dense)
        return other


@pytest.fixture(scope="module")
def visit(engine: Engine, request_for: RequestFor) -> Visit:
    visitor, started = Nobody(), time.perf_counter()
    job = Job(request_for(), engine, visitor)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "SHORT_SECONDS", 600.0)  # whatever else this machine does
        done(job)
    return Visit(visitor, job, time.perf_counter() - started)


def test_both_runs_are_kept_in_one_world_and_shown_dense_first(visit: Visit) -> None:
    dense, reduced = visit.visitor.runs.values()
    assert (dense.is_dense, reduced.is_dense) == (True, False)
    assert visit.visitor.placed == [("left", dense.name), ("right", reduced.name)]
    assert dense.baseline is reduced.baseline
    assert dense.scene is not None
    assert reduced.scene is not None
    assert dense.scene.images is reduced.scene.images  # one copy of the pictures for all runs
    assert len(reduced.measured) >= 3  # short runs are measured in turns
    assert str(reduced.schedule) == "queries 2→1, keys/values 2→1"
    assert "4 frames" in reduced.conditions


def test_every_second_of_waiting_is_told(visit: Visit) -> None:
    told = sum(list(visit.visitor.runs.values())[-1].waited.values())
    assert 0.6 * visit.seconds < told < 1.05 * visit.seconds + 0.1


def test_another_factor_keeps_the_dense_result_and_times_it_anew(
    visit: Visit, engine: Engine, request_for: RequestFor
) -> None:
    nobody = visit.again()
    before = next(iter(nobody.runs.values()))
    done(Job(request_for(4), engine, nobody))
    after = next(iter(nobody.runs.values()))
    assert len(nobody.runs) == 3
    assert after.scene is before.scene
    assert after.measured is not before.measured  # in turns with the new run
    assert [side for side, _ in nobody.placed] == ["right"]


@pytest.mark.usefixtures("once")
def test_the_same_settings_again_are_the_same_run_measured_anew(
    visit: Visit, engine: Engine, request_for: RequestFor
) -> None:
    nobody = visit.again()
    first = next(iter(nobody.runs.values()))
    done(Job(request_for(), engine, nobody, both=True))
    assert len(nobody.runs) == 2
    assert all(run.baseline is first.baseline for run in nobody.runs.values())
    assert next(iter(nobody.runs.values())).measured is not first.measured


@pytest.mark.usefixtures("once")
def test_other_frames_need_another_baseline(visit: Visit, engine: Engine, request_for: RequestFor) -> None:
    nobody = visit.again()
    done(Job(request_for(max_frames=3), engine, nobody))
    assert [len(run.scene) for run in nobody.runs.values() if run.scene is not None] == [4, 4, 3, 3]


@pytest.mark.usefixtures("once")
def test_scores_follow_in_a_quiet_moment_and_hold_nobody_up(
    engine: Engine, request_for: RequestFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Nobody(), Nobody()
    job, tell, seen = Job(request_for(), engine, first), Job._tell, []

    def next_visitor(told: Job, **changes: object) -> None:
        tell(told, **changes)
        if told is job and changes.get("phase") == "scoring":  # the first one's runs have ended: another visitor's turn
            with engine.queue.turn(lambda: False, lambda _: None):
                thread.start()
                wait_until(lambda: engine.queue.length == 1)
                seen.extend(run.fit for run in first.runs.values())

    monkeypatch.setattr(Job, "_tell", next_visitor)
    other = Job(request_for(4), engine, second)
    thread = threading.Thread(target=other.work)
    done(job)
    thread.join(timeout=60)
    assert seen == [None, None]  # shown by then, not scored
    assert all(run.fit is not None for nobody in (first, second) for run in nobody.runs.values())
    assert list(first.runs.values())[-1].waited["scores"] > 0


def test_spare_time_is_what_nobody_stands_in_line_for() -> None:
    queue, places = RunQueue(), []
    entered, leave = threading.Event(), threading.Event()

    def score() -> None:
        with queue.spare(lambda: False):
            entered.set()
            leave.wait(timeout=5)

    scorer = threading.Thread(target=score)
    with queue.turn(lambda: False, places.append):
        scorer.start()
        assert not entered.wait(timeout=0.3)
    assert entered.wait(timeout=5)
    threading.Timer(0.3, leave.set).start()
    with queue.turn(lambda: False, places.append):
        assert leave.is_set()
    assert places == []  # nobody reads "one run is before yours" for a moment
    scorer.join(timeout=5)


def _stopped_while(job: Job, doing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Stop as soon as the job says that it does this."""
    tell = job._tell

    def stop_when_reached(**changes: object) -> None:
        tell(**changes)
        if job.report.doing.startswith(doing) and not job._cancel.is_set():
            job.stop()

    monkeypatch.setattr(job, "_tell", stop_when_reached)
    thread = threading.Thread(target=job.work, daemon=True)
    thread.start()
    thread.join(timeout=60)
    assert job.report.phase == "stopped"
    assert job._cancel.is_set()


@pytest.mark.parametrize("doing", ["Loading", "Reading the clip", "Warming up", "Dense run", "Reduced run"])
def test_stop_works_in_every_phase(
    doing: str, engine: Engine, request_for: RequestFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stopped_while(Job(request_for(), engine, Nobody()), doing, monkeypatch)


def _endless(*given: object, **named: object) -> None:
    """Work that does not end for a while but when it is stopped between its steps."""
    for _ in range(1000):
        may_stop()
        time.sleep(0.01)
    raise RuntimeError("nobody stopped it")


def test_stop_works_while_downloading(engine: Engine, request_for: RequestFor, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, *, progress: Callable[[int, int], None], cancel: Callable[[], bool]) -> None:
        while not cancel():
            progress(1, 100)
        raise Cancelled

    monkeypatch.setattr(engine_module, "load_model", load)
    _stopped_while(Job(request_for(), Engine(RunQueue(), Models()), Nobody()), "Downloading", monkeypatch)


def test_visitors_may_not_make_the_machine_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "needs_download", lambda name: name == "vggt")
    monkeypatch.setattr(engine_module, "load_model", lambda name, **_: name)
    models = Models(may_download=False)
    with pytest.raises(InputError, match=r"vggt is not on this machine's disk.*--allow-downloads"):
        models.get("vggt")
    assert models.get("da3-small") == "da3-small"  # this one is on disk


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize(
    ("where", "step"),
    [(comparing, "match_features"), (scoring, "consistency"), (scoring, "difference"), (job_module, "truth_of")],
)
def test_stop_works_while_scoring(
    where: ModuleType, step: str, engine: Engine, request_for: RequestFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = replace(request_for().clip, example="room_walk" if step == "truth_of" else "")
    job = Job(request_for(source=clip), engine, Nobody())

    def stopping(*_: object) -> None:
        job.stop()
        _endless()

    monkeypatch.setattr(where, step, stopping)
    job.work()
    assert job.report.phase == "stopped"


def test_rendering_and_scoring_ask_whether_to_stop() -> None:
    clip = list_clips()[0]
    truth = load_truth(clip.folder, size=(12, 16))
    assert truth is not None
    for work in (
        lambda: load_truth(clip.folder, size=(12, 18)),
        lambda: match_features(np.zeros((3, 32, 32, 3), np.uint8)),
    ):
        with pytest.raises(Cancelled), stoppable(lambda: True):
            work()


def test_what_cannot_be_read_is_one_sentence(engine: Engine, request_for: RequestFor, tmp_path: Path) -> None:
    job = Job(request_for(source=Clip("a.mp4", (some_file(tmp_path, "a.mp4"),))), engine, Nobody())
    job.work()
    assert job.report.phase == "failed"
    assert "a.mp4" in job.report.message
    assert "\n" not in job.report.message


def test_the_unexpected_is_shown_and_logged(
    engine: Engine, request_for: RequestFor, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Nobody):
        def place(self, side: Side, name: str) -> None:
            raise RuntimeError("the pane fell off")

    job = Job(request_for(), engine, Broken())
    with caplog.at_level(logging.ERROR):
        job.work()
    assert job.report.phase == "failed"
    assert "RuntimeError" in job.report.message
    assert "fell off" not in job.report.message  # words of libraries may name paths
    assert "the pane fell off" in caplog.text


@pytest.mark.usefixtures("once")
def test_a_sweep_fills_the_grid_and_skips_what_is_known(engine: Engine, request_for: RequestFor) -> None:
    nobody, grid = Nobody(), Grid((1, 2), (1, 2), others=False)
    request = request_for()
    done(SweepJob(request, grid, engine, nobody))
    assert [run.is_dense for run in nobody.runs.values()] == [True, False, False, False]
    assert {(run.schedule.query_factor, run.schedule.kv_factor) for run in nobody.runs.values()} == {
        (1, 1), (1, 2), (2, 1), (2, 2)
    }  # fmt: skip
    again = done(SweepJob(request, grid, engine, nobody))
    assert again.report.points == 0
    assert len(nobody.runs) == 4


@pytest.mark.usefixtures("once")
def test_a_sweep_ends_with_what_the_dials_say(engine: Engine, request_for: RequestFor) -> None:
    nobody, request = Nobody(), request_for()
    dials = replace(request.reduction, kv_boost=ReductionSchedule.kv_boost)  # the first point of the grid
    done(SweepJob(replace(request, reduction=dials), Grid((1, 2), (1, 2), others=False), engine, nobody))
    shown = nobody.runs.at("right")
    assert shown is not None
    assert (shown.schedule.query_factor, shown.schedule.kv_factor) == (2, 2)


@pytest.mark.usefixtures("once")
def test_a_stopped_sweep_keeps_what_was_measured(
    engine: Engine, request_for: RequestFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = Nobody()
    sweep = SweepJob(request_for(), Grid((1, 2), (1, 2), others=False), engine, nobody)

    def stop_after_first(*arguments: object, **options: object) -> object:
        found = compare(*arguments, **options)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        sweep.stop()
        return found

    monkeypatch.setattr(job_module, "compare", stop_after_first)
    sweep.work()
    assert sweep.report.phase == "stopped"
    assert len(nobody.runs) == 2


def test_a_sweep_says_what_it_will_take(engine: Engine, request_for: RequestFor) -> None:
    stages = {"global_attention": 8000.0, "encoder": 1000.0, "total": 10000.0}
    request = request_for()
    few, many = (sweep_seconds(request, engine.models, Grid((1, 2), kv, others=False), stages) for kv in ((2,), (2, 4)))
    assert 4 < few < many


def test_a_run_without_pruning_prunes_nowhere(request_for: RequestFor) -> None:
    by_hand = replace(request_for(1).reduction, kv_boost=3)
    assert by_hand.schedule(100, (1,)) == ReductionSchedule(2, 1, kv_boost=1, sensitive_layers=(1,))


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


def test_visitors_take_turns_however_many_runs_one_has() -> None:
    queue, order, threads = RunQueue(most_waiting=8), [], []

    def job(visitor: str) -> None:
        with queue.turn(lambda: False, lambda _: None, visitor):
            order.append(visitor)

    with queue.turn(lambda: False, lambda _: None, "script"):
        for number, visitor in enumerate(["script"] * 4 + ["ann", "bob", "ann"]):
            threads.append(threading.Thread(target=job, args=(visitor,)))
            threads[-1].start()
            wait_until(lambda number=number: queue.length == number + 1)
    for thread in threads:
        thread.join(timeout=5)
    assert order == ["ann", "bob", "script", "ann", "script", "script", "script"]


def test_one_visitor_has_a_few_runs_in_line_at_most() -> None:
    queue = RunQueue(most_waiting=1)
    leave = threading.Event()
    with queue.turn(lambda: False, lambda _: None):
        waiting = threading.Thread(target=_wait_in, args=(queue, leave))
        waiting.start()
        wait_until(lambda: queue.length == 1)
        with pytest.raises(InputError, match="in line already"), queue.turn(lambda: True, lambda _: None, "script"):
            pytest.fail("had no turn")
        with pytest.raises(Cancelled), queue.turn(lambda: True, lambda _: None, "ann"):  # others may stand in line
            pytest.fail("had no turn")
        leave.set()
        waiting.join(timeout=5)
    assert queue.length == 0


def _wait_in(queue: RunQueue, leave: threading.Event) -> None:
    with suppress(Cancelled), queue.turn(leave.is_set, lambda _: None, "script"):
        pytest.fail("had no turn")


def test_a_job_that_has_ended_stays_ended(visit: Visit) -> None:
    """Whoever presses Stop then, and whatever a thread that was held up still tells."""
    job = visit.job
    job.stop()
    job._tell(phase="measuring", doing="Warming up")
    assert job.report.phase == "done"
    assert job.report.doing == ""


def test_whatever_ends_its_thread_nobody_waits_for_a_job(
    engine: Engine, request_for: RequestFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(Job, "_prepare", leave)
    job = Job(request_for(), engine, Nobody())
    with pytest.raises(SystemExit):
        job.work()
    assert job.report.phase == "failed"


def test_who_gives_up_in_line_frees_the_place() -> None:
    queue = RunQueue()
    with queue.turn(lambda: False, lambda _: None):
        with pytest.raises(Cancelled), queue.turn(lambda: True, lambda _: None):
            pytest.fail("had no turn")
        assert queue.length == 0


def test_a_waiting_run_says_so_and_can_be_stopped(engine: Engine, request_for: RequestFor) -> None:
    job = Job(request_for(), engine, Nobody())
    with engine.queue.turn(lambda: False, lambda _: None):
        thread = threading.Thread(target=job.work)
        thread.start()
        wait_until(lambda: job.report.phase == "waiting")
        assert job.report.doing == "In line: one run is before yours"
        job.stop()
        started = time.monotonic()
        thread.join(timeout=5)
        assert time.monotonic() - started < 2
    assert job.report.phase == "stopped"
