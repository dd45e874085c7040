"""What belongs to one open tab: its two viser servers, its runs, its caches, its files. It ends with the tab."""

import secrets
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from viser import ViserServer

from spark3r.errors import InputError
from spark3r.reconstruction import Reconstruction
from spark3r.reduction.schedule import ReductionSchedule
from viewer.cache import Cache
from viewer.display import Display
from viewer.engine import Engine, RunQueue
from viewer.job import Job
from viewer.locked_viser import open_viser
from viewer.opening import Opening
from viewer.planning import Look
from viewer.readout import title
from viewer.request import Clip, Input, RunRequest
from viewer.runs import KeptRun, Runs
from viewer.scene import PaneScene
from viewer.state import SIDES, RunReport, Side, ViewSettings
from viewer.sweep import Grid, SweepJob

CANCEL_SECONDS = 20.0  # a run stops at its next block; with a large model on a CPU that may take seconds
SCORED_LATER = 1000  # runs whose scores may be outstanding
ENDED = "This page's session has ended: reload the page."


@dataclass(frozen=True, eq=False)
class Pane:
    """One 3-D view: its server, reached only through the app under `key`."""

    key: str
    server: ViserServer
    scene: PaneScene

    @classmethod
    def open(cls, view: ViewSettings) -> "Pane":
        """Starts the 3-D server of this pane."""
        server = open_viser()
        return cls(secrets.token_urlsafe(16), server, PaneScene(server, view))


