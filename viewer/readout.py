"""The numbers of the two runs that stand side by side: factor, verdict, stage bars, where the waiting went."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spark3r.compare import DENSE, REDUCED, Factor
from spark3r.formatting import byte_count, count, factor, factor_range, milliseconds, waiting
from spark3r.reconstruction import Cost
from spark3r.stages import STAGES, TITLES
from spark3r.timing import BUSY
from viewer.charts import render
from viewer.quality import quality_rows, reference
from viewer.runs import KeptRun
from viewer.state import LiveRun, RunReport
from viewer.verdict import THRESHOLDS, verdict

LEAST_FRACTION = 0.05  # below that, what is done says nothing about what is to come
AGGREGATOR_HINT = (
    "Frame attention, global attention and matching, with their MLPs: the part that reduction changes. Reading, the "
    "encoder and the heads take the same in both runs."
)
ARITHMETIC_HINT = "Dense ÷ reduced in floating-point operations of the whole run: counted, so that no noise touches it."


@dataclass(frozen=True)
class Segment:
    """One stage of one run in its bar."""

    key: str
    name: str
    percent: float  # of the width of the axis
    time: str


@dataclass(frozen=True)
class Bar:
    """One run as a stacked bar."""

    kind: str
    title: str
    total: str
    expected: float  # where it is expected to end, percent of the axis
    segments: Sequence[Segment]


@dataclass(frozen=True)
class Headline:
    """The factor, how sure it is, and what stands beside it."""

    median: str
    range: str
    is_doubtful: bool
    aggregator: str
    arithmetic: str
    note: str  # why there is no factor, or why not to believe it


def readout(left: KeptRun | None, right: KeptRun | None, report: RunReport) -> str:
    """The card beneath the dials; while runs are measured, their growing bars."""
    live = report.live if report.phase == "measuring" else {}
    bars = _live_bars(live) if live else _bars(left, right)
    pair = (left, right) if left is not None and right is not None and not live else None
    return render(
        "readout.html", report=report, bars=bars, stages=[(key, TITLES[key]) for key in STAGES],
        headline=pair and headline(*pair), verdict=pair and verdict(*pair, factor_of(*pair)), thresholds=THRESHOLDS,
        hints=(AGGREGATOR_HINT, ARITHMETIC_HINT), waited=_waited(left, right),
        at_start=right is not None and right.at_start, is_live=bool(live),
    )  # fmt: skip


def quality(left: KeptRun | None, right: KeptRun | None) -> str:
    """The table of metrics, and under which conditions everything was measured."""
    titles, conditions = (title(left), title(right)), right.conditions if right else ""
    if left is None or right is None:
        return render("quality.html", rows=[], reference="", titles=titles, facts=[], conditions=conditions)
    return render(
        "quality.html", rows=quality_rows(left, right), reference=reference(left, right), titles=titles,
        facts=_facts(left.cost, right.cost), conditions=conditions,
    )  # fmt: skip


def title(run: KeptRun | None) -> str:
    """A run by what it is called in columns and bars."""
    if run is None:
        return NOTHING_YET
    return "Dense" if run.is_dense else {"spark3r": "Spark3R"}.get(run.policy, run.policy.title())


NOTHING_YET = "–"


def factor_of(left: KeptRun, right: KeptRun) -> Factor | None:
    """Left ÷ right, whole run: as measured in turns, where left is the dense run of right's clip."""
    if left.is_dense and left.input == right.input and not right.is_dense:
        return right.against.total
    return Factor.of(left.total, right.total, paired=False) if left.name != right.name else None


def headline(left: KeptRun, right: KeptRun) -> Headline:
    """What the card says first."""
    whole, against = factor_of(left, right), right.against
    in_turns = left.is_dense and left.input == right.input
    note = against.doubt if in_turns else "Not measured in turns: two runs of different minutes."
    busy = in_turns and (against.busy or (whole is not None and whole.spread > BUSY))
    if whole is not None and busy:
        note = "Busy machine: doubt this number."
    return Headline(
        factor(whole.median if whole else None),
        factor_range(whole.low, whole.high) if whole and len(right.measured) > 1 else "",
        whole is None or busy,
        factor(against.aggregator.median if in_turns and against.aggregator else None),
        factor(against.arithmetic if in_turns else None),
        note,
    )


def _bars(left: KeptRun | None, right: KeptRun | None) -> list[Bar]:
    axis = max([run.cost.total_ms for run in (left, right) if run is not None], default=1.0)
    return [_bar(title(run), run.cost if run else None, axis, kind) for kind, run in ((DENSE, left), (REDUCED, right))]


def _bar(name: str, cost: Cost | None, axis_ms: float, kind: str) -> Bar:
    total = milliseconds(cost.total_ms) if cost else NOTHING_YET
    return Bar(kind, name, total, 0.0, _segments(cost.milliseconds if cost else {}, axis_ms))


def _live_bars(live: Mapping[str, LiveRun]) -> list[Bar]:
    axis = max([_expected_ms(run) for run in live.values()]) or 1.0
    return [_live_bar(kind, run, axis) for kind, run in live.items()]


def _live_bar(kind: str, run: LiveRun, axis_ms: float) -> Bar:
    name = "Dense" if kind == DENSE else "Reduced"
    if run.state != "running":
        return _bar(name, run.cost, axis_ms, kind)
    expected = _expected_ms(run)
    total = f"{run.elapsed_now_ms / 1000:.1f} of ~{expected / 1000:.1f} s"
    return Bar(kind, name, total, 100 * expected / axis_ms, _segments(run.milliseconds, axis_ms))


def _segments(times: Mapping[str, float], axis_ms: float) -> list[Segment]:
    return [
        Segment(key, TITLES[key], 100 * spent / axis_ms, milliseconds(spent))
        for key in STAGES
        if (spent := times.get(key, 0.0)) > 0
    ]


def _expected_ms(run: LiveRun) -> float:
    """How long the run will have taken: what it took before, else by the share that is done."""
    if run.cost is not None:
        return run.cost.total_ms
    if run.state == "waiting":
        return 0.0
    by_share = run.elapsed_ms / max(run.fraction, LEAST_FRACTION)
    return max(run.expected_ms or by_share, run.elapsed_now_ms)


def _waited(left: KeptRun | None, right: KeptRun | None) -> str:
    """Where every second went."""
    if right is None or not right.waited:
        return ""
    repeats = {REDUCED: right.turns, DENSE: left.turns if left is not None and left.is_dense else 1}
    return waiting({name: spent for name, spent in right.waited.items() if spent >= 0.05}, repeats)


def _facts(left: Cost, right: Cost) -> list[tuple[str, str, str]]:
    """(what, of the left run, of the right run)."""
    return [
        ("Attention, queries × keys", _tokens(left), _tokens(right)),
        ("Peak memory", byte_count(left.peak_bytes), byte_count(right.peak_bytes)),
    ]


def _tokens(cost: Cost) -> str:
    return f"{count(cost.query_tokens)} × {count(cost.kv_tokens)}"
