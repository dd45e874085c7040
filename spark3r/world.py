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
from collections.abc import Callable, Iterator
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
POLL_SECONDS = 0.02
SILENT_SECONDS = 30.0  # without a sign of life a rank counts as lost,
SUSPECT_SECONDS = 2.0  # or after so many once something is known to be wrong
LEAVING_SECONDS = 10.0  # for a job to stop when its process ends

GONE = "it is gone: killed, out of memory, or its machine cannot be reached"

_FAILED, _LEFT = "spark3r/failed", "spark3r/left"
_JOB, _STOPPED, _ALIVE = "spark3r/job/{}", "spark3r/stopped/{}", "spark3r/alive/{}"


def launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def finish_together() -> None:
    """Waits until every process that torchrun started has come here, for it ends all where one ends with an error."""
    if not launched():
        return
    store, own, size = next(iter(rendezvous("env://", timeout=PATIENCE)))
    store.set(f"spark3r/finished/{own}", "1")
    while not all(store.check([f"spark3r/finished/{rank}"]) for rank in range(size)):
        time.sleep(10 * POLL_SECONDS)


class RankLost(InputError):
    """Another rank failed or is gone; the message names it and the cause."""


class RankFailed(InputError):
    """A rank could not do its part, and all know it: they give the job up together, and can go on with the next."""


