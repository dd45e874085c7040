"""Which of several ways is the fastest here: measured once for a machine and a size class, then remembered.

What is fast differs between processors, GPUs and versions of torch, so nothing here knows any of them. Measurements
take milliseconds; they are kept in the process and in `kernels.json` of the cache folder, by machine.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch

from spark3r.errors import InputError
from spark3r.files import replacing

CACHE_FOLDER = "SPARK3R_CACHE"  # the environment variable that moves the cache folder
_FEWEST, _MOST = 3, 9  # rounds: more than the fewest while other work disturbs them
_AGREE = 1.25  # the two shortest runs of a way are this close where nothing has disturbed both
_GIVE_UP = 10.0  # after its first timed round a way so many times slower than the fastest is not timed again

Times = dict[str, float]
"""Milliseconds of each way that ran."""


def measure(ways: Mapping[str, Callable[[], object]], clock: Callable[[], float] = time.perf_counter) -> Times:
    """The shortest of a few runs of each way, taken in turns after a warm-up. A way that raises is left out.

    What is found is remembered for good, so a disturbed moment must not decide: there are more runs while the two
    shortest of any way disagree. `clock` tells seconds, when all that was started is done.
    """
    runnable = {name: way for name, way in ways.items() if _runs(way)}
    spent: dict[str, list[float]] = {name: [] for name in runnable}

    def shortest() -> Times:
        return {name: min(some) * 1e3 for name, some in spent.items() if some}

    for number in range(_MOST):
        if number >= _FEWEST and all(map(_agree, spent.values())):
            break
        for name, way in runnable.items():
            known = shortest()
            if known.get(name, 0.0) > _GIVE_UP * min(known.values(), default=math.inf):
                continue
            start = clock()
            way()
            spent[name].append(clock() - start)
    return shortest()


def _agree(some: list[float]) -> bool:
    """Whether a way was seen twice to take about as long; what was given up after one run need not be."""
    first, *others = sorted(some)
    return not others or others[0] <= _AGREE * first


def fastest(times: Times, ways: Iterable[str]) -> str:
    """The measured fastest of these ways, the first where none was measured."""
    measured = [name for name in ways if name in times]
    return min(measured, key=times.__getitem__) if measured else next(iter(ways))


def _runs(way: Callable[[], object]) -> bool:
    """Whether it runs at all, which also warms it up: kernels refuse sizes, types and devices, packages are absent."""
    try:
        way()
    except (RuntimeError, ValueError, ImportError, TypeError):
        return False
    return True


def device_clock(device: torch.device) -> Callable[[], float]:
    """Seconds, once the device has done what it was given."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


_chosen: list[float] = []  # seconds of every question that was measured in this process


def seconds_choosing() -> float:
    """What measuring kernels took in this process so far: the first run of a size pays it, and it is no part of it."""
    return sum(_chosen)


class Memory:
    """Measured times by question, of this machine and torch: in the process, and in a file for the next one.

    A file that cannot be read, or is not ours, is as none: its content is only ever a shortcut.
    """

    def __init__(self, path: Path, machine: str):
        self.path, self.machine = path, machine
        self._known: dict[str, Times] = dict(_entries(path).get(machine, {}))
        self._lock = threading.Lock()

    def times(self, question: str, ask: Callable[[], Times]) -> Times:
        """What is known of the question, or else what `ask` measures now."""
        known = self._known.get(question)
        if known is not None:
            return known
        with self._lock:  # two threads that time at once would disturb each other
            if question not in self._known:
                started = time.perf_counter()
                self._known[question] = _apart(ask)
                self._write()
                _chosen.append(time.perf_counter() - started)
            return self._known[question]

    def _write(self) -> None:
        entries = _entries(self.path)
        entries[self.machine] = {**entries.get(self.machine, {}), **self._known}
        with contextlib.suppress(InputError), replacing(self.path) as file:  # read-only homes must not stop a run
            file.write_text(json.dumps({"about": "Spark3R", "machines": entries}, indent=1), encoding="utf-8")


def _apart(ask: Callable[[], Times]) -> Times:
    """In a thread of its own: counters, autocast and inference mode of the run under way neither see nor change it."""
    with ThreadPoolExecutor(1, "spark3r-kernels") as alone:
        return alone.submit(torch.no_grad()(ask)).result()


def _entries(path: Path) -> dict[str, dict[str, Times]]:
    """What the file holds of all machines, only what has the right form."""
    try:
        machines = json.loads(path.read_text(encoding="utf-8"))["machines"]
        return {
            str(machine): {str(question): times for question, times in known.items() if _are_times(times)}
            for machine, known in machines.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _are_times(times: Any) -> bool:
    return (
        isinstance(times, dict)
        and bool(times)
        and all(isinstance(ms, int | float) and math.isfinite(ms) and ms > 0 for ms in times.values())
    )


def cache_folder() -> Path:
    """Where measurements are kept: SPARK3R_CACHE, or spark3r in the user's cache folder."""
    if CACHE_FOLDER in os.environ:
        return Path(os.environ[CACHE_FOLDER])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "spark3r"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spark3r"


@cache
def memory_of(device: torch.device) -> Memory:
    """The measurements of one device, shared by the whole process."""
    return Memory(cache_folder() / "kernels.json", _machine(device))


def _machine(device: torch.device) -> str:
    """What times depend on besides the size: the processor and its threads, or the GPU, and torch."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{_processor()}, {torch.get_num_threads()} threads"
    return f"{name}, torch {torch.__version__}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    fields = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
    told = [fields[name] for name in ("model name", "flags", "Features") if name in fields]
    if not told:
        return platform.processor() or platform.machine()
    extensions = sorted(flag for flag in told[-1].split() if flag.startswith(("avx512", "amx", "bf16", "sve")))
    return " ".join([told[0], *extensions]) if len(told) > 1 else told[0]
