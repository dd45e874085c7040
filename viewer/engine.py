"""What all visitors share: the line they stand in, and the networks that are loaded."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import count

from spark3r.errors import Cancelled, InputError
from spark3r.estimate import estimate, needed_memory, network_size
from spark3r.frames import SourceInfo, planned_frames
from spark3r.models.checkpoints import list_models, load_model, named, needs_download, pick_device, pick_dtype, skeleton
from spark3r.models.network import Network
from spark3r.stopping import aside
from viewer.memory import Memory
from viewer.state import SamplingSettings
from viewer.uploads import Uploads

MOST_WAITING = 4  # runs of one visitor in line
REMEMBERED_VISITORS = 1000  # whose latest turn is known
SPARE = -1  # the ticket of work that is no run


class RunQueue:
    """The line that runs stand in: one works at a time, and visitors take turns, however many runs each has in line.

    Short work may use the time that nobody stands in line.
    """

    def __init__(self, most_waiting: int = MOST_WAITING) -> None:
        self._most_waiting = most_waiting
        self._waiting: list[tuple[int, str]] = []  # (ticket, visitor), in the order of their arrival
        self._holder: int | None = None
        self._served: dict[str, int] = {}  # visitor → when they had their latest turn, as a count of turns
        self._tickets, self._turns = count(), count(1)
        self._changed = threading.Condition()
        self.turns, self.seconds = 0, 0.0  # that were had, and what they took together

    @property
    def length(self) -> int:
        """How many wait, the one that works not counted."""
        return len(self._waiting)

    @contextmanager
    def turn(
        self, cancelled: Callable[[], bool], tell_place: Callable[[int], None], visitor: str = ""
    ) -> Iterator[None]:
        """Wait for one's turn and hold it; `tell_place` hears how many are ahead. Raises Cancelled, and InputError for
        a visitor who has too many runs in line already."""
        ticket = self._join(visitor)
        try:
            self._wait(ticket, cancelled, tell_place)
            begun = time.monotonic()
            try:
                yield
            finally:
                self.turns, self.seconds = self.turns + 1, self.seconds + time.monotonic() - begun
        finally:
            with self._changed:
                self._waiting = [one for one in self._waiting if one[0] != ticket]
                self._holder = None if self._holder == ticket else self._holder
                self._changed.notify_all()

    @contextmanager
    def spare(self, cancelled: Callable[[], bool]) -> Iterator[None]:
        """Wait until nobody works or stands in line, and hold that for a moment: a run that comes meanwhile begins
        after it. May raise Cancelled."""
        with self._changed:
            while self._waiting or self._holder is not None:
                if cancelled():
                    raise Cancelled
                self._changed.wait(timeout=0.2)
            self._holder = SPARE
        try:
            yield
        finally:
            with self._changed:
                self._holder = None
                self._changed.notify_all()

    def _join(self, visitor: str) -> int:
        with self._changed:
            if sum(who == visitor for _, who in self._waiting) >= self._most_waiting:
                raise InputError(f"{self._most_waiting} of your runs wait in line already: let one of them end first.")
            ticket = next(self._tickets)
            self._waiting.append((ticket, visitor))
            return ticket

    def _wait(self, ticket: int, cancelled: Callable[[], bool], tell_place: Callable[[int], None]) -> None:
        with self._changed:
            while True:
                order = self._order()
                place = [number for number, _ in order].index(ticket)
                if place == 0 and self._holder is None:
                    break
                if ahead := place + (self._holder not in (None, SPARE)):
                    tell_place(ahead)
                if cancelled():
                    raise Cancelled
                self._changed.wait(timeout=0.2)
            visitor = order[0][1]
            self._waiting.remove(order[0])
            self._holder = ticket
            self._served.pop(visitor, None)  # the latest stands last
            self._served[visitor] = next(self._turns)
            while len(self._served) > REMEMBERED_VISITORS:
                del self._served[next(iter(self._served))]

    def _order(self) -> list[tuple[int, str]]:
        """Who works next: everybody's first run, then everybody's second; among these, whose turn is longest ago."""
        seen: Counter[str] = Counter()
        keyed = []
        for ticket, visitor in self._waiting:
            keyed.append(((seen[visitor], self._served.get(visitor, 0), ticket), (ticket, visitor)))
            seen[visitor] += 1
        return [each for _, each in sorted(keyed)]


class Models:
    """Loaded networks, shared by all visitors: the bundled ones, and the latest of the others."""

    def __init__(self, may_download: bool = True) -> None:
        self._may_download = may_download
        self._loading = threading.Lock()
        self._loaded: dict[str, Network] = {}

    def get(
        self,
        name: str,
        progress: Callable[[int, int], None] | None = None,  # bytes of a download so far, and in all
        cancel: Callable[[], bool] | None = None,
    ) -> Network:
        """The network of that name or path, loaded if need be; that may take minutes. Raises InputError, Cancelled.

        It is loaded in a thread that ends: torch keeps workers for every thread that has computed once, and where there
        are more of them than processors none of them waits awake, so that all runs take a tenth longer.
        """
        known = self._loaded.get(name)
        if known is not None:  # nobody waits for another visitor's download
            return known
        if not self._may_download and needs_download(name):
            raise InputError(
                f"{name} is not on this machine's disk, and visitors may not download: choose another model, or ask "
                "whoever runs the app to start it with --allow-downloads yes."
            )
        with self._loading:
            if name not in self._loaded:
                if not is_bundled(name):  # two large ones never stand in memory together
                    self._loaded = {known: model for known, model in self._loaded.items() if is_bundled(known)}
                self._loaded[name] = aside(partial(load_model, name, progress=progress, cancel=cancel), _never)
            return self._loaded[name]

    def at_hand(self, name: str) -> Network | None:
        """The network if that takes no time, else None."""
        return self.get(name) if is_bundled(name) else self._loaded.get(name)


def _never() -> bool:
    return False


@cache
def outline(name: str) -> Network:
    """The network of that name without weights, to tell sizes by. Raises InputError for an unknown name."""
    return skeleton(named(name).config).set_dtype(pick_dtype(None, pick_device(None)))


def is_bundled(name: str) -> bool:
    """Whether the model comes with the package."""
    return any(card.name == name and card.bundled for card in list_models())


@dataclass(frozen=True, eq=False)
class Engine:
    """What all visitors share."""

    queue: RunQueue
    models: Models
    uploads: Uploads | None = None  # None: nobody brings files
    memory: Memory = field(default_factory=Memory)


def needed_bytes(info: SourceInfo, sampling: SamplingSettings, models: Models) -> int:
    """Memory that a dense run of these frames asks for, beside a network that is loaded already; 0 for a file that was
    not read yet. Raises InputError."""
    count = planned_frames(info, sampling.max_frames, sampling.fps or None)
    resolution = sampling.resolution or None
    loaded = models.at_hand(sampling.model)
    if loaded is None and all(card.name != sampling.model for card in list_models()):
        return 0
    if loaded is None:
        return needed_memory(sampling.model, count, info.height, info.width, resolution)
    return estimate(loaded, count, *network_size(loaded, info.height, info.width, resolution)).needed_bytes
