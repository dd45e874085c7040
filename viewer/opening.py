"""What every visitor sees first: the first example clip, reconstructed once when the app starts."""

import logging
import threading
from contextlib import suppress
from pathlib import Path

from spark3r.errors import Cancelled
from spark3r.examples import list_clips
from spark3r.stopping import stoppable
from viewer.cache import Cache, truth_of
from viewer.engine import Engine, RunQueue
from viewer.job import Job
from viewer.planning import look_at
from viewer.request import Clip, RunRequest
from viewer.runs import Runs
from viewer.state import ReductionSettings, RunReport, SamplingSettings, Side

log = logging.getLogger(__name__)


class Opening:
    """The first example's runs, made in the background for all visitors."""

    address = ""  # nobody's

    def __init__(self, engine: Engine, sampling: SamplingSettings, reduction: ReductionSettings) -> None:
        self.runs, self.cache, self.scoring = Runs(), Cache(), RunQueue()
        first = list_clips()[0]
        clip = Clip(first.title, (Path(first.video),), first.name)
        self.request = RunRequest(clip, look_at(clip).info, sampling, reduction)
        self._queue = engine.queue
        self._job = Job(self.request, engine, self)
        self._is_over = False
        self._thread = threading.Thread(target=self._work, name="spark3r-opening", daemon=True)

    @property
    def report(self) -> RunReport:
        """How far it is."""
        return self._job.report

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End it at the next block, and wait for that, but no longer than a model's block takes."""
        self._is_over = True
        self._job.stop()
        if self._thread.is_alive():
            self._thread.join(timeout=20)

    def place(self, side: Side, name: str) -> None:
        """There is no pane yet: remember what would stand in it."""
        self.runs.show(side, name)

    def _work(self) -> None:
        self._job.work()
        if self.report.phase == "failed":
            log.warning("the first example could not be reconstructed: %s", self.report.message)
        with suppress(Cancelled), stoppable(lambda: self._is_over):
            self._render_truths()

    def _render_truths(self) -> None:
        """Of the other examples, at the size the first was shown in, so that nobody waits for them."""
        dense = self.runs.dense(self.request.input)
        if dense is None or dense.scene is None:
            return
        for clip in list_clips()[1:]:
            if look_at(Clip(clip.title, (Path(clip.video),), clip.name)).info.width == self.request.info.width:
                with self._queue.spare(lambda: False):
                    truth_of(Path(clip.video), dense.scene.height, dense.scene.width)
