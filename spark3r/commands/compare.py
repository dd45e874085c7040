"""`compare INPUT`"""

import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import tyro

from spark3r.commands.evaluate import (
    CONSISTENCY_COLUMNS,
    SCORE_COLUMNS,
    clip_source,
    consistency_cells,
    score_cells,
)
from spark3r.commands.options import RunOptions, Source, UsageError, shown_as
from spark3r.commands.report import Report, conditions, table
from spark3r.compare import DENSE, Comparison, Factor, compare, sweep
from spark3r.examples import load_truth
from spark3r.files import check_target, replacing
from spark3r.formatting import byte_count, factor, factor_range, milliseconds, number, percent, waiting
from spark3r.installation import require
from spark3r.stages import AGGREGATOR, STAGES

SWEEP_COLUMNS = (
    "queries",
    "keys/values",
    "time",
    "whole run",
    "range",
    "aggregator",
    "arithmetic",
    "depth",
    "ATE/path",
)


@dataclass(frozen=True, kw_only=True)
class Compare(RunOptions):
    """Run a clip densely and reduced, in turns, under the same conditions: times, factors, differences.

    One warm-up comes first. Short runs are repeated and told as median and range. The dense run is the reference of the
    differences; a clip with truth also scores both.
    """

    input: tyro.conf.Positional[Source]
    """Video, image folder, zip, or clip folder with truth."""
    repeats: Annotated[int | None, shown_as("N")] = None
    """Runs of each; default: three or more of what takes under five seconds, one of what takes longer."""
    sweep: Annotated[bool, tyro.conf.FlagCreatePairsOff, shown_as("")] = False
    """In place of one schedule: every pair of the factors below."""
    query_factors: Annotated[tuple[int, ...], shown_as("N ...")] = (1, 2, 4, 8)
    """Of --sweep; default: 1 2 4 8."""
    kv_factors: Annotated[tuple[int, ...], shown_as("N ...")] = (1, 4, 16, 64)
    """Of --sweep; default: 1 4 16 64."""

    report: Annotated[Path | None, shown_as("FILE.html")] = None
    """Also write one HTML file that needs no network: both clouds, frames, times, scores, and this command."""

    def run(self) -> None:
        """Measures all runs and tells what reduction bought and what it moved."""
        self.check()
        report = Report(self)
        report.doing("loading the model")
        network = self.load()
        report.doing("reading frames")
        frames = self.read(clip_source(self.input), network)
        report.notes(frames)
        how: dict[str, Any] = {
            "truth": load_truth(self.input, size=self.size(frames, network)),
            "resolution": self.resolution,
            "repeats": self.repeats,
            "progress": report.progress,
        }
        if self.sweep:
            points = list(sweep(frames, network, self.query_factors, self.kv_factors, **how))
            report.answer(sweep_text(points), sweep_json(points))
            return
        comparison = compare(frames, network, self.reduction(len(frames), network), **how)
        report.answer(comparison_text(comparison), comparison.to_json())
        if self.report is not None:
            report.doing("writing the report")
            write_report(comparison, self.report, frames.source, self.command_line())
            report.clear()

    def command_line(self) -> str:
        """The command that measures the same again: whatever is not as by default, but for where answers go."""
        words = ["python", "-m", "spark3r", "compare", str(self.input)]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("input", "json", "quiet", "report") or value == field.default:
                continue
            words.append("--" + field.name.replace("_", "-"))
            words += [] if value is True else [str(each) for each in (value if isinstance(value, tuple) else (value,))]
        return shlex.join(words)

    def check(self) -> None:
        """As for all runs, and: a sweep has its own factors."""
        super().check()
        if self.sweep and (self.query_factor or self.kv_factor or self.schedule or self.policy):
            raise UsageError("--sweep runs --query-factors × --kv-factors: leave out the flags of a single schedule")
        if (self.sweep and min(0, *self.query_factors, *self.kv_factors) < 0) or (self.repeats or 1) < 1:
            raise UsageError("--repeats, --query-factors and --kv-factors must be 1 or more")
        if self.report is not None:
            check_report(self.report, self.sweep)


def check_report(path: Path, is_sweep: bool) -> None:
    """Raises UsageError or InputError, before the work, where a report cannot be written."""
    if is_sweep:
        raise UsageError("--report tells of one comparison: leave out --sweep")
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {path}: name a file that ends in .html")
    require("A report", "viser", "jinja2")
    check_target(path)


