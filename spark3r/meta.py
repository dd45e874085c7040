"""Tensors without data (torch's "meta" device): whose path the code takes with them; functions that are one kernel.

A run on such tensors costs no memory and nearly no time, and tells what a real one would need (dryrun.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

_stands_for: ContextVar[str] = ContextVar("stands_for", default="cuda")


def device_kind(device: torch.device) -> str:
    """ "cpu", "cuda", …: what code that differs by device should ask. Tensors without data stand for those of a GPU,
    or of what `standing_for` names."""
    return _stands_for.get() if device.type == "meta" else device.type


@contextmanager
def standing_for(kind: str) -> Iterator[None]:
    """Within, tensors without data take the path of this kind of device."""
    token = _stands_for.set(kind)
    try:
        yield
    finally:
        _stands_for.reset(token)


class KernelWatcher(Protocol):
    """What is asked in place of a function that is one kernel, while someone counts; `again` as in `one_kernel`."""

    def __call__(
        self, plain: Callable[..., Any], again: Callable[..., int] | None, /, *args: Any, **kwargs: Any
    ) -> Any: ...


_watcher: ContextVar[KernelWatcher | None] = ContextVar("kernel_watcher", default=None)


@contextmanager
def watching_kernels(watcher: KernelWatcher) -> Iterator[None]:
    """Within, `watcher` is called in place of every function marked by `one_kernel` whose kernel exists."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def one_kernel(
    exists: Callable[[], bool], again: Callable[..., int] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Marks a plain function that CUDA runs as one compiled or Triton kernel: it then counts as one pass over its
    inputs and outputs, and what its plain twin allocates on the way does not count.

    exists  whether that kernel is what CUDA runs as things are set; asked at every call that is counted
    again   bytes of its inputs, asked with its arguments, that it reads beside one reading of each
    """

    def mark(plain: Callable[P, R]) -> Callable[P, R]:
        @wraps(plain)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            watcher = _watcher.get()
            if watcher is None or device_kind(torch.device("meta")) != "cuda" or not exists():
                return plain(*args, **kwargs)
            return watcher(plain, again, *args, **kwargs)

        return call

    return mark
