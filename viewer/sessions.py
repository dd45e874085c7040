"""All open sessions: how many there may be, which page each belongs to, and when each ends.

A page gives a sign of life every few seconds (`static/alive.js`) and says goodbye when it is closed; nothing else keeps
a session. So a tab that is closed ends within seconds, whatever calls of it are still on their way, and one whose
connection is lost keeps its clip, its settings and its run for minutes.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from viser import ViserServer

from spark3r.errors import InputError
from viewer.engine import Engine
from viewer.memory import give_back
from viewer.opening import Opening
from viewer.session import ENDED, Session
from viewer.timeline import Timeline

REAP_SECONDS = 1.0
LONGEST_NAME = 64  # letters of a page's name
MOST_PAGES = 16  # remembered of one session, the latest: a script that loads one again and again fills no memory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lifetimes:
    """Seconds that a session lives after …"""

    closed_s: float = 15.0  # its page said goodbye; one that is reloaded is back within
    unseen_s: float = (
        60.0  # it was opened by something that never gave a sign of life; a slow machine's page does in time
    )
    lost_s: float = 300.0  # the last sign of life of a page that fell silent: a tunnel, a laptop that was folded up


@dataclass(frozen=True)
class Limits:
    """How many sessions are open at once."""

    total: int = 32
    per_address: int = 8  # from one visitor's machine


@dataclass
class _Page:
    """One load of the page in one tab."""

    session: str  # its key
    due: float  # when it counts as gone
    beat: int = -1  # the number of its latest sign of life; signs may overtake each other


class Sessions:
    """All open tabs, by a key that each browser keeps over a reload; ends those whose pages are gone."""

    def __init__(
        self,
        engine: Engine,
        lifetimes: Lifetimes | None = None,
        limits: Limits | None = None,
        opening: Opening | None = None,
    ) -> None:
        self._engine, self._opening = engine, opening
        self._lifetimes, self._limits = lifetimes or Lifetimes(), limits or Limits()
        self._open: dict[str, Session] = {}  # by their key
        self._arriving: Counter[str] = Counter()  # address → sessions being opened
        self._hashes: dict[str, str] = {}  # gradio's hash of a loaded page → key
        self._pages: dict[str, _Page] = {}  # by the name that a page gives itself
        self._lock = threading.Lock()
        engine.memory.held = self.held_bytes
        self.tidy: Callable[[], None] = lambda: None  # called now and then, for what else visitors leave behind
        self._ended = threading.Event()
        self._reaper = threading.Thread(target=self._reap, name="spark3r-reaper", daemon=True)
        self._reaper.start()

    def open(self, tab: str, key: str = "", page: str = "", address: str = "") -> Session:
        """The session of a page that has just loaded: the one that `key` names, else a new one.

        tab      gradio's hash of the page; page: the name under which it gives its signs of life
        Raises InputError where no further session may be opened.
        """
        with self._lock:
            session = self._open.get(self._hashes.get(tab, key))
            if session is not None:
                self._admit(session, tab, page)
                return session
            self._check_room(address)
            self._arriving[address] += 1
        try:
            session = Session(self._engine, self._opening, address)  # a second or so
        finally:
            with self._lock:
                self._arriving[address] -= 1
        with self._lock:
            if not self._ended.is_set():
                self._open[session.key] = session
                self._admit(session, tab, page)
                return session
        session.close()
        raise InputError(ENDED)

    def of(self, tab: str | None) -> Session:
        """The session of an open tab; asking keeps nothing alive. Raises InputError for one that has ended."""
        with self._lock:
            session = self._open.get(self._hashes.get(tab or "", ""))
        if session is None:
            raise InputError(ENDED)
        return session

    def knows(self, tab: str) -> bool:
        """Whether a page of an open session has this hash of gradio's."""
        with self._lock:
            return self._hashes.get(tab) in self._open

    def alive(self, page: str, beat: int, key: str = "") -> bool:
        """A sign of life, the `beat`-th of this page; False where its session has ended.

        `key` names the session that a reloaded page brings along, before it has opened it.
        """
        with self._lock:
            known = self._pages.get(page[:LONGEST_NAME])
            if known is None and key in self._open:
                known = self._remember(page, key)
            if known is None:
                return False
            if beat > known.beat:
                known.beat, known.due = beat, time.monotonic() + self._lifetimes.lost_s
            return True

    def leave(self, page: str, beat: int) -> None:
        """The page is being closed or reloaded."""
        with self._lock:
            known = self._pages.get(page[:LONGEST_NAME])
            if known is not None and beat > known.beat:
                known.beat, known.due = beat, time.monotonic() + self._lifetimes.closed_s

    def server_of(self, pane_key: str) -> ViserServer | None:
        """The viser server behind a pane key."""
        with self._lock:
            panes = (pane for session in self._open.values() for pane in session.panes.values())
            return next((pane.server for pane in panes if pane.key == pane_key), None)

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
        """End every session; the app is going down. Runs first, so that none waits for another."""
        self._ended.set()
        self._reaper.join()
        for session in list(self._open.values()):
            session.stop()
        for key in list(self._open):
            self._end(key)

    def held_bytes(self) -> int:
        """What the results that open sessions keep take."""
        return sum(run.bytes for session in list(self._open.values()) for run in session.runs.values())

    def __len__(self) -> int:
        return len(self._open)

    def _check_room(self, address: str) -> None:
        """Raises InputError where one more session is one too many."""
        here = sum(one.address == address for one in self._open.values()) + self._arriving[address]
        if here >= self._limits.per_address:
            raise InputError(f"{here} pages are open from your machine already: close one, and reload this page.")
        if len(self._open) + self._arriving.total() >= self._limits.total:
            raise InputError("As many visitors as this app serves are here already: reload this page in a minute.")

    def _admit(self, session: Session, tab: str, page: str) -> None:
        self._hashes[tab] = session.key
        for old in [one for one, key in self._hashes.items() if key == session.key][:-MOST_PAGES]:
            del self._hashes[old]
        self._remember(page or tab, session.key)

    def _remember(self, page: str, key: str) -> _Page:
        known = self._pages.setdefault(page[:LONGEST_NAME], _Page(key, time.monotonic() + self._lifetimes.unseen_s))
        for old in [one for one, each in self._pages.items() if each.session == key][:-MOST_PAGES]:
            del self._pages[old]
        return known

    def _reap(self) -> None:
        uploads = self._engine.uploads
        while not self._ended.wait(min(self._lifetimes.closed_s, REAP_SECONDS)):
            for work in (self._end_due, uploads.tidy if uploads else lambda: None, self.tidy):
                try:
                    work()
                except Exception:  # a full disk, say, must not keep sessions from ending
                    log.exception("what visitors left could not be tidied")

    def _end_due(self) -> None:
        now = time.monotonic()
        with self._lock:
            due: dict[str, float] = {}
            for page in self._pages.values():
                due[page.session] = max(due.get(page.session, 0.0), page.due)
        for key in [key for key, when in due.items() if when <= now]:
            self._end(key)

    def _end(self, key: str) -> None:
        with self._lock:
            session = self._open.pop(key, None)
            self._hashes = {tab: of for tab, of in self._hashes.items() if of != key}
            self._pages = {name: page for name, page in self._pages.items() if page.session != key}
        if session is not None:
            try:
                session.close()
                give_back()
            except Exception:  # one tab's trouble must not keep the others from being tidied
                log.exception("a session did not end cleanly")
