"""The processes of a run under `torchrun`: who leads, what the others are asked to do, and how all end when one fails.

Rank 0 runs the command or the page as if alone. The others wait in `World.jobs` for what it announces; every job is
plain JSON in torchrun's own key–value store, followed by collectives. Nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from spark3r.errors import Cancelled, InputError

PATIENCE = timedelta(minutes=10)  # of a collective
BEAT_SECONDS = 0.5
SILENT_SECONDS = 30.0  # without a sign of life a rank counts as lost,
SUSPECT_SECONDS = 2.0  # or after so many once something is known to be wrong

_FAILED, _JOB, _STOPPED, _ALIVE = "spark3r/failed", "spark3r/job/{}", "spark3r/stopped/{}", "spark3r/alive/{}"


def launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


class RankLost(InputError):
    """Another rank failed or is gone; the message names it and the cause."""


class World:
    """All ranks. `with World() as world:` joins them and leaves in order."""

    def __init__(self) -> None:
        store, self.rank, self.size = next(iter(rendezvous("env://", timeout=PATIENCE)))
        self._store = store
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(
            backend, store=PrefixStore("spark3r", store), rank=self.rank, world_size=self.size, timeout=PATIENCE
        )
        self._jobs = 0
        self._groups: dict[int, Any] = {self.size: None}
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._watch_others, name="spark3r-ranks", daemon=True)
        self._watch.start()
        signal.signal(signal.SIGTERM, self._terminated)

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def check_versions(self, **versions: str) -> None:
        """Raises InputError on every rank, naming the first that differs from rank 0, before any work."""
        mine = json.dumps({"torch": torch.__version__, "python": sys.version.split()[0], **versions})
        self._store.set(f"spark3r/versions/{self.rank}", mine)
        for rank in range(self.size):
            theirs = self._store.get(f"spark3r/versions/{rank}").decode()
            leader = self._store.get("spark3r/versions/0").decode()
            if theirs != leader:
                raise InputError(f"rank {rank} runs {theirs} and rank 0 {leader}: install the same versions on all")

    def group(self, ranks: int) -> Any:
        """The process group of the first `ranks` ranks; every rank must ask for it, in the same order."""
        if ranks not in self._groups:
            self._groups[ranks] = dist.new_group(list(range(ranks)), timeout=PATIENCE)
        return self._groups[ranks]

    def announce(self, kind: str, **facts: Any) -> None:
        """Rank 0 tells all others what they join next; facts are JSON."""
        self._jobs += 1
        self._store.set(_JOB.format(self._jobs), json.dumps({"kind": kind, **facts}))

    def jobs(self) -> Iterator[dict[str, Any]]:
        """What rank 0 announces, one after the other, until it leaves."""
        while True:
            self._jobs += 1
            key = _JOB.format(self._jobs)
            while not self._store.check([key]):
                time.sleep(0.02)
            job = json.loads(self._store.get(key))
            if job["kind"] == "leave":
                return
            yield job

    def stop(self) -> None:
        """Rank 0 asks that the job under way be stopped; others see it in `is_stopped`."""
        self._store.set(_STOPPED.format(self._jobs), "1")

    def is_stopped(self) -> bool:
        """Whether the job under way is to be stopped."""
        return self._store.check([_STOPPED.format(self._jobs)])

    @contextmanager
    def together(self) -> Iterator[None]:
        """Around what all ranks do in step: an error of one ends all, with its sentence."""
        try:
            yield
        except Cancelled:  # all ranks agreed to stop, and can go on
            raise
        except RuntimeError as error:
            known = self._culprit(SUSPECT_SECONDS + BEAT_SECONDS)
            if known is None:
                self.fail(error)
                raise
            raise RankLost(_sentence(*known)) from error
        except Exception as error:
            self.fail(error)
            raise

    def fail(self, error: BaseException) -> None:
        """Tells all ranks that this one cannot go on."""
        cause = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        self._store.set(_FAILED, json.dumps([self.rank, cause.splitlines()[0] if cause else type(error).__name__]))

    def close(self) -> None:
        """Rank 0 sends the others home; each leaves the group."""
        if self.leads:
            self.announce("leave")
        self._ended.set()
        self._watch.join(timeout=2 * BEAT_SECONDS)
        if dist.is_initialized():
            dist.destroy_process_group()

    def __enter__(self) -> World:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or self.leads:
            self.close()

    def _watch_others(self) -> None:
        """Shows that this rank lives, and ends it when another has failed: a collective would wait for that one."""
        beat = 0
        while not self._ended.wait(BEAT_SECONDS):
            beat += 1
            self._store.set(_ALIVE.format(self.rank), str(beat))
            known = self._culprit(0.0, SILENT_SECONDS)
            another = known is not None and known[0] != self.rank
            if known and another and not self._ended.wait(2 * BEAT_SECONDS):  # time to leave by itself
                self._end(*known)

    def _culprit(self, wait: float, silent: float = SUSPECT_SECONDS) -> tuple[int, str] | None:
        """(rank, cause) of a failure that is known within `wait` seconds; None if all seem well."""
        deadline = time.monotonic() + wait
        while True:
            if self._store.check([_FAILED]):
                rank, cause = json.loads(self._store.get(_FAILED))
                return int(rank), str(cause)
            lost = self._silent(silent)
            if lost is not None:
                return lost, "it is gone: killed, out of memory, or its machine cannot be reached"
            if time.monotonic() >= deadline:
                return None
            time.sleep(BEAT_SECONDS / 5)

    def _silent(self, seconds: float) -> int | None:
        """A rank whose sign of life has not changed for so long."""
        now = time.monotonic()
        seen = self.__dict__.setdefault("_seen", {})
        for rank in range(self.size):
            if rank == self.rank or not self._store.check([_ALIVE.format(rank)]):
                continue
            beat = self._store.get(_ALIVE.format(rank))
            known, since = seen.get(rank, (None, now))
            if beat != known:
                seen[rank] = (beat, now)
            elif now - since > seconds:
                return rank
        return None

    def _terminated(self, number: int, frame: object) -> None:
        """torchrun ends the others when one has died: say which, then go."""
        self._end(*(self._culprit(SUSPECT_SECONDS + BEAT_SECONDS) or (None, "the run was terminated")))

    def _end(self, rank: int | None, cause: str) -> None:
        speaker = 1 if rank == 0 else 0
        if self.rank == speaker:
            print(f"spark3r: {_sentence(rank, cause)}", file=sys.stderr, flush=True)
        os._exit(1)


def _sentence(rank: int | None, cause: str) -> str:
    return cause if rank is None else f"rank {rank} failed: {cause}"
