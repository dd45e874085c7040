"""One press of the button: read the clip, measure it densely and reduced in turns, and say how it goes.

A job lives in its own thread and is followed through `Job.report`, an immutable snapshot replaced at every step.
One is measured at a time in the whole process, so that times mean something and memory suffices; the others stand
in line and see their place. Scores follow while nobody stands in line: the next run never waits for them.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from spark3r.compare import DENSE, REDUCED, Comparison, Measurement, Run, RunProgress, compare
from spark3r.errors import Cancelled, InputError
from spark3r.estimate import network_size
from spark3r.formatting import byte_count
from spark3r.frames import Frames, frames_for
from spark3r.metrics.truth import Truth
from spark3r.models.network import Network
from spark3r.reconstruction import Reconstruction
from spark3r.reduction.schedule import ReductionSchedule
from spark3r.stopping import stoppable
from viewer.cache import Cache, truth_of
from viewer.engine import Engine, RunQueue, needed_bytes
from viewer.request import RunRequest
from viewer.runs import Against, KeptRun, Runs
from viewer.scoring import missing_scores
from viewer.state import ENDED, LiveRun, ReductionSettings, RunReport, Side
from viewer.world import Baseline

IN_LINE = "waiting in line"

log = logging.getLogger(__name__)


class Visitor(Protocol):
    """Whoever a job works for."""

    runs: Runs
    cache: Cache
    address: str  # visitors take turns; an address is one visitor
    scoring: RunQueue  # in which its jobs find their scores, one after the other

    def place(self, side: Side, name: str) -> None:
        """Put a kept run into a pane."""


class Job:
    """One comparison from start to end; `work` is the body of its thread."""

    def __init__(self, request: RunRequest, engine: Engine, visitor: Visitor, *, both: bool = False) -> None:
        self.report = RunReport("preparing", clip=request.clip.name, doing="Starting")
        self._request, self._engine, self._visitor, self._both = request, engine, visitor, both
        self._cancel = threading.Event()
        self._telling = threading.Lock()  # the report is told by the working thread and by whoever stops it
        self._names: dict[str, str] = {}  # of the runs under way: "dense", "reduced" → as they are kept
        self._settings = request.reduction
        self._shown_s = 0.0
        self._in_line_s = 0.0
        self._load_truth: Callable[[], Truth | None] | None = None  # of the clip; None: there is none
        self._comparison: Comparison | None = None  # not scored yet

    def stop(self) -> None:
        """Ask the job to end; it does so at the next block of the network. A job that has ended stays as it is."""
        self._cancel.set()
        self._tell(doing="Stopping")

    def work(self) -> None:
        """Work to the end; whatever goes wrong ends up in the report, and the unexpected in the log as well."""
        try:
            with stoppable(self._cancel.is_set):
                self._in_turn()
                self._follow_up()
            self._tell(phase="done", doing="", live={})
        except Cancelled:
            self._tell(phase="stopped", doing="", live={}, message="Stopped; what was measured stays.")
        except InputError as error:
            self._tell(phase="failed", doing="", live={}, message=str(error))
        except Exception as error:
            log.exception("a run of %s failed", self._request.clip.name)
            words = f"The run broke off ({type(error).__name__}); the app's log says where."
            self._tell(phase="failed", doing="", live={}, message=words)
        finally:  # whatever ends a thread, nobody waits for it
            self._tell(phase="failed", doing="", live={}, message="The run broke off; the app's log says where.")

    def _in_turn(self) -> None:
        came = time.perf_counter()
        with self._engine.queue.turn(self._cancel.is_set, self._wait_at, self._visitor.address):
            self._in_line_s = time.perf_counter() - came
            self._check()
            self._work()

    def _work(self) -> None:
        """What is measured, while nothing else in the process is."""
        model, frames, spent = self._prepare()
        schedule = self._request.reduction.schedule(len(frames), model.config.sensitive_layers)
        self._compare(model, frames, schedule, spent)

    def _follow_up(self) -> None:
        """What may wait for a quiet moment: the scores, after those of the visitor's runs before."""
        self._tell(phase="scoring", doing="Scoring", fraction=None, live={})
        with self._visitor.scoring.turn(self._cancel.is_set, lambda _: None):
            self._score(lambda: self._engine.queue.spare(self._cancel.is_set))

    def _prepare(self) -> tuple[Network, Frames, dict[str, float]]:
        """Everything a comparison needs, and the seconds that it took to get it."""
        clock = _Clock({IN_LINE: self._in_line_s})
        self._ask_for_memory()  # before a download or a load …
        self._tell(phase="preparing", doing=f"Loading {self._request.sampling.model}")
        model = self._engine.models.get(self._request.sampling.model, self._count_bytes, self._cancel.is_set)
        clock.lap("loading")
        self._ask_for_memory()  # … and now that the network is there
        self._tell(doing="Reading the clip", fraction=None)
        frames = self._visitor.cache.frames(self._request.input, lambda: self._read(model))
        clock.lap("reading")
        self._load_truth = self._truth_of(model, frames)
        self._check()
        self._tell(notes=frames.notes)
        return model, frames, clock.spent

    def _ask_for_memory(self) -> None:
        needed = needed_bytes(self._request.info, self._request.sampling, self._engine.models)
        self._engine.memory.ask(needed, self._cancel.is_set, lambda words: self._tell(doing=words))

    def _read(self, model: Network) -> Frames:
        sampling = self._request.sampling
        return frames_for(
            self._request.clip.source, model, max_frames=sampling.max_frames, fps=sampling.fps or None,
            resolution=sampling.resolution or None, progress=self._count_frames, cancel=self._cancel.is_set,
        )  # fmt: skip

    def _truth_of(self, model: Network, frames: Frames) -> Callable[[], Truth | None] | None:
        """What loads the truth of an example clip, at the size of the network's output."""
        clip, resolution = self._request.clip, self._request.sampling.resolution or None
        if not clip.bundled:
            return None
        height, width = network_size(model, frames.images.shape[1], frames.images.shape[2], resolution)
        return partial(truth_of, clip.paths[0], height, width)

    def _compare(self, model: Network, frames: Frames, schedule: ReductionSchedule, spent: dict[str, float]) -> KeptRun:
        """Measure one schedule beside the dense run, and keep both."""
        self._begin(schedule)
        known = None if self._both else self._visitor.cache.dense(self._request.input)
        self._shown_s = 0.0
        self._comparison = comparison = compare(
            frames, model, {REDUCED: schedule}, baseline=known and known[0], earlier=self._earlier(), scored=False,
            resolution=self._request.sampling.resolution or None, **self._how(), progress=self._hear,
            finished=self._finished, cancel=self._cancel.is_set,
        )  # fmt: skip
        parts = {name: seconds for name, seconds in comparison.seconds.items() if name != "reading"}
        return self._keep_factors(comparison, {**spent, **parts, "sending": self._shown_s})

    def _score(self, quiet: Callable[[], AbstractContextManager[None]]) -> None:
        """Find what is not known yet of the runs that were measured last, each piece of it in a moment of `quiet`."""
        reduced, comparison = self._names[REDUCED], self._comparison
        assert comparison is not None
        self._add(reduced, lambda: self._arithmetic(comparison, reduced), quiet)
        for name in self._names.values():
            for find in missing_scores(self._visitor.runs[name]):
                self._add(name, find, quiet)

    def _add(
        self, name: str, find: Callable[[], dict[str, Any]], quiet: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Add a score to a run, and the seconds it took to those waited for the reduced one."""
        self._check()
        runs, reduced = self._visitor.runs, self._names[REDUCED]
        with quiet():
            started = time.perf_counter()
            runs.keep(replace(runs[name], **find()))
            waited = dict(runs[reduced].waited)
            waited["scores"] = waited.get("scores", 0.0) + time.perf_counter() - started
            runs.keep(replace(runs[reduced], waited=waited))

    def _arithmetic(self, comparison: Comparison, name: str) -> dict[str, Any]:
        against = self._visitor.runs[name].against
        flops = sum(comparison.flops(DENSE).values())
        return {"against": replace(against, arithmetic=comparison.arithmetic_factor(), dense_flops=flops)}

    def _earlier(self) -> dict[str, tuple[Measurement, ...]]:
        """What was measured of the same before: measuring again adds to it."""
        runs = self._visitor.runs
        return {kind: runs[name].measured for kind, name in self._names.items() if self._both and name in runs}

    def _how(self) -> dict[str, Any]:
        """How often is measured: as `compare` thinks best."""
        return {}

    def _begin(self, schedule: ReductionSchedule) -> None:
        runs, source = self._visitor.runs, self._request.input
        names = {DENSE: runs.dense(source), REDUCED: None if schedule.is_off else runs.find(source, schedule)}
        self._names = {kind: run.name if run else runs.new_name() for kind, run in names.items()}
        live = {DENSE: LiveRun(), REDUCED: LiveRun()}
        self._tell(phase="measuring", doing="Warming up", schedule=str(schedule), live=live, fraction=None)

    def _hear(self, now: RunProgress) -> None:
        """Several times a second: how far the run under way is."""
        if now.phase != "run":
            return
        so_far = self.report.live.get(now.run, LiveRun())
        live = LiveRun(
            "running", now.stage, now.fraction, now.milliseconds, now.elapsed_ms, now.expected_ms, now.turn, now.turns,
            so_far.cost, time.monotonic(),
        )  # fmt: skip
        title = "Dense run" if now.run == DENSE else "Reduced run"
        turn = f" {now.turn + 1} of {now.turns}" if now.turns > 1 else ""
        self._tell(doing=title + turn, live={**self.report.live, now.run: live})

    def _finished(self, run: Run) -> None:
        """A timed run has ended: keep it, and show it where it is new."""
        started = time.perf_counter()
        if run.name == DENSE:
            self._keep_dense(run)
        else:
            self._keep_reduced(run)
        live = replace(self.report.live[run.name], state="measured", cost=run.cost)
        self._tell(live={**self.report.live, run.name: live})
        self._shown_s += time.perf_counter() - started

    def _keep_dense(self, run: Run) -> None:
        visitor, source, name = self._visitor, self._request.input, self._names[DENSE]
        known = visitor.cache.dense(source)
        same = known is not None and np.array_equal(known[0].scene.depth, run.scene.depth)
        baseline = known[1] if known and same else Baseline(run.scene, self._load_truth)
        visitor.cache.keep_dense(source, run, baseline)
        settings = replace(self._settings, mode="manual", query_factor=1, kv_factor=1, kv_boost=1)
        self._keep(name, run, run.scene, settings, baseline)
        if known is None or known[1] is not baseline:
            visitor.place("left", name)

    def _keep_reduced(self, run: Run) -> None:
        known = self._visitor.cache.dense(self._request.input)
        assert known is not None  # the dense run comes first
        name, baseline = self._names[REDUCED], known[1]
        self._keep(name, run, replace(run.scene, images=baseline.scene.images), self._settings, baseline)
        if run.turns == 1:
            self._arrange(name)

    def _arrange(self, name: str) -> None:
        """Show a new run on the right, and on the left something of the same clip."""
        left = self._visitor.runs.at("left")
        if left is None or left.input != self._request.input or left.name == name:
            self._visitor.place("left", self._names[DENSE])
        self._visitor.place("right", name)

    def _keep(
        self, name: str, run: Run, scene: Reconstruction, settings: ReductionSettings, baseline: Baseline
    ) -> None:
        runs = self._visitor.runs
        if name in runs and runs[name].scene is not None:
            runs.keep(replace(runs[name].with_run(run), at_start=False))
            return
        conditions = _conditions(run.scene)
        source, schedule = self._request.input, run.scene.schedule
        runs.keep(KeptRun(name, source, schedule, settings, run.measured, run.cost, scene, baseline, conditions))

    def _keep_factors(self, comparison: Comparison, spent: dict[str, float]) -> KeptRun:
        runs, name = self._visitor.runs, self._names[REDUCED]
        before = runs[name].against  # counted, not measured: it holds still
        against = Against(
            comparison.total_factor(), comparison.aggregator_factor(), before.arithmetic, before.dense_flops,
            comparison.doubt(), comparison.busy,
        )  # fmt: skip
        runs.keep(replace(runs[name], against=against, waited=spent))
        return runs[name]

    def _count_frames(self, done: int, total: int) -> None:
        self._tell(doing=f"Reading frame {done} of {total}", fraction=done / total)

    def _count_bytes(self, done: int, whole: int) -> None:
        self._tell(doing=f"Downloading: {byte_count(done)} of {byte_count(whole)}", fraction=done / whole)

    def _wait_at(self, ahead: int) -> None:
        others = "one run is" if ahead == 1 else f"{ahead} runs are"
        self._tell(phase="waiting", doing=f"In line: {others} before yours")

    def _check(self) -> None:
        if self._cancel.is_set():
            raise Cancelled

    def _tell(self, **changes: Any) -> None:
        """Replace the report; the phase a job has ended in is its last."""
        with self._telling:
            if not self.report.is_busy:
                return
            if self._cancel.is_set() and changes.get("phase", "") not in ENDED:
                changes["doing"] = "Stopping"
            self.report = replace(self.report, **changes)


class _Clock:
    """Seconds between laps, by what they were spent on."""

    def __init__(self, before: Mapping[str, float]) -> None:
        self.spent = dict(before)
        self._last = time.perf_counter()

    def lap(self, on: str) -> None:
        now = time.perf_counter()
        self.spent[on], self._last = now - self._last, now


def _conditions(scene: Reconstruction) -> str:
    size = f"{len(scene)} frames at {scene.width} × {scene.height}"
    return f"{scene.model} · {size} · {scene.device} · {scene.dtype} · {scene.kernel} attention"