class World:
    """All ranks. `with World() as world:` joins them and leaves in order.

    tidy  called where a process ends at once, without unwinding: removes what is half written
    """

    def __init__(self, tidy: Callable[[], None] = lambda: None) -> None:
        self._tidy = tidy
        store, self.rank, self.size = next(iter(rendezvous("env://", timeout=PATIENCE)))
        self._store = store
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(
            backend, store=PrefixStore("spark3r", store), rank=self.rank, world_size=self.size, timeout=PATIENCE
        )
        self._jobs = 0
        self._done = (0, 0.0)  # the job under way, and the share of it that is done here
        self._idle = threading.Event()  # no job is under way
        self._idle.set()
        self._seen: dict[int, tuple[str, float]] = {}  # a rank's last sign of life, and since when it is that
        self._groups: dict[int, Any] = {self.size: None}
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._watch_others, name="spark3r-ranks", daemon=True)
        self._watch.start()
        signal.signal(signal.SIGTERM, self._terminated)
        if not self.leads:  # Ctrl-C reaches every process of a terminal: rank 0 answers it, for all
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which speaks and writes."""
        return self.rank == 0

    def check_versions(self, **versions: str) -> None:
        """Raises RankLost on every rank, naming the first that differs from rank 0, before any work."""
        mine = {"torch": torch.__version__, "python": sys.version.split()[0], **versions}
        self.check_same("versions", ", ".join(f"{what} {version}" for what, version in mine.items()))

    def check_same(self, key: str, mine: str) -> None:
        """All ranks come here with the same words, or RankLost on all names the first that differs from rank 0."""
        place = f"spark3r/{key}/{self._jobs}"  # of this job: what was said in another does not count
        self._store.set(f"{place}/{self.rank}", mine)
        leader, *others = (self._awaited(f"{place}/{rank}") for rank in range(self.size))
        for rank, theirs in enumerate(others, 1):
            if theirs != leader:
                raise RankLost(f"rank {rank} has {theirs} and rank 0 has {leader}: install the same on all")

    def _awaited(self, key: str) -> str:
        """What is stored there, once it is: looked for again and again, for who waits in the store cannot be ended."""
        while not self._store.check([key]):
            time.sleep(POLL_SECONDS)
        return self._store.get(key).decode()

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
            job = json.loads(self._awaited(_JOB.format(self._jobs)))
            if job["kind"] == "leave":
                return
            yield job

    def stop(self) -> None:
        """Rank 0 asks that the job under way be stopped; others see it in `is_stopped`."""
        self._store.set(_STOPPED.format(self._jobs), "1")

    def is_stopped(self) -> bool:
        """Whether the job under way is to be stopped."""
        return self._store.check([_STOPPED.format(self._jobs)])

    def done(self, fraction: float) -> None:
        """This rank has done that share of the job under way, 0 … 1; others learn of it with its next sign of life."""
        self._done = (self._jobs, fraction)

    def least_done(self) -> float:
        """Of the job under way, by the rank that is furthest behind, as far as others have told."""
        told = [beat.split() for beat, _ in list(self._seen.values())]
        return min([1.0, *(float(fraction) for _, job, fraction in told if int(job) == self._jobs)])

    @contextmanager
    def together(self) -> Iterator[None]:
        """Around what all ranks do in step: an error of one ends all, with its sentence."""
        self._idle.clear()
        try:
            yield
        except (Cancelled, RankFailed, RankLost):  # all ranks know it
            raise
        except KeyboardInterrupt:
            self._tell_cause("it was interrupted")
            raise
        except (MemoryError, torch.cuda.OutOfMemoryError, InputError) as error:
            self.fail(error)
            raise RankLost(_sentence(self.rank, _cause(error))) from error
        except RuntimeError as error:  # most often: a collective broke, for another rank has ended
            known = self._culprit(SUSPECT_SECONDS + BEAT_SECONDS)
            if known is None:
                self.fail(error)
                raise
            if not self.leads and self._speaks_of(*known):  # rank 0 says it where its command ends
                print(f"spark3r: {_sentence(*known)}", file=sys.stderr, flush=True)
            raise RankLost(_sentence(*known)) from error
        except Exception as error:
            self.fail(error)
            raise
        finally:
            self._idle.set()

    def fail(self, error: BaseException) -> None:
        """Tells all ranks that this one cannot go on."""
        self._tell_cause(_cause(error))

    def _tell_cause(self, cause: str) -> None:
        """Of the first failure: those that follow from it say nothing new."""
        self._store.compare_set(_FAILED, "", json.dumps([self.rank, cause]))

    def say_goodbye(self) -> None:
        """Rank 0 sends the others home; what they miss of it from now on is no failure."""
        self._store.set(_LEFT, "1")
        self.announce("leave")

    def close(self) -> None:
        """Leaves the group; rank 0 when a job that another of its threads is in has stopped, and with all others."""
        if self.leads:
            if not self._idle.is_set():
                self.stop()
                self._idle.wait(LEAVING_SECONDS)
            self.say_goodbye()
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
            try:
                job, fraction = self._done
                self._store.set(_ALIVE.format(self.rank), f"{beat} {job} {fraction:.4f}")
                known = self._culprit(0.0, SILENT_SECONDS)
            except RuntimeError:  # the store is torchrun's
                if not self._ended.wait(2 * BEAT_SECONDS):
                    self._end(None, "torchrun is gone")
                return
            another = known is not None and known[0] != self.rank
            if known and another and not self._ended.wait(2 * BEAT_SECONDS):  # time to leave by itself
                self._end(*known)

    def _culprit(self, wait: float, silent: float | None = None) -> tuple[int, str] | None:
        """(rank, cause) of a failure that is known within `wait` seconds; None if all seem well."""
        deadline, silent = time.monotonic() + wait, silent or SUSPECT_SECONDS
        while True:
            if self._store.check([_FAILED]):
                rank, cause = json.loads(self._store.get(_FAILED))
                return int(rank), str(cause)
            if self._store.check([_LEFT]):
                return None
            lost = self._silent(silent)
            if lost is not None:
                return lost, GONE
            if time.monotonic() >= deadline:
                return None
            time.sleep(BEAT_SECONDS / 5)

    def _silent(self, seconds: float) -> int | None:
        """A rank whose sign of life has not changed for so long. Usually rank 0 looks at all and all look at rank 0, so
        that signs of life stay few with many ranks."""
        now = time.monotonic()
        everyone = self.leads or seconds < SILENT_SECONDS
        for rank in range(self.size) if everyone else (0,):
            if rank == self.rank or not self._store.check([_ALIVE.format(rank)]):
                continue
            beat = self._store.get(_ALIVE.format(rank)).decode()
            known, since = self._seen.get(rank, ("", now))
            if beat != known:
                self._seen[rank] = (beat, now)
            elif now - since > seconds:
                return rank
        return None

    def _speaks_of(self, rank: int | None, cause: str) -> bool:
        """Whether this rank tells the person: rank 0 does, and rank 1 where that is gone."""
        return self.rank == (1 if rank == 0 and cause == GONE else 0)

    def _terminated(self, number: int, frame: object) -> None:
        """torchrun ends the others when one has died: say which, then go."""
        if self._store.check([_LEFT]):
            os._exit(0)
        self._end(*(self._culprit(SUSPECT_SECONDS + BEAT_SECONDS) or (None, "the run was terminated")))

    def _end(self, rank: int | None, cause: str) -> None:
        if self._speaks_of(rank, cause):
            print(f"spark3r: {_sentence(rank, cause)}", file=sys.stderr, flush=True)
        self._tidy()
        os._exit(1)


def _sentence(rank: int | None, cause: str) -> str:
    return cause if rank is None else f"rank {rank} failed: {cause}"


def _cause(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return "it ran out of memory: take fewer frames, lower the resolution, or share the clip among more ranks"
    cause = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return cause.splitlines()[0] if cause else type(error).__name__
