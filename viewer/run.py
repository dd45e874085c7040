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
from typing import Any

from spark3r.compare import Comparison, compare, warm_up
from spark3r.errors import Cancelled, InputError
from spark3r.examples import load_truth
from spark3r.frames import Frames, SourceInfo, frames_for
from spark3r.inference import Progress, reconstruct
from spark3r.metrics import evaluate
from spark3r.metrics.truth import Truth
from spark3r.models.network import Network
from spark3r.reconstruction import Reconstruction
from spark3r.reduction.schedule import ReductionSchedule
from viewer.charts import byte_count
from viewer.engine import Engine
from viewer.state import Kind, ReductionSettings, RunReport, SamplingSettings, SideReport
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


class Memory:
    """What one visitor's runs leave for the next: the frames read last, and the latest baselines."""

    def __init__(self) -> None:
        self._frames: tuple[object, Frames] | None = None
        self._baselines: OrderedDict[object, Baseline] = OrderedDict()
        self._latest: tuple[object, Baseline] | None = None

    def frames(self, key: object, read: Callable[[], Frames]) -> Frames:
        """The frames of `key`, read only if they are not the ones read last."""
        if self._frames is None or self._frames[0] != key:
            self._frames = None
            self._frames = key, read()
        return self._frames[1]

    def baseline(self, key: object) -> Baseline | None:
        """The dense result of these frames, model and size, if it is kept."""
        return self._baselines.get(key)

    def expected(self, request: RunRequest) -> Baseline | None:
        """What is probably going to be reused, known before the frames are read."""
        return self._latest[1] if self._latest and self._latest[0] == request.input else None

    def keep(self, key: object, request: RunRequest, baseline: Baseline) -> None:
        """Remember a baseline; the oldest is forgotten."""
        self._latest = request.input, baseline
        self._baselines[key] = baseline
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
        warm_up(frames, model, schedule, self._request.sampling.resolution or None)
        self._check()
        baseline = self._baseline(frames, model)
        comparison = self._reduced(frames, model, schedule, baseline)
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

    def _baseline(self, frames: Frames, model: Network) -> Baseline:
        """The dense result of these frames: reused where it is known, else measured now."""
        sampling = self._request.sampling
        key = (_digest(frames), sampling.model, sampling.resolution)
        baseline = self._memory.baseline(key)
        report = None if baseline is None else _reused(baseline)
        if baseline is None:
            baseline = self._judged(self._dense(frames, model))
            report = SideReport("measured", fraction=1.0, cost=baseline.scene.cost)
        self._memory.keep(key, self._request, baseline)
        self._show("dense", baseline.scene, baseline)
        self._tell(dense=report, conditions=_conditions(baseline.scene))
        return baseline

    def _judged(self, dense: Reconstruction) -> Baseline:
        """The baseline with the truth of the clip, where it has one."""
        clip, size = self._request.clip, (dense.height, dense.width)
        return Baseline(dense, (lambda: _truth(clip.paths[0], *size)) if clip.bundled else None)

    def _dense(self, frames: Frames, model: Network) -> Reconstruction:
        self._tell(phase="dense", doing="Dense run", dense=SideReport("running"))
        return reconstruct(
            frames, model, ReductionSchedule.off(), resolution=self._request.sampling.resolution or None,
            progress=self._follow("dense"), cancel=self._cancel.is_set,
        )  # fmt: skip

    def _reduced(self, frames: Frames, model: Network, schedule: ReductionSchedule, baseline: Baseline) -> Comparison:
        self._tell(phase="reduced", doing="Spark3R run", reduced=SideReport("running"))
        comparison = compare(
            frames, model, schedule, baseline=baseline.scene, resolution=self._request.sampling.resolution or None,
            progress=self._follow("reduced"), cancel=self._cancel.is_set,
        )  # fmt: skip
        self._show("reduced", comparison.reduced, baseline)
        cost = comparison.reduced.cost
        self._tell(reduced=SideReport("measured", fraction=1.0, cost=cost), comparison=comparison)
        return comparison

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
        return replace(comparison, dense_truth=evaluate(dense, truth), reduced_truth=evaluate(reduced, truth))

    def _follow(self, side: Kind) -> Callable[[Progress], None]:
        def heard(progress: Progress) -> None:
            now = SideReport("running", progress.stage, progress.fraction, progress.milliseconds, progress.elapsed_ms)
            self._tell(**{side: now})

        return heard

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


def _reused(baseline: Baseline) -> SideReport:
    return SideReport("reused", fraction=1.0, cost=baseline.scene.cost)


def _digest(frames: Frames) -> bytes:
    return blake2b(frames.images.data, digest_size=16, usedforsecurity=False).digest()


def _conditions(scene: Reconstruction) -> str:
    size = f"{len(scene)} frames at {scene.width} × {scene.height}"
    return f"{scene.model} · {size} · {scene.device} · {scene.dtype} · {scene.kernel} attention"


def _summary(comparison: Comparison) -> str:
    factor = comparison.speedup_aggregator
    if factor < 1.05:
        return "Done. On so few tokens reduction does not pay: try more frames or larger factors."
    return f"Done. The part that reduction changes ran {factor:.1f} times faster than dense."
