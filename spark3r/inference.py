"""reconstruct(): the only place that joins a model and a schedule, and that knows device, type, chunks and cancel."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor

from spark3r.errors import Cancelled, DoesNotFit, InputError
from spark3r.estimate import Estimate, Schedule, estimate, network_size, schedule_for
from spark3r.frames import Frames
from spark3r.kernels.elementwise import compiling
from spark3r.measure import Meter, PeakMemory
from spark3r.models import preprocess
from spark3r.models.checkpoints import load_model
from spark3r.models.config import VitConfig
from spark3r.models.cost import FRAMES_AT_ONCE, head_frames, head_work
from spark3r.models.network import Network, Taps
from spark3r.reconstruction import Cost, Reconstruction
from spark3r.reduction import ReductionSchedule, SchedulePlanner
from spark3r.stages import STAGE_OF_SCOPE
from spark3r.tokens import WHOLE_CLIP, TokenLayout, WholeClip
from spark3r.windows import by_windows


@dataclass(frozen=True)
class Progress:
    """How far a run is: the stage it is in, the share of its work done, and what each stage has taken so far."""

    stage: str
    fraction: float  # 0 … 1
    milliseconds: dict[str, float]
    elapsed_ms: float


@torch.inference_mode()
def reconstruct(
    frames: Frames | np.ndarray,
    model: Network | str = "mini",
    schedule: Schedule = "auto",
    *,
    resolution: int | None = None,
    window: int | None = None,
    overlap: int | None = None,
    device: str | None = None,
    dtype: str | torch.dtype | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> Reconstruction:
    """Depth, confidence and cameras of a clip, in one pass or by windows, with what it cost.

    frames      Frames, or an array [S, H, W, 3] uint8 RGB
    model       a network from `load_model`, or its name
    schedule    a ReductionSchedule, a word for one ("auto": by length; "4x25", …; reduction/schedule.py has them all),
                or None for dense
    resolution  of the network's input in pixels: its longer side (VGGT: its width; π³, VGGT-Ω: the side of a square
                of equal area); None: the model's own
    window, overlap  frames reconstructed at once under the schedule, and how many of them neighbours share (None: a
                third); the same as the words "chunked:12+4" (dense) and "chunked:12+4:auto"
    device, dtype  used when `model` is a name; a network runs where it is
    progress    called several times a second; cancel: asked before every block, True raises Cancelled

    Raises InputError for what cannot be used, DoesNotFit before any work when memory will not do, Cancelled.
    """
    frames = frames if isinstance(frames, Frames) else Frames.of(frames)
    network = model if isinstance(model, Network) else _loaded(model, device, dtype, progress, cancel)
    schedule = _schedule(schedule, window, overlap, len(frames), network)

    def run(some: Frames, progress: Callable[[Progress], None] | None) -> Reconstruction:
        return _runner(some, network, schedule.of_a_window, resolution, progress, cancel)

    if schedule.frames_at_once(len(frames)) == len(frames):
        return run(frames, progress)
    return by_windows(frames, schedule, run, progress)


def _schedule(
    schedule: Schedule, window: int | None, overlap: int | None, num_frames: int, network: Network
) -> ReductionSchedule:
    """What schedule and windows mean together."""
    if window is None:
        if overlap is not None:
            raise InputError(f"overlap={overlap} without a window: give both, window=12 and overlap=4 say")
        return schedule_for(schedule, num_frames, network)
    meant = schedule_for(schedule, min(window, num_frames), network)
    return meant.with_(window=window, overlap=max(1, window // 3) if overlap is None else overlap)


def _loaded(
    model: str,
    device: str | None,
    dtype: str | torch.dtype | None,
    progress: Callable[[Progress], None] | None,
    cancel: Callable[[], bool] | None,
) -> Network:
    """A model by name; a download is told as the stage "download"."""
    if progress is None:
        return load_model(model, device, dtype, cancel=cancel)
    started = time.perf_counter()

    def told(done: int, whole: int) -> None:
        progress(Progress("download", done / whole, {}, (time.perf_counter() - started) * 1e3))

    return load_model(model, device, dtype, progress=told, cancel=cancel)


class Run:
    """One reconstruction under way: of a whole clip, or of the frames that this rank holds of one."""

    def __init__(
        self,
        frames: Frames,
        network: Network,
        schedule: Schedule,
        resolution: int | None,
        progress: Callable[[Progress], None] | None,
        cancel: Callable[[], bool] | None,
        clip: WholeClip = WHOLE_CLIP,
    ):
        self.frames, self.network, self.resolution, self.clip = frames, network, resolution, clip
        total = clip.total(len(frames))
        self.schedule = schedule_for(schedule, total, network)
        height, width = frames.images.shape[1:3]
        self.size = network_size(network, height, width, resolution)
        self.whole = network.trunk.layout(total, network.grid(*self.size))
        self.layout = clip.part_of(self.whole)
        self.progress, self.cancel = progress, cancel
        self.work = _Work(network, self.layout, self.schedule, self.size)

    def run(self) -> Reconstruction:
        """Encoder, trunk, heads, one after the other: the result for the frames held here."""
        with compiling(self.network.compiled):
            self._compile()
            return self._run()

    def _compile(self) -> None:
        """A tiny clip, dense and reduced, so that what is compiled is ready before anything is timed."""
        if not self.network.compiled or self.network in _ready:
            return
        if self.progress is not None:
            self.progress(Progress("compile", 0.0, {}, 0.0))
        side = 2 * self.network.config.patch
        images = torch.zeros(1, 4, 3, side, side, device=self.network.device)
        for schedule in (ReductionSchedule.off(), ReductionSchedule(2, 2)):
            self.network(images, SchedulePlanner(schedule, match_dtype=self.network.dtype))
        _ready.add(self.network)

    def _run(self) -> Reconstruction:
        with PeakMemory(self.network.device) as memory, Meter(self.network.device).hearing() as self.meter:
            with self._together():
                images, tokens, skip = self._encode()
            taps = self._aggregate(tokens)
            del tokens
            self.clip.now_in("heads")
            cameras = self.network.cameras(taps, *self.size, self.clip)
            with self._together():
                depth, confidence, intrinsics = self._densify(taps, skip, cameras.scale)
            if cameras.intrinsics is not None:
                intrinsics = self.clip.own(cameras.intrinsics)[0].float().cpu().numpy()
        height, width = self.frames.images.shape[1:3]
        return Reconstruction(
            images=images,
            depth=depth,
            confidence=confidence,
            world_from_camera=self.clip.own(cameras.world_from_camera)[0].float().cpu().numpy(),
            intrinsics=intrinsics,
            cost=self._cost(memory.peak_bytes),
            schedule=self.schedule,
            model=self.network.config.name,
            device=str(self.network.device),
            dtype=str(self.network.dtype).removeprefix("torch."),
            kernel=self.meter.kernels,
            indices=self.frames.indices,
            timestamps=self.frames.timestamps,
            names=self.frames.names,
            seen=preprocess.seen(self.network.config, height, width, self.resolution),
        )

    def check_memory(self) -> Run:
        """The run itself; raises DoesNotFit, with what would fit."""
        planned = estimate(self.network, len(self.frames), *self.size, self.schedule)
        if not planned.fits:
            needed, free = (count / 2**30 for count in (planned.needed_bytes, planned.available_bytes))
            raise DoesNotFit(
                f"{planned.frames} frames at {planned.width}×{planned.height} need about {needed:.1f} GiB "
                f"but {free:.1f} GiB are free: {self._advice(planned)}"
            )
        return self

    def _advice(self, planned: Estimate) -> str:
        longest = self._longest_clip(planned)
        return f"take at most {longest} frames, or lower the resolution" if longest else "lower the resolution"

    def _longest_clip(self, planned: Estimate) -> int:
        """The largest number of frames that fits (0: not even one)."""
        counts = range(1, planned.frames)

        def needed(frames: int) -> int:
            return estimate(self.network, frames, planned.height, planned.width, self.schedule).needed_bytes

        return bisect_right(counts, planned.available_bytes, key=needed)

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Around a stage whose chunks differ from rank to rank: all ranks end it, or all stop."""
        stopped: Cancelled | None = None
        try:
            yield
        except Cancelled as reason:
            stopped = reason
        if self.clip.any(stopped is not None):
            raise stopped or _stopped()

    def _encode(self) -> tuple[np.ndarray, Tensor, Tensor | None]:
        """Network-size images [S, H, W, 3], tokens [S, P, C] and mini's fine features, a chunk at a time."""
        images = np.empty((len(self.frames), *self.size, 3), np.uint8)
        tokens, skip = self.network.trunk.empty_tokens(self.layout), None
        for chunk in self._chunks("encoder", FRAMES_AT_ONCE):
            with self.meter.stage("preprocess"):
                frames = self.frames.images[chunk]
                images[chunk] = preprocess.resize(self.network.config, frames, self.resolution)
                batch = preprocess.to_tensor(images[chunk], self.network.device)
            with self.meter.stage("encoder"):
                encoded = self.network.encode(batch)
            tokens[chunk, -encoded.patches.shape[1] :] = encoded.patches
            if encoded.skip is not None:
                skip = encoded.skip.new_empty(len(images), *encoded.skip.shape[1:]) if skip is None else skip
                skip[chunk] = encoded.skip
        return images, tokens, skip

    def _aggregate(self, tokens: Tensor) -> Taps:
        planner = SchedulePlanner(self.schedule, match_dtype=self.network.dtype)
        plan = self.meter.timed(self.clip.across(planner, self.whole))
        scopes = [block.scope for block in self.network.config.blocks]
        numbered = iter(enumerate(scopes))

        def before_block() -> None:
            number, scope = next(numbered)
            self._step(scope, number)

        with self.meter.watching(self.network.trunk.blocks, scopes, before_block):
            return self.network.aggregate(tokens, self.layout, plan, self.network.offload, self.clip)

    def _densify(
        self, taps: Taps, skip: Tensor | None, scale: Tensor | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Depth and confidence [S, H, W] float32, and intrinsics [S, 3, 3] where the dense head finds them, moved off
        the device as they are made."""
        depth = np.empty((len(self.frames), *self.size), np.float32)
        confidence = np.empty_like(depth)
        intrinsics = np.empty((len(self.frames), 3, 3), np.float32)
        for chunk in self._chunks("heads", head_frames(self.size[0] * self.size[1])):
            with self.meter.stage("heads"):
                fine = None if skip is None else skip[chunk]
                dense = self.network.dense(taps, fine, chunk, *self.size, scale)
                depth[chunk] = dense.depth.cpu().numpy()
                confidence[chunk] = torch.sigmoid(dense.confidence_logit).cpu().numpy()
                if dense.intrinsics is not None:
                    intrinsics[chunk] = dense.intrinsics.cpu().numpy()
        return depth, np.maximum(confidence, np.finfo(np.float32).tiny, out=confidence), intrinsics

    def _chunks(self, stage: str, frames: int) -> Iterator[slice]:
        for start in range(0, len(self.frames), frames):
            self._step(stage)
            yield slice(start, min(start + frames, len(self.frames)))

    def _step(self, stage: str, block: int | None = None) -> None:
        """Before every block and chunk: stop if asked to, then tell how far we are."""
        self.clip.now_in(STAGE_OF_SCOPE.get(stage, stage), block)
        asked = self.cancel is not None and self.cancel()
        if asked if block is None else self.clip.any(asked):  # all ranks walk the same blocks, and end at the same one
            raise _stopped()
        fraction = self.work.begin(stage)
        if self.progress is not None:
            times = {"decode": self.frames.decode_ms, **self.meter.milliseconds}
            self.progress(Progress(STAGE_OF_SCOPE.get(stage, stage), fraction, times, self.meter.elapsed_ms))

    def _cost(self, peak_bytes: int) -> Cost:
        times = {"decode": self.frames.decode_ms, **self.meter.milliseconds}
        times["total"] = self.frames.decode_ms + self.meter.elapsed_ms
        times.setdefault("matching", 0.0)
        queries, keys = self.schedule.token_counts(self.whole)
        return Cost(times, peak_bytes, self.whole.total, queries, keys)


_ready: WeakSet[Network] = WeakSet()  # networks whose elementwise functions are compiled


def _stopped() -> Cancelled:
    return Cancelled("the reconstruction was stopped")


def _alone(
    frames: Frames,
    network: Network,
    schedule: ReductionSchedule,
    resolution: int | None,
    progress: Callable[[Progress], None] | None,
    cancel: Callable[[], bool] | None,
) -> Reconstruction:
    """In this process, all of it."""
    return Run(frames, network, schedule, resolution, progress, cancel).check_memory().run()


Runner = Callable[
    [
        Frames,
        Network,
        ReductionSchedule,
        "int | None",
        "Callable[[Progress], None] | None",
        "Callable[[], bool] | None",
    ],
    Reconstruction,
]

_runner: Runner = _alone


def run_by(runner: Runner) -> None:
    """From here on `reconstruct` leaves the work to this (team.py, where several processes share it)."""
    global _runner
    _runner = runner


class _Work:
    """Shares of the whole work, in multiply–adds with attention counted at the lower rate it runs at."""

    _ATTENTION_IS_SLOWER = 4

    def __init__(self, network: Network, layout: TokenLayout, schedule: ReductionSchedule, size: tuple[int, int]):
        config = network.config
        width = config.width
        queries, keys = schedule.token_counts(layout)
        linear = 12 * layout.total * width**2
        at_once = {"encoder": FRAMES_AT_ONCE, "heads": head_frames(size[0] * size[1])}
        chunks = {stage: -(-layout.frames // frames) for stage, frames in at_once.items()}
        depth = len(config.encoder.blocks) if isinstance(config.encoder, VitConfig) else 1
        self._share = {
            "frame": linear + 2 * layout.total * layout.per_frame * width * self._ATTENTION_IS_SLOWER,
            "global": linear + 2 * queries * keys * width * self._ATTENTION_IS_SLOWER,
            "register": linear * layout.special // layout.per_frame,
            "encoder": depth * linear // chunks["encoder"],
            "heads": head_work(config) * layout.frames * layout.patches // chunks["heads"],
        }
        self._total = sum(self._share[block.scope] for block in config.blocks)
        self._total += sum(chunks[stage] * self._share[stage] for stage in chunks)
        self._done = self._next = 0.0

    def begin(self, stage: str) -> float:
        """The share done when `stage` begins, 0 … 1."""
        self._done += self._next
        self._next = self._share[stage]
        return min(1.0, self._done / self._total)