class Session:
    """One visitor's tab."""

    def __init__(self, engine: Engine, opening: Opening | None = None, address: str = "") -> None:
        self.address = address  # of the visitor's machine
        self.key = secrets.token_urlsafe(16)  # the browser shows it when it reloads
        self.view = ViewSettings()
        self.panes: dict[Side, Pane] = {side: Pane.open(self.view) for side in SIDES}
        self.download_key = secrets.token_urlsafe(16)
        self.display = Display({side: pane.scene for side, pane in self.panes.items()}, self.download_key)
        self.clip: Clip | None = None
        self.look: Look | None = None  # of the clip
        self.complaint = ""  # why the files dropped last cannot be used; nothing runs until that is mended
        self.settings: Mapping[str, Any] = {}  # of the controls, to set them again after a reload
        self.planned: tuple[Input, ReductionSchedule] | None = None  # what a run would be now
        self.sweep_seconds: Callable[[Grid, Mapping[str, float]], float] | None = None  # by a dense run's stages
        self.compares_models = False  # the table of all models is unfolded
        self.measure, self.grid = "depth", Grid()  # of the plot
        self.runs, self.cache, self.scoring = Runs(), Cache(), RunQueue(most_waiting=SCORED_LATER)
        self.followers = 0  # the latest one follows, the others leave off
        self.wishes = 0  # moves with every press, Stop too, so that what waited for its turn sees that it is outdated
        self._engine, self._opening = engine, opening
        self._job: Job | None = None  # the latest; those before it may still find their scores
        self._threads: dict[threading.Thread, Job] = {}
        self._has_ended = False
        self._exports: set[threading.Event] = set()  # one for each under way, set to stop it
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="spark3r-")

    @property
    def report(self) -> RunReport:
        """How far the latest job is; before the first, how far the first example is."""
        if self._job is not None:
            return self._job.report
        if self._opening is not None and not self.runs:
            return self._opening.report
        return RunReport()

    @property
    def is_working(self) -> bool:
        """Whether a job of this visitor's own is going; the first example's is nobody's."""
        return self._job is not None and self._job.report.is_working

    @property
    def has_baseline(self) -> bool:
        """Whether a dense result is shown, so that another schedule can be compared to it."""
        return self.display.baseline is not None

    @property
    def folder(self) -> Path:
        """Where files made for this visitor stand until the tab closes."""
        return Path(self._folder.name)

    @property
    def scenes(self) -> dict[Side, Reconstruction]:
        """What the panes show, in the world of the dense run: for download."""
        shown: dict[Side, KeptRun | None] = {side: self.runs.at(side) for side in SIDES}
        return {side: run.scene for side, run in shown.items() if run is not None and run.scene is not None}

    def is_stale(self, side: Side) -> bool:
        """Whether a pane shows something else than a run of the present settings would."""
        run = self.runs.at(side)
        if run is None or self.planned is None:
            return False
        source, schedule = self.planned
        return run.input != source or (side == "right" and run.schedule != schedule)

    def adopt(self) -> bool:
        """Take over the first example's runs, once they are there and nothing of the visitor's own is."""
        opening = self._opening
        if opening is None or self._job is not None or self.runs or opening.report.phase != "done":
            return False
        source = opening.request.input
        dense = opening.cache.dense(source)
        if dense is None:
            return False
        self.cache.keep_dense(source, *dense)
        for run in opening.runs.values():
            self.runs.keep(replace(run, name=self.runs.new_name(), at_start=True))
        for side, name in opening.runs.shown.items():
            self.place(
                side, next(run.name for run in self.runs.values() if run.schedule == opening.runs[name].schedule)
            )
        return True

    def use(self, files: Iterable[Path]) -> None:
        """Files that the visitor brought are kept as long as the session."""
        if self._engine.uploads is not None:
            self._engine.uploads.use(files, self.key)

    def start(self, request: RunRequest, *, both: bool = False) -> None:
        """Begin a run in its own thread; `both`: measure the dense run again. Raises InputError while one is going."""
        self._begin(Job(request, self._engine, self, both=both))

    def sweep(self, request: RunRequest, grid: Grid) -> None:
        """Begin a sweep in its own thread. Raises InputError while a run is going."""
        self._begin(SweepJob(request, grid, self._engine, self))

    def _begin(self, job: Job) -> None:
        with self._lock:
            if self._has_ended:  # pressed just before the tab was closed
                raise InputError(ENDED)
            if self.is_working:
                raise InputError("A run is going already: wait for it, or press Stop first.")
            thread = threading.Thread(target=job.work, name="spark3r-run", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no more threads
                raise InputError("This machine is too busy to start a run: try again in a moment.") from error
            self._job = job
            self._threads = {one: of for one, of in self._threads.items() if one.is_alive()} | {thread: job}

    def stop(self) -> None:
        """Ask the run to end, one that waits to be started too, and what is being exported."""
        self.stop_run()
        for export in tuple(self._exports):
            export.set()

    def stop_run(self) -> None:
        """Ask the run to end, one that waits to be started too."""
        self.wishes += 1
        if self._job is not None:
            self._job.stop()

    @contextmanager
    def exporting(self) -> Iterator[threading.Event]:
        """Within, Stop and the end of the session set the event. Raises InputError once the session has ended."""
        stop = threading.Event()
        self._exports.add(stop)
        try:
            if self._has_ended:
                raise InputError(ENDED)
            yield stop
        finally:
            self._exports.discard(stop)

    def apply_view(self, view: ViewSettings) -> None:
        """Draw both panes under other view settings."""
        self.view = view
        self.display.apply(view)

    def place(self, side: Side, name: str) -> None:
        """Put a kept run into a pane; a run of another clip or model takes the other pane's away. From any thread."""
        run = self.runs[name]
        if run.scene is None:
            raise InputError("The result of this run was let go to save memory: set its factors and run it again.")
        if run.baseline is not self.display.baseline:
            self.runs.clear_shown()
        self.runs.show(side, name)
        self.display.show(side, run.scene, title(run), run.baseline)

    def show(self, run: KeptRun) -> None:
        """Put a run into the right pane, and beside it the dense one of the same clip, unless one stands there."""
        left = self.runs.at("left")
        dense = self.runs.dense(run.input)
        if (left is None or left.input != run.input) and dense is not None:
            self.place("left", dense.name)
        self.place("right", run.name)

    @property
    def compared(self) -> list[KeptRun]:
        """The runs that the plot shows: those of the present clip, frames and model."""
        return self.runs.of(self.planned[0]) if self.planned else []

    def close(self) -> None:
        """End the run, the servers and the files; may take seconds, so not on an event loop."""
        with self._lock:
            self._has_ended = True
        for job in self._threads.values():
            job.stop()
        for thread in self._threads:
            thread.join(timeout=CANCEL_SECONDS)
        for pane in self.panes.values():
            pane.server.stop()
        self._folder.cleanup()
        if self._engine.uploads is not None:
            self._engine.uploads.release(self.key)
