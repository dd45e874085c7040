"""What scripts may call with gradio_client: `reconstruct` and `compare`, each one run in the line of all visitors.

from gradio_client import Client, handle_file
client = Client("http://127.0.0.1:7860/")
numbers, file = client.predict([handle_file("clip.mp4")], "mini", "auto", 300, 0, ".glb", api_name="/reconstruct")
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.concurrency import run_in_threadpool

from spark3r.compare import compare
from spark3r.errors import Cancelled, InputError
from spark3r.export import FORMATS, OWN_WORLD, Filters, Origin, estimated_bytes, file_name, write
from spark3r.frames import Frames, frames_for
from spark3r.inference import reconstruct
from spark3r.models.network import Network
from spark3r.reconstruction import USUAL_PERCENTILE, Reconstruction
from spark3r.reduction.schedule import ReductionSchedule
from spark3r.stopping import stoppable
from viewer.engine import Engine, needed_bytes
from viewer.planning import look_at
from viewer.request import Clip
from viewer.state import SamplingSettings

LOOK_SECONDS = 0.5  # between looks whether the script has left
FRAMES, RESOLUTION = 300, 0  # as on the page; 0: the model's own
SUFFIXES = tuple(suffix for suffix in FORMATS if suffix)

Numbers = dict[str, Any]
Work = Callable[[Frames, Network, str, int | None, Callable[[], bool]], tuple[Numbers, Reconstruction]]


@dataclass(frozen=True)
class _Call:
    """What a script asked for."""

    files: tuple[Path, ...]
    sampling: SamplingSettings
    schedule: str
    suffix: str
    address: str

    @classmethod
    def read(cls, values: tuple[Any, ...], request: gr.Request, models: Collection[str]) -> "_Call":
        """From the values of the inputs. Raises InputError for what none of them may be."""
        files, model, schedule, max_frames, resolution, suffix = values
        wanted = {"max_frames": max_frames, "fps": 0.0, "model": model, "resolution": resolution}
        if suffix not in SUFFIXES:
            raise InputError(f"format {suffix!r}: must be one of {', '.join(SUFFIXES)}.")
        if model not in models:
            raise InputError(f"model {model!r}: must be one of {', '.join(models)}.")
        if not files:
            raise InputError("No file came: give the clip as [handle_file(path)].")
        address = request.client.host if request.client else ""
        paths = tuple(Path(file) for file in files)
        if not all(path.is_file() for path in paths):
            raise InputError("A file of this clip is gone, as every file is after its run: bring it again.")
        return cls(paths, SamplingSettings.from_values(wanted), schedule or "auto", suffix, address)


class Scripting:
    """Runs for scripts: no session, no panes; what they bring and get goes ten minutes later."""

    def __init__(self, engine: Engine, models: Collection[str]) -> None:
        """models: names that may be asked for; a path of this machine's is for who starts the app."""
        self._engine, self._models = engine, models

    async def reconstruct(
        self, clip: Any, model: Any, schedule: Any, max_frames: Any, resolution: Any, format: Any, request: gr.Request
    ) -> AsyncIterator[tuple[Any, Any]]:
        """One reconstruction: (model, schedule, frames, size and milliseconds by stage; the file)."""
        values = (clip, model, schedule, max_frames, resolution, format)
        async for told in self._answer(values, request, _reconstructed):
            yield told

    async def compare(
        self, clip: Any, model: Any, schedule: Any, max_frames: Any, resolution: Any, format: Any, request: gr.Request
    ) -> AsyncIterator[tuple[Any, Any]]:
        """Dense against reduced: (what `spark3r compare --json` writes; the reduced result as a file)."""
        values = (clip, model, schedule, max_frames, resolution, format)
        async for told in self._answer(values, request, _compared):
            yield told

    async def _answer(self, values: tuple[Any, ...], request: gr.Request, work: Work) -> AsyncIterator[tuple[Any, Any]]:
        """The answer, after as many empty ones as it takes: a script that has left asks for no more of them."""
        stop = threading.Event()
        task = asyncio.ensure_future(run_in_threadpool(self._run, values, request, work, stop.is_set))
        try:
            while not (await asyncio.wait([task], timeout=LOOK_SECONDS))[0]:
                yield gr.skip(), gr.skip()
            yield task.result()
        except (InputError, Cancelled) as error:
            raise gr.Error(str(error) or "Stopped.", print_exception=False) from error
        finally:
            stop.set()

    def _run(
        self, values: tuple[Any, ...], request: gr.Request, work: Work, cancelled: Callable[[], bool]
    ) -> tuple[Numbers, str]:
        call, uploads = _Call.read(values, request, self._models), self._engine.uploads
        user = f"script {threading.get_ident()}"
        if uploads is not None:
            uploads.use(call.files, user)
        try:
            with stoppable(cancelled), self._engine.queue.turn(cancelled, lambda _: None, call.address):
                return self._worked(call, work, cancelled)
        finally:
            if uploads is not None:
                uploads.release(user)

    def _worked(self, call: _Call, work: Work, cancelled: Callable[[], bool]) -> tuple[Numbers, str]:
        clip, sampling = Clip(call.files[0].name, call.files), call.sampling
        needed = needed_bytes(look_at(clip).info, sampling, self._engine.models)
        self._engine.memory.ask(needed, cancelled, lambda _: None)
        model = self._engine.models.get(sampling.model, cancel=cancelled)
        resolution = sampling.resolution or None
        frames = frames_for(
            clip.source, model, max_frames=sampling.max_frames, resolution=resolution, cancel=cancelled
        )  # fmt: skip
        numbers, scene = work(frames, model, call.schedule, resolution, cancelled)
        return numbers, str(self._written(scene, clip, call))

    def _written(self, scene: Reconstruction, clip: Clip, call: _Call) -> Path:
        assert self._engine.uploads is not None  # a page that scripts can call has a place for files
        size = estimated_bytes(scene, call.suffix, Filters(USUAL_PERCENTILE, None))
        folder = self._engine.uploads.begin(call.address, size)
        path = folder / file_name(clip.name, scene, call.suffix)
        try:
            write(
                scene, path, min_confidence_percentile=USUAL_PERCENTILE,
                origin=Origin(clip.name, OWN_WORLD, clip.source),
            )  # fmt: skip
        except BaseException:
            self._engine.uploads.discard(folder)
            raise
        self._engine.uploads.complete(folder)
        return path


