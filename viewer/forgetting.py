"""What gradio keeps of every page that was ever loaded goes once nobody uses it.

For each page gradio keeps copies of all components, and the messages that nobody fetched: a quarter of a megabyte, for
as long as the process lives. Here it goes a while after the last call of a page whose session has ended, and of a
script's client that is done. So does how far an upload has come, which gradio keeps under a name that the page gives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import gradio as gr
from gradio.routes import file_upload_statuses

KEPT_SECONDS = 120.0  # of a page that no session knows, without a call: what it asked for last may be on its way
MOST_UPLOADS = 512  # ended or not begun, that are remembered at once: a script may ask for any name


class Forgetting:
    """What one running page remembers of its visitors' pages, by the names (hashes) that gradio gives these."""

    def __init__(self, demo: gr.Blocks, is_open: Callable[[str], bool]) -> None:
        self._demo, self._is_open = demo, is_open
        self._pages, self._uploads = _Unused(), _Unused()
        demo._queue.ANALYTICS_MAX_EVENTS = 0  # else a table of the last ten thousand calls is made anew at each

    def tidy(self) -> None:
        """Forget what has not been used for a while; called now and then, from any thread."""
        server = self._demo.server
        if server is not None and server.started:  # what gradio keeps is changed in its own thread alone
            server.servers[0].get_loop().call_soon_threadsafe(self._tidy)

    def _tidy(self) -> None:
        queue, states = self._demo._queue, self._demo.state_holder
        called = {event.session_hash for event in queue.event_ids_to_events.values()}  # in line, or at work
        told = {name for name, messages in queue.pending_messages_per_session.items() if not messages.empty()}
        kept = told | states.session_data.keys() | queue.pending_event_ids_session.keys()
        for name in self._pages.for_long(name for name in kept - called if not self._is_open(name)):
            self._forget(name)
        statuses, signals = file_upload_statuses._statuses, file_upload_statuses._signals
        at_work = {name for name, status in statuses.items() if not status.is_done}
        for name in self._uploads.for_long((statuses.keys() | signals.keys()) - at_work, MOST_UPLOADS):
            statuses.pop(name, None)
            signals.pop(name, None)

    def _forget(self, name: str) -> None:
        queue, states = self._demo._queue, self._demo.state_holder
        queue.pending_event_ids_session.pop(name, None)
        states.session_data.pop(name, None)
        states.time_last_used.pop(name, None)
        messages = queue.pending_messages_per_session.get(name)
        while messages is not None and not messages.empty():  # it stays itself: a connection may still listen to it
            messages.get_nowait()


class _Unused:
    """Names that nobody uses, and since when."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}  # the oldest first

    def for_long(self, unused: Iterable[str], most: int | None = None) -> list[str]:
        """Those that have been among the unused for a while, call after call, and the oldest of more than `most`."""
        now, unused = time.monotonic(), set(unused)
        stayed = {name: since for name, since in self._since.items() if name in unused}
        self._since = stayed | dict.fromkeys(unused - stayed.keys(), now)
        crowded = 0 if most is None else len(unused) - most
        return [
            name for at, (name, since) in enumerate(self._since.items()) if at < crowded or now - since >= KEPT_SECONDS
        ]
