"""What all visitors share: the line they stand in, and the networks that are loaded."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from spark3r.errors import Cancelled, InputError
from spark3r.models.checkpoints import list_models, load_model, named, needs_download, pick_device, pick_dtype, skeleton
from spark3r.models.network import Network


class RunQueue:
    """First come, first served; one at a time."""

    def __init__(self) -> None:
        self._line: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, cancelled: Callable[[], bool], tell_place: Callable[[int], None]) -> Iterator[None]:
        """Wait for one's turn and hold it; `tell_place` hears how many are ahead. May raise Cancelled."""
        ticket = object()
        with self._changed:
            self._line.append(ticket)
        try:
            self._wait(ticket, cancelled, tell_place)
            yield
        finally:
            with self._changed:
                self._line.remove(ticket)
                self._changed.notify_all()

    def _wait(self, ticket: object, cancelled: Callable[[], bool], tell_place: Callable[[int], None]) -> None:
        with self._changed:
            while ahead := self._line.index(ticket):
                tell_place(ahead)
                if cancelled():
                    raise Cancelled
                self._changed.wait(timeout=0.2)


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
        """The network of that name or path, loaded if need be; that may take minutes. Raises InputError, Cancelled."""
        if not self._may_download and needs_download(name):
            raise InputError(
                f"{name} is not on this machine's disk, and visitors may not download: choose another model, or ask "
                "whoever runs the app to start it with --allow-downloads yes."
            )
        with self._loading:
            if name not in self._loaded:
                if not is_bundled(name):  # two large ones never stand in memory together
                    self._loaded = {known: model for known, model in self._loaded.items() if is_bundled(known)}
                self._loaded[name] = load_model(name, progress=progress, cancel=cancel)
            return self._loaded[name]

    def at_hand(self, name: str) -> Network | None:
        """The network if that takes no time, else None."""
        return self.get(name) if is_bundled(name) else self._loaded.get(name)


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
