"""One press of the button: read the clip, reconstruct it densely, then reduced, and say how it goes.

A run lives in its own thread and is followed through `Run.report`, an immutable snapshot replaced at every step.
One reconstruction works at a time in the whole process, so that times mean something and memory suffices; the
others stand in line and see their place.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from spark3r.compare import Comparison, RunProgress, compare
from spark3r.compare import Run as MeasuredRun
from spark3r.errors import Cancelled, InputError
from spark3r.examples import load_truth
from spark3r.formatting import byte_count
from spark3r.frames import Frames, SourceInfo, frames_for
from spark3r.metrics import evaluate
from spark3r.metrics.truth import Truth
from spark3r.models.network import Network
from spark3r.reconstruction import Reconstruction
from viewer.engine import Engine
from viewer.state import TITLES, Kind, ReductionSettings, RunReport, SamplingSettings, SideReport
from viewer.world import Baseline

KEPT_BASELINES = 3  # dense results one visitor keeps, so that going back to an earlier clip costs nothing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """What the visitor chose: one of ours, or files of theirs."""

    name: str
    paths: tuple[Path, ...]
    example: str = ""  # its name among the example clips; "" for the visitor's own

    @property
    def bundled(self) -> bool:
        """Whether it is one of ours."""
        return bool(self.example)

    @property
    def source(self) -> Path | list[Path]:
        """As `read_frames` takes it."""
        return self.paths[0] if len(self.paths) == 1 else list(self.paths)


@dataclass(frozen=True)
class RunRequest:
    """Everything a run depends on."""

    clip: Clip
    info: SourceInfo  # of the clip
    sampling: SamplingSettings
    reduction: ReductionSettings

    @property
    def input(self) -> object:
        """What decides the dense run; equal for runs that differ in their reduction only."""
        return self.clip, self.sampling


class Known(NamedTuple):
    """A dense result of an earlier run, and its times."""

    baseline: Baseline
    run: MeasuredRun


class Memory:
    """What one visitor's runs leave for the next: the frames read last, and the latest baselines."""

    def __init__(self) -> None:
        self._frames: tuple[object, Frames] | None = None
        self._baselines: OrderedDict[object, Known] = OrderedDict()
        self._latest: tuple[object, Known] | None = None

    def frames(self, key: object, read: Callable[[], Frames]) -> Frames:
        """The frames of `key`, read only if they are not the ones read last."""
        if self._frames is None or self._frames[0] != key:
            self._frames = None
            self._frames = key, read()
        return self._frames[1]

    def baseline(self, key: object) -> Known | None:
        """The dense result of these frames, model and size, if it is kept."""
        return self._baselines.get(key)

    def expected(self, request: RunRequest) -> Known | None:
        """What is probably going to be reused, known before the frames are read."""
        return self._latest[1] if self._latest and self._latest[0] == request.input else None

    def keep(self, key: object, request: RunRequest, known: Known) -> None:
        """Remember a baseline; the oldest is forgotten."""
        self._latest = request.input, known
        self._baselines[key] = known
        while len(self._baselines) > KEPT_BASELINES:
            self._baselines.popitem(last=False)


