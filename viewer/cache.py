"""What one run leaves for the next: the frames read last, the worlds of dense results, the truth of clips."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from spark3r.compare import Run
from spark3r.examples import load_truth
from spark3r.frames import Frames
from spark3r.metrics.truth import Truth
from viewer.world import Baseline


class Cache:
    """The frames used last, and the dense run to be compared to."""

    def __init__(self) -> None:
        self._frames: tuple[object, Frames] | None = None
        self._dense: dict[object, tuple[Run, Baseline]] = {}

    def frames(self, key: object, read: Callable[[], Frames]) -> Frames:
        """The frames of `key`, read only if they are not the ones read last."""
        if self._frames is None or self._frames[0] != key:
            self._frames = None
            self._frames = key, read()
        return self._frames[1]

    def dense(self, key: object) -> tuple[Run, Baseline] | None:
        """The dense run of `key` and the world it is shown in, if it is kept."""
        return self._dense.get(key)

    def keep_dense(self, key: object, run: Run, baseline: Baseline) -> None:
        """Remember a dense run."""
        self._dense[key] = run, baseline

    def forget_dense(self, key: object) -> None:
        """Let go of a dense run, its world too."""
        self._dense.pop(key, None)


@lru_cache(maxsize=4)
def truth_of(path: Path, height: int, width: int) -> Truth | None:
    """The truth of an example clip at this size; rendered once, and shared by all visitors."""
    return load_truth(path, size=(height, width))
