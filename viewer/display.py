"""What both panes and the strip beneath them show together: two runs of one clip in the world of its baseline."""

import threading
from collections.abc import Mapping

from spark3r.reconstruction import Reconstruction
from viewer.framing import Look
from viewer.scene import PaneScene
from viewer.state import Side, ViewSettings
from viewer.timeline import Timeline
from viewer.world import Baseline


class Display:
    """Any two runs, one in each pane."""

    def __init__(self, panes: Mapping[Side, PaneScene], key: str) -> None:
        self._panes, self._key = panes, key
        self._baseline: Baseline | None = None
        self._runs: dict[Side, Reconstruction] = {}
        self._titles: dict[Side, str] = {}
        self._version = 0
        self._lock = threading.RLock()
        self.timeline: Timeline | None = None  # of what is shown

    @property
    def baseline(self) -> Baseline | None:
        """Of the clip that is shown."""
        return self._baseline

    @property
    def address(self) -> str:
        """Where the browser finds the frames; "" while nothing is shown."""
        return self.timeline.address if self.timeline is not None else ""

    def show(self, side: Side, run: Reconstruction, title: str, baseline: Baseline) -> None:
        """Put a run, given in the world of its baseline, into a pane; another baseline empties both first."""
        with self._lock:
            if baseline is not self._baseline:
                self.clear()
                self._baseline = baseline
                self._look(baseline.framing.fit())
            if self._runs.get(side) is run and self._titles[side] == title:
                return  # measured again: browsers have all there is to see
            if self._runs.get(side) is not run:
                self._runs[side] = run
                self._panes[side].show(run, baseline)
            self._titles[side] = title
            self._version += 1
            self.timeline = Timeline(baseline, dict(self._runs), dict(self._titles), self._version, self._key)

    def apply(self, view: ViewSettings) -> None:
        """Draw both panes under other view settings."""
        for pane in self._panes.values():
            pane.apply(view)

    def choose_frame(self, frame: int) -> None:
        """Depth is seen from the camera of this frame."""
        for pane in self._panes.values():
            pane.look_from_frame(frame)

    def clear(self) -> None:
        """Show nothing."""
        with self._lock:
            self._baseline = self.timeline = None
            self._runs, self._titles = {}, {}
            for pane in self._panes.values():
                pane.clear()

    def _look(self, look: Look) -> None:
        for pane in self._panes.values():
            pane.look(look)
