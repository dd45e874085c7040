"""One press of the button: read the clip, measure it densely and reduced in turns, and say how it goes.

A job lives in its own thread and is followed through `Job.report`, an immutable snapshot replaced at every step.
One works at a time in the whole process, so that times mean something and memory suffices; the others stand in
line and see their place.
"""

import logging
import threading
import time
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from spark3r.compare import DENSE, REDUCED, Comparison, Run, RunProgress, compare
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
from viewer.engine import Engine
from viewer.request import RunRequest
from viewer.runs import Against, KeptRun, Runs
from viewer.state import ENDED, LiveRun, ReductionSettings, RunReport, Side
from viewer.world import Baseline

WAITED = "waited in line"

log = logging.getLogger(__name__)


class Visitor(Protocol):
    """Whoever a job works for."""

    runs: Runs
    cache: Cache
    address: str  # visitors take turns; an address is one visitor

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
        self._clip_truth: Truth | None = None

    def stop(self) -> None:
        """Ask the job to end; it does so at the next block of the network. A job that has ended stays as it is."""
        self._cancel.set()
        self._tell(doing="Stopping")

    def work(self) -> None:
        """Work to the end; whatever goes wrong ends up in the report, and the unexpected in the log as well."""
        try:
            turn = self._engine.queue.turn(self._cancel.is_set, self._wait_at, self._visitor.address)
            with stoppable(self._cancel.is_set), turn:
                self._check()
                self._work()
        except Cancelled:
            self._tell(phase="stopped", doing="", live={}, message="Stopped; what was measured stays.")
        except InputError as error:
            self._tell(phase="failed", doing="", live={}, message=str(error))
        except Exception as error:
            log.exception("a run of %s failed", self._request.clip.name)
            words = f"The run broke off ({type(error).__name__}: {error}); the app's log says where."
            self._tell(phase="failed", doing="", live={}, message=words)
        finally:  # whatever ends a thread, nobody waits for it
            self._tell(phase="failed", doing="", live={}, message="The run broke off; the app's log says where.")

    def _work(self) -> None:
        model, frames, truth, spent = self._prepare()
        schedule = self._request.reduction.schedule(len(frames), model.config.sensitive_layers)
        self._compare(model, frames, truth, schedule, spent)
        self._tell(phase="done", doing="", live={})

    def _prepare(self) -> tuple[Network, Frames, Truth | None, dict[str, float]]:
        """Everything a comparison needs, and the seconds that it took to get it."""
        clock = _Clock()
        self._tell(phase="preparing", doing=f"Loading {self._request.sampling.model}")
        model = self._engine.models.get(self._request.sampling.model, self._count_bytes, self._cancel.is_set)
        clock.lap("loading the model")
        self._tell(doing="Reading the clip", fraction=None)
        frames = self._visitor.cache.frames(self._request.input, lambda: self._read(model))
        clock.lap("reading")
        truth = self._truth(model, frames)
        clock.lap("truth")
        self._check()
        self._tell(notes=frames.notes)
        return model, frames, truth, clock.spent

    def _read(self, model: Network) -> Frames:
        sampling = self._request.sampling
        return frames_for(
            self._request.clip.source, model, max_frames=sampling.max_frames, fps=sampling.fps or None,
            resolution=sampling.resolution or None, progress=self._count_frames, cancel=self._cancel.is_set,
        )  # fmt: skip

    def _truth(self, model: Network, frames: Frames) -> Truth | None:
        """The truth of an example clip, at the size of the network's output."""
        clip, resolution = self._request.clip, self._request.sampling.resolution or None
        if not clip.bundled:
            return None
        self._tell(doing="Rendering the truth")
        height, width = network_size(model, frames.images.shape[1], frames.images.shape[2], resolution)
        return truth_of(clip.paths[0], height, width)

    def _compare(
        self,
        model: Network,
        frames: Frames,
        truth: Truth | None,
        schedule: ReductionSchedule,
        spent: dict[str, float],
    ) -> KeptRun:
        """Measure one schedule beside the dense run, and keep both."""
        self._begin(schedule)
        self._clip_truth = truth
        known = None if self._both else self._visitor.cache.dense(self._request.input)
        self._shown_s = 0.0
        clock = _Clock()
        comparison = compare(
            frames, model, {REDUCED: schedule}, baseline=known and known[0], truth=truth,
            resolution=self._request.sampling.resolution or None, **self._how(), progress=self._hear,
            finished=self._finished, cancel=self._cancel.is_set,
        )  # fmt: skip
        parts = {name: seconds for name, seconds in comparison.seconds.items() if name != "reading"}
        spent = {**spent, **parts, "sending": self._shown_s}
        self._tell(phase="scoring", doing="Scoring", fraction=None)
        self._check()
        comparison.arithmetic_factor()  # a second or more, when first asked
        spent["scores"] = spent.get("scores", 0.0) + max(0.0, clock.since() - sum(parts.values()) - self._shown_s)
        return self._keep_numbers(comparison, spent)

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
        known, truth = visitor.cache.dense(source), self._clip_truth
        same = known is not None and np.array_equal(known[0].scene.depth, run.scene.depth)
        baseline = known[1] if known and same else Baseline(run.scene, lambda: truth)
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
        if len(run.measured) == 1:
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

    def _keep_numbers(self, comparison: Comparison, spent: dict[str, float]) -> KeptRun:
        runs = self._visitor.runs
        against = Against(
            comparison.total_factor(), comparison.aggregator_factor(), comparison.arithmetic_factor(),
            sum(comparison.flops(DENSE).values()),
            comparison.doubt(), comparison.busy,
        )  # fmt: skip
        dense, reduced = runs[self._names[DENSE]], runs[self._names[REDUCED]]
        runs.keep(replace(dense, truth=comparison.truth.get(DENSE), fit=comparison.consistency.get(DENSE)))
        made = replace(
            reduced, against=against, difference=comparison.difference, truth=comparison.truth.get(REDUCED),
            fit=comparison.consistency.get(REDUCED), waited=spent,
        )  # fmt: skip
        runs.keep(made)
        return made

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

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._begun = self._last = time.perf_counter()

    def lap(self, on: str) -> None:
        now = time.perf_counter()
        self.spent[on], self._last = now - self._last, now

    def since(self) -> float:
        return time.perf_counter() - self._begun


def _conditions(scene: Reconstruction) -> str:
    size = f"{len(scene)} frames at {scene.width} × {scene.height}"
    return f"{scene.model} · {size} · {scene.device} · {scene.dtype} · {scene.kernel} attention"
