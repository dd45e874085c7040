"""Long clips by windows: each is reconstructed by itself, and neighbours are joined on the frames they share.

The field's usual way to clips that do not fit in one pass (VGGT-Long, arXiv 2507.16443): memory and time grow with the
number of windows only, but no frame sees beyond its window, and what one joint misses all later frames inherit.

A joint is a Sim(3) found from the shared frames: the scale is the median ratio of their depths, the rotation the robust
mean of their cameras' relative rotations, the shift the median of their centres. (VGGT-Long aligns the two point clouds
by reweighted least squares; on the bundled model cameras agree better than points do: rotation 2.0° against 4.4° over
100 frames in windows of 12.) There is no closing of loops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from spark3r.frames import Frames
from spark3r.geometry import Similarity, nearest_rotation, rotation_degrees
from spark3r.reconstruction import Cost, Reconstruction
from spark3r.reduction import ReductionSchedule

_ROUNDS = 10  # of reweighting
_CLOSE_DEG = 0.2  # rotations that differ by less count alike

Run = Callable[[Frames, Callable[[Any], None] | None], Reconstruction]


def spans(num_frames: int, window: int, overlap: int) -> list[slice]:
    """The windows of a clip: all of one length (the clip's own, if it is shorter), each sharing at least `overlap`
    frames with the one before; the last is moved back to end with the clip."""
    if num_frames <= window:
        return [slice(0, num_frames)]
    last = num_frames - window
    starts = [*range(0, last, window - overlap), last]
    return [slice(start, start + window) for start in starts]


def by_windows(
    frames: Frames,
    schedule: ReductionSchedule,
    run: Run,
    progress: Callable[[Any], None] | None = None,
) -> Reconstruction:
    """Runs every window and joins the results; costs add up, decoding counts once.

    schedule  with a window and an overlap
    run       reconstructs some frames in one pass, telling its progress
    progress  told of the whole: fractions are of all windows, milliseconds add up
    """
    windows = spans(len(frames), schedule.window, schedule.overlap)
    parts: list[Reconstruction] = []
    for number, window in enumerate(windows):
        some = frames.select(window)
        spent = _summed([part.cost.milliseconds for part in parts])
        told = None if progress is None else _whole(progress, number, len(windows), spent)
        parts.append(run(some if number == 0 else replace(some, decode_ms=0.0), told))
    return replace(joined(parts, windows), schedule=schedule)


def joined(parts: Sequence[Reconstruction], windows: Sequence[slice]) -> Reconstruction:
    """One result in the world of the first window. A shared frame is taken from the window that it is deeper inside."""
    moved = [parts[0]]
    for (before, after), part in zip(pairwise(windows), parts[1:], strict=True):
        moved.append(part.transformed(_joint(moved[-1], part, before.stop - after.start)))
    kept = _kept(windows)

    def whole(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name)[some] for part, some in zip(moved, kept, strict=True)])

    arrays = ("images", "depth", "confidence", "world_from_camera", "intrinsics", "indices", "timestamps")
    return replace(
        parts[0],
        **{name: whole(name) for name in arrays},
        names=tuple(name for part, some in zip(moved, kept, strict=True) for name in part.names[some]),
        cost=_added([part.cost for part in parts]),
    )


def _kept(windows: Sequence[slice]) -> list[slice]:
    """Which of its own frames each window gives: neighbours part in the middle of what they share."""
    cuts = [(after.start + before.stop + 1) // 2 for before, after in pairwise(windows)]
    starts, stops = [windows[0].start, *cuts], [*cuts, windows[-1].stop]
    return [slice(start - w.start, stop - w.start) for start, stop, w in zip(starts, stops, windows, strict=True)]


def _joint(before: Reconstruction, after: Reconstruction, shared: int) -> Similarity:
    """What brings `after` into the world of `before`: its first `shared` frames are the last of that."""
    old, new = before.world_from_camera[-shared:], after.world_from_camera[:shared]
    scale = _depth_ratio(before.depth[-shared:], after.depth[:shared])
    finite = np.isfinite(old).all((1, 2)) & np.isfinite(new).all((1, 2))
    if not finite.any():
        return Similarity(scale)
    old, new = old[finite].astype(np.float64), new[finite].astype(np.float64)
    rotation = _mean_rotation(old[:, :3, :3] @ new[:, :3, :3].swapaxes(1, 2))
    return Similarity(scale, rotation, np.median(old[:, :3, 3] - scale * new[:, :3, 3] @ rotation.T, axis=0))


def _depth_ratio(old: np.ndarray, new: np.ndarray) -> float:
    """Median of old / new over pixels that say something in both; 1 if none does."""
    both = (old > 0) & (old < np.inf) & (new > 0) & (new < np.inf)
    return float(np.median(old[both].astype(np.float64) / new[both])) if both.any() else 1.0


def _mean_rotation(rotations: np.ndarray) -> np.ndarray:  # [S, 3, 3] → [3, 3]
    """The rotation with the least sum of angles to all, by reweighting; a minority far off hardly moves it."""
    weights = np.ones(len(rotations))
    for _ in range(_ROUNDS):
        mean = nearest_rotation((weights[:, None, None] * rotations).sum(0))
        weights = 1 / np.maximum(rotation_degrees(mean.T @ rotations), _CLOSE_DEG)
    return mean


def _added(costs: Sequence[Cost]) -> Cost:
    """Times add up; memory is that of the largest window; token counts are those of one window."""
    peak = max(cost.peak_bytes for cost in costs)
    return replace(costs[0], milliseconds=_summed([cost.milliseconds for cost in costs]), peak_bytes=peak)


def _summed(times: Sequence[Mapping[str, float]]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for each in times:
        total.update(each)
    return dict(total)


def _whole(progress: Callable[[Any], None], number: int, count: int, spent: dict[str, float]) -> Callable[[Any], None]:
    """Tells the progress of one window as that of all."""

    def told(now: Any) -> None:
        times = _summed([{stage: ms for stage, ms in spent.items() if stage != "total"}, now.milliseconds])
        elapsed = spent.get("total", 0.0) + now.elapsed_ms
        progress(replace(now, fraction=(number + now.fraction) / count, milliseconds=times, elapsed_ms=elapsed))

    return told