def write_report(comparison: Comparison, path: Path, clip: str, command: str) -> None:
    """The page's own report of a comparison."""
    from viewer.report import Content  # draws with viser, which the library does without

    content = Content.of(comparison, clip=clip, command=command).html()
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def comparison_text(comparison: Comparison) -> str:
    """The whole answer for a person."""
    row = comparison.row()
    parts = [
        f"dense against {comparison.reduced.schedule}",
        _headline(comparison),
        _costs(comparison),
        _differences(comparison),
        _truth(comparison),
        _consistency(comparison),
        conditions(comparison.machine, row),
        waiting(comparison.seconds, {name: len(run.measured) for name, run in comparison.runs.items()}),
    ]
    return "\n\n".join(part for part in parts if part)


def sweep_text(points: list[Comparison]) -> str:
    """One line per pair of factors, the fastest first."""
    rows = []
    for point in points:
        total, schedule = point.total_factor(), point.reduced.schedule
        rows.append((
            str(schedule.query_factor), str(schedule.kv_factor), milliseconds(point.run().total.median),
            _median(total), _range(total), _median(point.aggregator_factor()), factor(point.arithmetic_factor()),
            percent(point.difference.abs_rel), percent(point.difference.ate_relative),
        ))  # fmt: skip
    last = points[-1]
    dense = f"dense: {milliseconds(last.runs[DENSE].total.median)}; depth and ATE: difference from dense"
    busy = "\nthe machine was busy meanwhile: take these numbers with doubt" if any(p.busy for p in points) else ""
    return f"{table(rows, header=SWEEP_COLUMNS)}\n\n{dense}{busy}\n{conditions(last.machine, last.row())}"


def sweep_json(points: list[Comparison]) -> dict[str, Any]:
    """The rows of `compare`: dense first, then every point with its differences."""
    rows = [{**point.row(), "difference": point.difference.to_json(), "busy": point.busy} for point in points]
    return {"machine": points[-1].machine, "rows": [points[-1].row(DENSE), *rows]}


def _headline(comparison: Comparison) -> str:
    """The factor of the whole run, of the aggregator, and in arithmetic."""
    total, aggregator = comparison.total_factor(), comparison.aggregator_factor()
    lines = [
        ("whole run", _median(total), _range(total)),
        ("aggregator", _median(aggregator), _range(aggregator)),
        ("arithmetic (FLOP)", factor(comparison.arithmetic_factor()), ""),
    ]
    doubts = [comparison.doubt(), "The machine was busy meanwhile: take these times with doubt."]
    doubts = [doubt for doubt, holds in zip(doubts, (True, comparison.busy), strict=True) if doubt and holds]
    return "\n".join([table(lines, header=("factor", "median", "range")), *doubts])


def _costs(comparison: Comparison) -> str:
    dense, reduced = comparison.runs[DENSE], comparison.run()
    rows = [
        (stage.replace("_", " "), *(milliseconds(run.cost.milliseconds.get(stage, 0.0)) for run in (dense, reduced)))
        for stage in STAGES
    ]
    sums = ("aggregator", *(milliseconds(run.aggregator.median) for run in (dense, reduced)))
    rows.insert(1 + STAGES.index(AGGREGATOR[-1]), sums)
    rows.append(("total", *(milliseconds(run.total.median) for run in (dense, reduced))))
    rows.append(("peak memory", *(byte_count(run.cost.peak_bytes) for run in (dense, reduced))))
    rows.append(("queries", *(str(run.cost.query_tokens) for run in (dense, reduced))))
    rows.append(("keys/values", *(str(run.cost.kv_tokens) for run in (dense, reduced))))
    return table(rows, header=(f"median of {len(reduced.measured)}", "dense", "reduced"))


def _median(one: Factor | None) -> str:
    return factor(one and one.median)


def _range(one: Factor | None) -> str:
    return factor_range(one.low, one.high) if one else ""


def _differences(comparison: Comparison) -> str:
    moved = comparison.difference
    return table(
        [
            ("depth (mean relative)", number(moved.abs_rel)),
            ("camera path (ATE / length)", number(moved.ate_relative)),
            ("camera rotation (mean, °)", number(moved.rotation_deg, 3)),
            ("relative poses (AUC@3°, AUC@30°)", f"{number(moved.auc_3, 3)}, {number(moved.auc_30, 3)}"),
            ("cloud (Chamfer / diagonal)", number(moved.chamfer)),
        ],
        header=("reduced against dense", "difference"),
    )


def _consistency(comparison: Comparison) -> str:
    rows = [(name, *consistency_cells(one)) for name, one in comparison.consistency.items()]
    return table(rows, header=("against matched features", *CONSISTENCY_COLUMNS))


def _truth(comparison: Comparison) -> str:
    rows = [(name, *score_cells(scores)) for name, scores in comparison.truth.items()]
    return table(rows, header=("against truth", *SCORE_COLUMNS)) if rows else ""
