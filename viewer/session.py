"""What belongs to one open tab: its two viser servers, its runs, its caches, its files. It ends with the tab."""

import logging
import secrets
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from viser import ViserServer

from spark3r.errors import InputError
from spark3r.reconstruction import Reconstruction
from viewer.display import Display
from viewer.engine import Engine
from viewer.locked_viser import open_viser
from viewer.planning import Look
from viewer.run import Clip, Memory, Run, RunRequest
from viewer.scene import PaneScene
from viewer.state import SIDES, TITLES, Kind, RunReport, Side, ViewSettings
from viewer.timeline import Timeline
from viewer.world import Baseline

GRACE_SECONDS = 6.0  # a tab whose connection hiccups comes back within this
REAP_SECONDS = 1.0
CANCEL_SECONDS = 20.0  # a run stops at its next block; only a model download takes longer

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Pane:
    """One 3-D view: its server, reached only through the app under `key`."""

    key: str
    server: ViserServer
    scene: PaneScene

    @classmethod
    def open(cls, view: ViewSettings) -> "Pane":
        server = open_viser()
        return cls(secrets.token_urlsafe(16), server, PaneScene(server, view))


class Session:
    """One visitor's tab."""

    def __init__(self, engine: Engine) -> None:
        self.view = ViewSettings()
        self.panes: dict[Side, Pane] = {side: Pane.open(self.view) for side in SIDES}
        self.download_key = secrets.token_urlsafe(16)
        self.display = Display({side: pane.scene for side, pane in self.panes.items()}, self.download_key)
        self.clip: Clip | None = None
        self.look: Look | None = None  # of the clip
        self.scenes: dict[Side, Reconstruction] = {}  # what the panes show, in the baseline's world: for download
        self._engine = engine
        self._memory = Memory()
        self._run: Run | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="spark3r-")

    @property
    def report(self) -> RunReport:
        """How far the latest run is."""
        return self._run.report if self._run else RunReport()

    @property
    def has_baseline(self) -> bool:
        """Whether a dense result is shown, so that another schedule can be compared to it."""
        return self.display.baseline is not None

    @property
    def folder(self) -> Path:
        """Where files made for this visitor stand until the tab closes."""
        return Path(self._folder.name)

    def start(self, request: RunRequest) -> None:
        """Begin a run in its own thread. Raises InputError while another one of this tab is going."""
        with self._lock:
            if self.report.is_busy:
                raise InputError("A run is going already: wait for it, or press Stop first.")
            self._run = Run(request, self._engine, self._memory, self._show)
            self._thread = threading.Thread(target=self._run.work, name="spark3r-run", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ask the run to end; nothing happens if none is going."""
        if self._run is not None:
            self._run.stop()

    def apply_view(self, view: ViewSettings) -> None:
        """Draw both panes under other view settings."""
        self.view = view
        self.display.apply(view)

    def close(self) -> None:
        """End the run, the servers and the files; may take seconds, so not on an event loop."""
        self.stop()
        if self._thread is not None:
            self._thread.join(timeout=CANCEL_SECONDS)
        for pane in self.panes.values():
            pane.server.stop()
        self._folder.cleanup()

    def _show(self, kind: Kind, scene: Reconstruction, baseline: Baseline) -> None:
        """Put a finished run into its pane. Called from the run's thread."""
        side: Side = "left" if kind == "dense" else "right"
        if baseline is not self.display.baseline:
            self.scenes.clear()
        self.scenes[side] = scene
        self.display.show(side, scene, TITLES[kind], baseline)


class Sessions:
    """All open tabs, by the hash gradio gives each; ends those whose tab is gone."""

    def __init__(self, engine: Engine, grace_s: float = GRACE_SECONDS) -> None:
        self._engine = engine
        self._grace_s = grace_s
        self._open: dict[str, Session] = {}
        self._leaving: dict[str, float] = {}  # hash → when it may be ended
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._reaper = threading.Thread(target=self._reap, name="spark3r-reaper", daemon=True)
        self._reaper.start()

    def open(self, key: str) -> Session:
        """The session of a tab that has just loaded."""
        with self._lock:
            self._leaving.pop(key, None)
            if key not in self._open:
                self._open[key] = Session(self._engine)
            return self._open[key]

    def of(self, key: str | None) -> Session:
        """The session of an open tab. Raises InputError for one that has ended."""
        with self._lock:
            self._leaving.pop(key or "", None)
            session = self._open.get(key or "")
        if session is None:
            raise InputError("This page has lost its session (the app was restarted): reload it.")
        return session

    def leave(self, key: str | None) -> None:
        """The tab's connection has ended; unless it comes back within the grace time, so does the session."""
        with self._lock:
            if key in self._open:
                self._leaving[key] = time.monotonic() + self._grace_s

    def server_of(self, pane_key: str) -> ViserServer | None:
        """The viser server behind a pane key; asking for it shows that the tab is there."""
        with self._lock:
            for key, session in self._open.items():
                for pane in session.panes.values():
                    if pane.key == pane_key:
                        self._leaving.pop(key, None)
                        return pane.server
        return None

    def by_download_key(self, download_key: str) -> Session | None:
        """The session whose files `download_key` opens."""
        with self._lock:
            return next((one for one in self._open.values() if one.download_key == download_key), None)

    def timeline_of(self, download_key: str) -> Timeline | None:
        """The frames that the session with this key shows."""
        session = self.by_download_key(download_key)
        return None if session is None else session.display.timeline

    def choose_frame(self, download_key: str, frame: int) -> None:
        """A frame was scrubbed to."""
        session = self.by_download_key(download_key)
        if session is not None:
            session.display.choose_frame(frame)

    def close(self) -> None:
        """End every session; the app is going down."""
        self._ended.set()
        self._reaper.join()
        for key in list(self._open):
            self._end(key)

    def _reap(self) -> None:
        while not self._ended.wait(min(REAP_SECONDS, self._grace_s or REAP_SECONDS)):
            now = time.monotonic()
            for key in [key for key, due in list(self._leaving.items()) if due <= now]:
                self._end(key)

    def _end(self, key: str) -> None:
        with self._lock:
            self._leaving.pop(key, None)
            session = self._open.pop(key, None)
        if session is not None:
            try:
                session.close()
            except Exception:  # one tab's trouble must not keep the others from being tidied
                log.exception("a session did not end cleanly")
