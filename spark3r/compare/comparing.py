"""compare() and sweep(): the same clip through the same model under several schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np
import torch

from spark3r.compare.result import DENSE, REDUCED, Comparison, Measurement, Run, difference
from spark3r.compare.turns import SHORT_SECONDS, Listener, RunProgress, Turns
from spark3r.errors import InputError
from spark3r.estimate import Schedule, schedule_for
from spark3r.frames import Frames
from spark3r.installation import require
from spark3r.kernels import forced_kernel
from spark3r.measure import machine
from spark3r.metrics import consistency, evaluate, match_features
from spark3r.metrics.consistency import Matches
from spark3r.metrics.truth import Truth
from spark3r.models.checkpoints import load_model
from spark3r.models.network import Network
from spark3r.reconstruction import Reconstruction
from spark3r.reduction import ReductionSchedule
from spark3r.stopping import stoppable
from spark3r.timing import Stopwatch

QUERY_FACTORS = (1, 2, 4, 8)
KV_FACTORS = (1, 4, 16, 64)


def compare(
    frames: Frames | np.ndarray,
    model: Network | str = "mini",
    schedule: Schedule | Mapping[str, Schedule] = "auto",
    *,
    baseline: Run | None = None,
    retime_baseline: bool = True,
    truth: Truth | None = None,
    resolution: int | None = None,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    repeats: int | None = None,
    earlier: Mapping[str, Sequence[Measurement]] | None = None,
    scored: bool = True,
    progress: Callable[[RunProgress], None] | None = None,
    finished: Callable[[Run], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> Comparison:
    """Runs a clip densely and reduced under the same conditions, in turns, in this process, after one warm-up.

    schedule   one, which is then named "reduced", or several by names of the caller's
    baseline   `runs["dense"]` of an earlier comparison of the same frames, model and size: its result is used again.
               A short one is timed anew, in turns with the others (not if `retime_baseline` is False); the time of a
               long one is reused, and divided by only while the machine's speed agrees (`Comparison.doubt`)
    truth      of the whole clip or of these frames; every result is then scored against it
    repeats    how often each is run, 1 or more. None: turns of less than five seconds three times at least, and more
               while a factor spreads by more than 15 % or its mean is not sure to 2.5 %, and ten seconds are not over;
               longer ones once
    earlier    by name, `measured` of an earlier comparison of the same frames, model, size and schedules: its latest
               turns count on, if the machine is as fast as it was, so that measuring again makes times surer
    scored     False leaves the scores out (`differences`, `truth`, `consistency` are empty), for a caller who shows the
               times at once and finds the scores later: `difference`, `metrics.evaluate`, `metrics.consistency`
    progress   called several times a second, for the warm-up too
    finished   called after every timed run with that run so far: its result (in the world of the dense one) and all
               of its times; the dense run of a `baseline` is not told again unless it is timed again
    cancel     asked before every block of the network; True raises Cancelled
    The rest is as in `reconstruct`, which also says what is raised; InputError for a baseline of something else.
    """
    if repeats is not None and repeats < 1:
        raise InputError(f"repeats={repeats}: must be 1 or more; leave it out for as many as short runs need")
    require("A comparison", "scipy")
    frames = frames if isinstance(frames, Frames) else Frames.of(frames)
    network = load_model(model, device, dtype, cancel=cancel) if isinstance(model, str) else model
    schedules = {DENSE: ReductionSchedule.off(), **_named(schedule, len(frames), network)}
    listener, stopwatch = Listener(progress, finished, cancel), Stopwatch()
    stopwatch.add("reading", frames.decode_ms / 1e3)
    turns = Turns(frames, network, schedules, resolution, listener, stopwatch, earlier or {})
    names = list(schedules)
    reused_seconds = 0.0
    if baseline is not None:
        turns.runs[DENSE] = replace(baseline, name=DENSE, reused=True)
        if not retime_baseline or baseline.seconds >= SHORT_SECONDS:
            names.remove(DENSE)
            reused_seconds = baseline.seconds
    turns.warm_up()
    turns.measure(names, repeats, reused_seconds)
    if baseline is not None:
        _check_same_conditions(baseline.scene, turns.runs[names[-1]].scene)
    if not scored:
        return Comparison(turns.runs, {}, {}, {}, stopwatch.seconds, machine(network.device), network.config)
    return _scored(turns.runs, truth, network, listener, stopwatch)


def sweep(
    frames: Frames | np.ndarray,
    model: Network | str = "mini",
    query_factors: Sequence[int] = QUERY_FACTORS,
    kv_factors: Sequence[int] = KV_FACTORS,
    *,
    baseline: Run | None = None,
    truth: Truth | None = None,
    resolution: int | None = None,
    repeats: int | None = None,
    progress: Callable[[RunProgress], None] | None = None,
    finished: Callable[[Run], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> Iterator[Comparison]:
    """Comparisons over a grid of factors, one after the other, the fastest first; stop by no longer asking.

    The dense run is measured with the first point (or is `baseline`), reused for the others, and measured anew where
    the machine's speed has moved. Factors 1 and 1 together are the dense run itself and are left out. Sensitive
    layers are the model's own. Arguments and errors as for `compare`; Cancelled ends the iteration.
    """
    frames = frames if isinstance(frames, Frames) else Frames.of(frames)
    network = load_model(model) if isinstance(model, str) else model
    how = {
        "truth": truth, "resolution": resolution, "repeats": repeats, "progress": progress, "finished": finished,
        "cancel": cancel,
    }  # fmt: skip
    grid = [(query, kv) for query in sorted(query_factors) for kv in sorted(kv_factors) if (query, kv) != (1, 1)]
    for query_factor, kv_factor in reversed(grid):
        schedule = grid_schedule(query_factor, kv_factor, network)
        comparison = compare(frames, network, schedule, baseline=baseline, retime_baseline=False, **how)
        if comparison.doubt():
            comparison = compare(frames, network, schedule, **how)
        baseline = comparison.runs[DENSE]
        yield comparison


def grid_schedule(query_factor: int, kv_factor: int, network: Network) -> ReductionSchedule:
    """The schedule of two factors: the model's sensitive layers, and no pruning at all where kv_factor is 1."""
    boost = 1 if kv_factor == 1 else ReductionSchedule.kv_boost
    return ReductionSchedule(
        query_factor, kv_factor, kv_boost=boost, sensitive_layers=network.config.sensitive_layers
    )  # fmt: skip