def _reconstructed(
    frames: Frames, model: Network, schedule: str, resolution: int | None, cancelled: Callable[[], bool]
) -> tuple[Numbers, Reconstruction]:
    scene = reconstruct(frames, model, _meant(schedule, frames, model), resolution=resolution, cancel=cancelled)
    about = {name: getattr(scene, name) for name in ("model", "device", "dtype", "kernel", "height", "width")}
    return {**about, "schedule": str(scene.schedule), "frames": len(scene), "cost": asdict(scene.cost)}, scene


def _compared(
    frames: Frames, model: Network, schedule: str, resolution: int | None, cancelled: Callable[[], bool]
) -> tuple[Numbers, Reconstruction]:
    meant = _meant(schedule, frames, model)
    comparison = compare(frames, model, meant, resolution=resolution, cancel=cancelled)
    return comparison.to_json(), comparison.reduced


def _meant(schedule: str, frames: Frames, model: Network) -> ReductionSchedule:
    """By a word; files of this machine are not a script's to name."""
    return ReductionSchedule.parse(schedule, len(frames), model.config.sensitive_layers, files=False)


def offer(scripting: Scripting) -> None:
    """Give both their names inside the open `gr.Blocks`; nothing of it is seen on the page."""
    inputs = [
        gr.File(label="clip", file_count="multiple", visible=False),
        gr.Textbox("mini", label="model", visible=False),
        gr.Textbox("auto", label="schedule", visible=False),
        gr.Number(FRAMES, label="max_frames", precision=0, visible=False),
        gr.Number(RESOLUTION, label="resolution", precision=0, visible=False),
        gr.Textbox(".glb", label="format", visible=False),
    ]
    outputs = [gr.JSON(label="numbers", visible=False), gr.File(label="file", visible=False)]
    for work in (scripting.reconstruct, scripting.compare):
        gr.Button(visible=False).click(
            work, inputs, outputs, api_name=work.__name__, concurrency_limit=None, show_progress="hidden"
        )