class Run:
    """One run from start to end; `work` is the body of its thread."""

    def __init__(
        self,
        request: RunRequest,
        engine: Engine,
        memory: Memory,
        show: Callable[[Kind, Reconstruction, Baseline], None],
    ) -> None:
        self.report = RunReport("preparing", clip=request.clip.name, doing="Starting")
        if expected := memory.expected(request):
            self.report = replace(self.report, dense=_reused(expected))
        self._request, self._engine, self._memory, self._show = request, engine, memory, show
        self._cancel = threading.Event()
        self._known: Known | None = None  # the dense result of this run

    def stop(self) -> None:
        """Ask the run to end; it does so at the next block of the network."""
        self._cancel.set()
        if self.report.is_busy:
            self._tell(doing="Stopping")

    def work(self) -> None:
        """Run to the end; whatever goes wrong ends up in the report, and the unexpected in the log as well."""
        try:
            with self._engine.queue.turn(self._cancel.is_set, self._wait_at):
                self._reconstruct()
        except Cancelled:
            self._end("stopped", "Stopped; nothing you set was lost.")
        except InputError as error:
            self._end("failed", str(error))
        except Exception as error:
            log.exception("run of %s failed", self._request.clip.name)
            self._end("failed", f"The run broke off ({type(error).__name__}: {error}); the app's log says where.")

    def _reconstruct(self) -> None:
        model = self._prepare_model()
        frames = self._read(model)
        schedule = self._request.reduction.schedule(len(frames), model.config.sensitive_layers)
        self._tell(doing="Warming up", schedule=str(schedule), notes=frames.notes)
        known = self._recall(frames)
        comparison = compare(
            frames, model, schedule, baseline=known and known.run, resolution=self._request.sampling.resolution or None,
            progress=self._follow, finished=self._measured, cancel=self._cancel.is_set,
        )  # fmt: skip
        self._tell(phase="done", doing="", comparison=self._scored(comparison), message=_summary(comparison))

    def _prepare_model(self) -> Network:
        name = self._request.sampling.model
        self._tell(phase="preparing", doing=f"Loading {name}", reduced=SideReport("waiting"))
        model = self._engine.models.get(name, self._count_bytes, self._cancel.is_set)
        self._check()
        return model

    def _read(self, model: Network) -> Frames:
        sampling, clip = self._request.sampling, self._request.clip
        self._tell(doing="Reading the clip")

        def read() -> Frames:
            return frames_for(
                clip.source, model,
                max_frames=sampling.max_frames, fps=sampling.fps or None, resolution=sampling.resolution or None,
                progress=self._count_frames, cancel=self._cancel.is_set,
            )  # fmt: skip

        frames = self._memory.frames((clip, sampling), read)
        self._check()
        return frames

    def _recall(self, frames: Frames) -> Known | None:
        """The dense result of these frames from an earlier run, shown at once."""
        sampling = self._request.sampling
        self._key = (_digest(frames), sampling.model, sampling.resolution)
        known = self._memory.baseline(self._key)
        if known is not None:
            self._keep(known)
            self._tell(dense=_reused(known))
        return known

    def _keep(self, known: Known) -> None:
        """The dense result that this run compares to: kept for the next ones, and shown unless it is."""
        if self._known is None:
            self._show("dense", known.baseline.scene, known.baseline)
            self._tell(conditions=_conditions(known.baseline.scene))
        self._known = known
        self._memory.keep(self._key, self._request, known)

    def _measured(self, run: MeasuredRun) -> None:
        """One timed run has ended: its result is shown the first time, its times every time."""
        kind: Kind = "dense" if run.name == "dense" else "reduced"
        if kind == "dense":
            self._keep(Known(self._known.baseline if self._known else self._judged(run.scene), run))
        elif len(run.measured) == 1 and self._known is not None:
            self._show(kind, run.scene, self._known.baseline)
        self._tell(**{kind: SideReport("measured", fraction=1.0, cost=run.cost)})

    def _judged(self, dense: Reconstruction) -> Baseline:
        """The baseline with the truth of the clip, where it has one."""
        clip, size = self._request.clip, (dense.height, dense.width)
        return Baseline(dense, (lambda: _truth(clip.paths[0], *size)) if clip.bundled else None)

    def _scored(self, comparison: Comparison) -> Comparison:
        """With the distance of both runs from the truth, where the clip has one; it is rendered once per size."""
        clip, dense, reduced = self._request.clip, comparison.dense, comparison.reduced
        if not clip.bundled:
            return comparison
        self._tell(phase="comparing", doing="Comparing with the truth")
        truth = _truth(clip.paths[0], dense.height, dense.width)
        self._check()
        if truth is None:
            return comparison
        return replace(comparison, truth={"dense": evaluate(dense, truth), "reduced": evaluate(reduced, truth)})

    def _follow(self, progress: RunProgress) -> None:
        """Where the comparison is; a run that is only repeated keeps what its pane shows."""
        if progress.phase != "run":
            self._tell(doing="Warming up")
            return
        kind: Kind = "dense" if progress.run == "dense" else "reduced"
        repeat = f" {progress.turn + 1} of {progress.turns}" if progress.turns > 1 else ""
        self._tell(phase=kind, doing=f"{TITLES[kind]} run{repeat}")
        if progress.turn == 0:
            now = SideReport("running", progress.stage, progress.fraction, progress.milliseconds, progress.elapsed_ms)
            self._tell(**{kind: now})

    def _count_frames(self, done: int, total: int) -> None:
        self._tell(doing=f"Reading frame {done} of {total}")

    def _count_bytes(self, done: int, whole: int) -> None:
        self._tell(doing=f"Downloading: {byte_count(done)} of {byte_count(whole)}")

    def _wait_at(self, ahead: int) -> None:
        others = "one run is" if ahead == 1 else f"{ahead} runs are"
        self._tell(phase="waiting", place=ahead, doing=f"In line: {others} before yours")

    def _check(self) -> None:
        if self._cancel.is_set():
            raise Cancelled

    def _tell(self, **changes: Any) -> None:
        if self._cancel.is_set() and changes.get("phase") not in ("stopped", "failed"):
            changes["doing"] = "Stopping"
        self.report = replace(self.report, **changes)

    def _end(self, phase: str, message: str) -> None:
        def ended(side: SideReport) -> SideReport:
            return side if side.is_done else replace(side, state="stopped" if side.state == "running" else "empty")

        dense, reduced = ended(self.report.dense), ended(self.report.reduced)
        self._tell(phase=phase, doing="", message=message, dense=dense, reduced=reduced)


@lru_cache(maxsize=4)
def _truth(path: Path, height: int, width: int) -> Truth | None:
    return load_truth(path, size=(height, width))


def _reused(known: Known) -> SideReport:
    return SideReport("reused", fraction=1.0, cost=known.run.cost)


def _digest(frames: Frames) -> bytes:
    return blake2b(frames.images.data, digest_size=16, usedforsecurity=False).digest()


def _conditions(scene: Reconstruction) -> str:
    size = f"{len(scene)} frames at {scene.width} × {scene.height}"
    return f"{scene.model} · {size} · {scene.device} · {scene.dtype} · {scene.kernel} attention"


def _summary(comparison: Comparison) -> str:
    factor = comparison.total_factor()
    if factor is None:
        return comparison.doubt() or "Done."
    if factor.median < 1.05:
        return "Done. On so few tokens reduction does not pay: try more frames or larger factors."
    doubt = " The machine was busy meanwhile: take that with doubt." if comparison.busy else ""
    return f"Done. The whole run was {factor.median:.1f} times faster than dense.{doubt}"
