"""The runs of one visitor: kept by name, shown left and right, let go when memory runs short (numbers stay)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

from spark3r.compare import Difference, Factor, Measurement, Run
from spark3r.metrics import Scores
from spark3r.metrics.consistency import Consistency
from spark3r.reconstruction import Cost, Reconstruction
from spark3r.reduction.schedule import ReductionSchedule
from spark3r.timing import Samples
from viewer.request import Input
from viewer.state import ReductionSettings, Side
from viewer.world import Baseline

MEMORY_BYTES = 1 << 30  # results kept for one visitor; beyond, the oldest that no pane shows is let go


@dataclass(frozen=True)
class Against:
    """A run beside the dense one that was measured with it."""

    total: Factor | None = None  # of the whole run; None where it must not be divided
    aggregator: Factor | None = None
    arithmetic: float | None = None  # of the whole run, in floating-point operations
    dense_flops: float | None = None  # floating-point operations of the dense run
    doubt: str = ""  # why it must not be divided
    busy: bool = False  # the machine did other work meanwhile


@dataclass(frozen=True, eq=False)
class KeptRun:
    """One schedule on one clip: its result while that is kept, its numbers for as long as the tab lives."""

    name: str
    input: Input
    schedule: ReductionSchedule
    settings: ReductionSettings  # to turn the dials back to
    measured: tuple[Measurement, ...]
    cost: Cost  # medians
    scene: Reconstruction | None  # in the world of the dense run; None once let go
    baseline: Baseline
    conditions: str
    against: Against = Against()
    difference: Difference | None = None  # from the dense run
    truth: Scores | None = None
    fit: Consistency | None = None  # to the pictures, where there is no truth
    waited: Mapping[str, float] = field(default_factory=dict)  # seconds, by what they were spent on
    turns: int = 1  # how often it was measured in the latest comparison
    at_start: bool = False  # measured when the app started, for everybody

    @property
    def policy(self) -> str:
        """ "dense", "spark3r", "uniform", …"""
        return self.schedule.name

    @property
    def is_dense(self) -> bool:
        """Whether this is a baseline."""
        return self.schedule.is_off

    @property
    def total(self) -> Samples:
        """Milliseconds of the whole run, one for each measurement."""
        return Samples(tuple(one.cost.total_ms for one in self.measured))

    @property
    def bytes(self) -> int:
        """What its result takes; the pictures are those of the dense run."""
        return self.scene.depth.nbytes + self.scene.confidence.nbytes if self.scene is not None else 0

    def with_run(self, run: Run) -> "KeptRun":
        """The same after another measurement."""
        return replace(self, measured=run.measured, cost=run.cost, turns=run.turns)


class Runs(Mapping[str, KeptRun]):
    """Runs by name, in the order of their first measurement, and which of them stand left and right."""

    def __init__(self, budget_bytes: int = MEMORY_BYTES) -> None:
        self._budget = budget_bytes
        self._kept: dict[str, KeptRun] = {}
        self._numbers = count(1)
        self.shown: dict[Side, str] = {}
        self.version = 0  # moves with every change, for those who draw

    def __getitem__(self, name: str) -> KeptRun:
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._kept))

    def __len__(self) -> int:
        return len(self._kept)

    def new_name(self) -> str:
        """A name that no run has."""
        return f"run{next(self._numbers)}"

    def keep(self, run: KeptRun) -> None:
        """Keep a run, or its newer numbers; the oldest results beyond the budget are let go."""
        self._kept[run.name] = run
        self.version += 1
        self._let_go()

    def show(self, side: Side, name: str) -> None:
        """Say that a run stands in a pane."""
        self.shown[side] = name
        self.version += 1

    def clear_shown(self) -> None:
        """Say that both panes are empty."""
        self.shown.clear()
        self.version += 1

    def at(self, side: Side) -> KeptRun | None:
        """The run that stands in a pane."""
        return self._kept.get(self.shown.get(side, ""))

    def of(self, source: Input) -> list[KeptRun]:
        """Every run of these frames through this model."""
        return [run for run in tuple(self._kept.values()) if run.input == source]

    def find(self, source: Input, schedule: ReductionSchedule) -> KeptRun | None:
        """The run of this schedule on these frames, if there is one."""
        return next((run for run in self.of(source) if run.schedule == schedule), None)

    def dense(self, source: Input) -> KeptRun | None:
        """The dense run of these frames."""
        return next((run for run in self.of(source) if run.is_dense), None)

    def latest(self, source: Input) -> KeptRun | None:
        """The latest reduced run of these frames whose result is kept."""
        return next((run for run in reversed(self.of(source)) if not run.is_dense and run.scene is not None), None)

    @property
    def flops_per_ms(self) -> float | None:
        """How fast this machine was in the latest dense run."""
        for run in reversed(tuple(self._kept.values())):
            dense = self.dense(run.input)
            if run.against.dense_flops and dense is not None:
                return run.against.dense_flops / dense.total.median
        return None

    def _let_go(self) -> None:
        """Drop the results of the oldest runs, never those shown nor a dense one that others are compared to."""
        held = sum(run.bytes for run in self._kept.values())
        for run in tuple(self._kept.values()):
            if held <= self._budget:
                return
            if run.scene is None or run.is_dense or run.name in self.shown.values():
                continue
            held -= run.bytes
            self._kept[run.name] = replace(run, scene=None)
