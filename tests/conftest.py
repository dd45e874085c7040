"""Puts the repository on the import path, so that a bare `pytest` works as `python -m pytest` does; shared fixtures."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several: threads of its own would only stand in the others' way
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

# Read by tests marked `checkout` while they are collected; from outside a checkout only the library is tested.
if not (ROOT / "README.md").is_file():
    collect_ignore = [f"test_{what}.py" for what in ("architecture", "dockerfile", "packaging", "readme", "tables")]
    collect_ignore += ["browser", "viewer"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that open the page begin first: together they take longest."""
    items.sort(key=lambda item: item.path.parent.name != "browser")


class FileByFile(LoadScopeScheduling):
    """A file's tests stay together, and so do all that open the page: two browsers at once are too slow to draw."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "browser" if "browser/" in path else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileByFile:
    return FileByFile(config, log)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Runs that measure their memory collect garbage first: in a long session they need not look at what stays."""
    if len(session.items) > 50:
        import torch._dynamo  # noqa: F401  by the first run that is estimated

        _freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """What a file's tests have imported stays, too."""
    if len(item.session.items) > 50 and nextitem is not None and nextitem.path != item.path:
        _freeze()


def _freeze() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Measurements of kernels are kept apart from the user's."""
    os.environ["SPARK3R_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of mini with random weights: everything runs, nothing is meant."""
    import torch

    from spark3r.models.checkpoints import save_checkpoint
    from spark3r.models.families.mini import MINI_CONFIG
    from spark3r.models.network import Network

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "untrained.safetensors"
    save_checkpoint(Network(MINI_CONFIG), path)
    return path


@pytest.fixture(scope="session", autouse=True)
def hurried() -> Iterator[None]:
    """Comparisons in tests repeat short runs as always, but no more where a loaded machine lets their times spread."""
    from spark3r.compare import turns

    with pytest.MonkeyPatch.context() as patch:  # for what whole modules share too
        patch.setattr(turns, "PATIENCE_SECONDS", 0.0)
        yield
