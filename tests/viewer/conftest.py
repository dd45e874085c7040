"""A tiny model on disk, a short clip, and an engine: what the page needs to run in a second."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import pytest
import torch

from spark3r.compare import turns
from spark3r.frames import SourceInfo
from spark3r.models.checkpoints import save_checkpoint
from spark3r.models.families.mini import MINI_CONFIG
from spark3r.models.network import build
from tests.browser.conftest import free_port
from viewer.cache import Cache
from viewer.engine import Engine, Models, RunQueue
from viewer.opening import Opening
from viewer.request import Clip, RunRequest
from viewer.runs import Runs
from viewer.server import Access, Running, running
from viewer.session import Session
from viewer.sessions import Lifetimes, Sessions
from viewer.state import ReductionSettings, SamplingSettings, Side

T = TypeVar("T")
FRAMES = 4
RESOLUTION = 64
INFO = SourceInfo("images", FRAMES, None, None, width=128, height=96)


class Nobody:
    """A visitor without panes: keeps runs, and remembers what was put where."""

    address = "nowhere"

    def __init__(self) -> None:
        self.runs, self.cache, self.scoring = Runs(), Cache(), RunQueue()
        self.placed: list[tuple[Side, str]] = []

    def place(self, side: Side, name: str) -> None:
        self.placed.append((side, name))
        self.runs.show(side, name)


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """mini's architecture with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_checkpoint(build(MINI_CONFIG), path)
    return str(path)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """Photos of moving noise."""
    folder = tmp_path_factory.mktemp("clip")
    noise = np.random.default_rng(0).integers(0, 255, (12, 24, 3), np.uint8)
    picture = cv2.resize(noise, (240, 120), interpolation=cv2.INTER_CUBIC)
    paths = [folder / f"{index}.png" for index in range(FRAMES)]
    for index, path in enumerate(paths):
        cv2.imwrite(str(path), picture[:96, 10 * index : 10 * index + 128])
    return Clip("some photos", tuple(paths))


@pytest.fixture(scope="session")
def engine() -> Engine:
    return Engine(RunQueue(), Models())


@pytest.fixture
def sessions(engine: Engine) -> Iterator[Sessions]:
    registry = Sessions(engine, Lifetimes(0.1, 60.0, 60.0))
    yield registry
    registry.close()


@pytest.fixture(scope="session")
def request_for(model_path: str, clip: Clip) -> Callable[..., RunRequest]:
    """A run request with a key/value factor."""

    def make(kv_factor: int = 2, source: Clip = clip, max_frames: int = FRAMES) -> RunRequest:
        sampling = SamplingSettings(max_frames, 0.0, model_path, RESOLUTION)
        return RunRequest(source, INFO, sampling, ReductionSettings("manual", 2, kv_factor, 20, 1, "spark3r"))

    return make


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs are measured once, as long ones are: for tests of other things."""
    monkeypatch.setattr(turns, "SHORT_SECONDS", 0.0)


def wait_until(condition: Callable[[], object], timeout_s: float = 120.0) -> None:
    """Poll until `condition()` holds; fails after the timeout."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def in_own_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Its result, from an event loop of its own thread: where browser tests ran before, Playwright's is this one's."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def finish(session: Session) -> None:
    """Wait for the end of a run that should succeed."""
    wait_until(lambda: not session.report.is_busy)
    assert session.report.phase == "done", session.report.message


def some_file(folder: Path, name: str, content: bytes = b"not a video") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The page as a server, without its first example."""
    patched = pytest.MonkeyPatch()
    patched.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
    patched.setattr(Opening, "start", lambda opening: None)
    patched.setattr(Opening, "stop", lambda opening: None)
    try:
        with running(Access(port=free_port()), "mini") as started:
            yield started
    finally:
        patched.undo()
