"""Measuring from outside: time per stage by hooks, peak memory by sampling. No timer stands in a model."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spark3r.attention import Planner, Reduction
from spark3r.installation import require
from spark3r.kernels import recording
from spark3r.kernels.choice import seconds_choosing
from spark3r.processor import BFLOAT16, extensions
from spark3r.stages import STAGE_OF_SCOPE
from spark3r.tokens import TokenLayout


class Meter:
    """Adds up milliseconds per stage. A stage inside another is taken out of the outer one, and so is what measuring
    kernels takes, once for a machine and a size."""

    def __init__(self, device: torch.device):
        self.device = device
        self.milliseconds: dict[str, float] = {}
        self.started = _clock()
        self._open: list[tuple[str, float]] = []
        self._ran: dict[str, list[str]] = {}

    @contextmanager
    def hearing(self) -> Iterator[Meter]:
        """Within, the attention kernels that run are noted by stage."""
        with recording(self._note):
            yield self

    def _note(self, kernel: str) -> None:
        names = self._ran.setdefault(self._open[-1][0] if self._open else "heads", [])
        if kernel not in names:
            names.append(kernel)

    @property
    def kernels(self) -> str:
        """The attention kernels that ran, as "torch", or by stage: "frame torch, global matmuls-2m"."""
        by_stage = {stage.removesuffix("_attention"): "+".join(names) for stage, names in self._ran.items()}
        if len(set(by_stage.values())) <= 1:
            return next(iter(by_stage.values()), "none")
        return ", ".join(f"{stage} {names}" for stage, names in by_stage.items())

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts the time in the context as that stage's."""
        self.begin(name)
        try:
            yield
        finally:
            self.end()

    def begin(self, name: str) -> None:
        """A stage starts, inside of any that is open."""
        self._open.append((name, self._now()))

    def end(self) -> None:
        """The stage that started last has ended."""
        name, start = self._open.pop()
        spent = self._now() - start
        self.milliseconds[name] = self.milliseconds.get(name, 0.0) + spent
        if self._open:
            outer = self._open[-1][0]
            self.milliseconds[outer] = self.milliseconds.get(outer, 0.0) - spent

    @property
    def elapsed_ms(self) -> float:
        """Since this meter was made."""
        return (_clock() - self.started) * 1e3

    @contextmanager
    def watching(self, blocks: nn.ModuleList, scopes: list[str], before: Callable[[], None]) -> Iterator[None]:
        """Times every block under the name of its scope; `before` runs ahead of each and may raise to stop."""

        def enter(name: str) -> Callable[[nn.Module, Any], None]:
            def hook(module: nn.Module, inputs: Any) -> None:
                before()
                self.begin(name)

            return hook

        with ExitStack() as hooks:
            for block, scope in zip(blocks, scopes, strict=True):
                hooks.callback(block.register_forward_pre_hook(enter(STAGE_OF_SCOPE[scope])).remove)
                hooks.callback(block.register_forward_hook(lambda module, inputs, output: self.end()).remove)
            yield

    def timed(self, plan: Planner) -> Planner:
        """The same planner, its time counted as matching."""

        def planned(x: Tensor, layout: TokenLayout, layer: int) -> Reduction:
            with self.stage("matching"):
                return plan(x, layout, layer)

        return planned

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return _clock() * 1e3


def _clock() -> float:
    return time.perf_counter() - seconds_choosing()


class PeakMemory:
    """Bytes in use at most while the context is open: on a GPU those allocated, on a CPU the growth of the process."""

    def __init__(self, device: torch.device):
        self.device = device
        self.peak_bytes = 0

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return self
        _return_free_memory()
        self._start = resident_bytes()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="spark3r-memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.device.type == "cuda":
            self.peak_bytes = torch.cuda.max_memory_allocated(self.device)
            return
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, resident_bytes() - self._start)
            if self._stop.wait(0.01):
                return


def _return_free_memory() -> None:
    """Gives freed heap back to the system, so that the growth of the process is this run's own."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim is not None:
            trim(0)


def resident_bytes() -> int:
    """Physical memory of this process now."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return _psutil().Process().memory_info().rss


def available_bytes(device: torch.device) -> int:
    """Memory that a new run may take on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if sys.platform == "linux":
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return _psutil().virtual_memory().available


def _psutil():
    require("Measuring memory on this system", "psutil")
    import psutil

    return psutil


def machine(device: torch.device) -> dict[str, Any]:
    """What a published number must name: processor or GPU, threads, versions, commit, system."""
    about = {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "spark3r": _version(),
        "commit": commit(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device.type,
    }
    if device.type == "cuda":
        about["device"] = torch.cuda.get_device_name(device)
        about["cuda"] = torch.version.cuda
    return about


def _version() -> str | None:
    try:
        return metadata.version("spark3r")
    except metadata.PackageNotFoundError:  # a checkout that was never installed
        return None


@cache
def commit() -> str | None:
    """The commit this code stands at, with "+" where files were changed since; None outside a checkout."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        ask = {"cwd": root, "capture_output": True, "text": True, "check": True, "timeout": 10}
        head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], **ask).stdout.strip()
        return head + ("+" if subprocess.run(["git", "status", "--porcelain", "-uno"], **ask).stdout else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    """The processor's name with the matrix extensions that decide its speed."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.is_file()
        else []
    )
    name = names[0] if names else platform.processor() or "unknown processor"
    fast = [extension for extension in BFLOAT16 if extension in extensions()]
    return " ".join([name, f"({os.cpu_count()} cores)", *fast])