def _named(
    schedule: Schedule | Mapping[str, Schedule], num_frames: int, network: Network
) -> dict[str, ReductionSchedule]:
    given = schedule if isinstance(schedule, Mapping) else {REDUCED: schedule}
    if not given or DENSE in given:
        raise InputError(f'schedules {sorted(given)}: name one or more, none of them "{DENSE}", which is always run')
    return {name: schedule_for(each, num_frames, network) for name, each in given.items()}


def _scored(
    runs: Mapping[str, Run], truth: Truth | None, network: Network, listener: Listener, stopwatch: Stopwatch
) -> Comparison:
    """The differences of all runs from the dense one, how well each fits the pictures, and its scores by a truth."""
    dense = runs[DENSE].scene
    differences, scores, fits = {}, {}, {}
    for name, run in runs.items():
        listener.check()
        with stopwatch.spending("scores"), stoppable(listener.cancel):
            fits[name] = consistency(run.scene, matches_of(dense))
            if name != DENSE:
                differences[name] = difference(run.scene, dense)
            if truth is not None:
                scores[name] = evaluate(run.scene, truth)
    return Comparison(dict(runs), differences, scores, fits, stopwatch.seconds, machine(network.device), network.config)


_MATCHES: WeakKeyDictionary[Reconstruction, Matches] = WeakKeyDictionary()


def matches_of(dense: Reconstruction) -> Matches:
    """Matched features of the pictures: the same for every run, so found once for a baseline."""
    if dense not in _MATCHES:
        _MATCHES[dense] = match_features(dense.images)
    return _MATCHES[dense]


def _check_same_conditions(baseline: Reconstruction, reduced: Reconstruction) -> None:
    """A factor between two different things is not a factor."""
    if not baseline.schedule.is_off:
        raise InputError(f"the baseline was reduced ({baseline.schedule}): hand in a dense result")
    # Kernels are chosen by measurement for each size, so a reduced run may have others; one forced must be both's.
    forced = ("kernel",) if forced_kernel() else ()
    for name in ("model", "device", "dtype", *forced, "height", "width"):
        was, now = getattr(baseline, name), getattr(reduced, name)
        if was != now:
            raise InputError(f"the baseline has {name} {was}, this run {now}: leave it out to measure it again")
    if not np.array_equal(baseline.indices, reduced.indices) or not np.array_equal(baseline.images, reduced.images):
        raise InputError("the baseline shows other frames: leave it out to measure it again")
