"""`compare INPUT`"""

from dataclasses import dataclass

import tyro

from spark3r.commands.evaluate import (
    CONSISTENCY_COLUMNS,
    SCORE_COLUMNS,
    clip_source,
    consistency_cells,
    score_cells,
)
from spark3r.commands.options import RunOptions, Source
from spark3r.commands.report import Report, byte_count, conditions, factor, milliseconds, number, table
from spark3r.compare import Comparison, compare
from spark3r.examples import load_truth
from spark3r.reconstruction import STAGES


@dataclass(frozen=True, kw_only=True)
class Compare(RunOptions):
    """Run a clip twice, dense and reduced, under the same conditions: times, factors, differences.

    One warm-up comes first. The dense run is the reference of the differences; a clip with truth also scores both.
    """

    input: tyro.conf.Positional[Source]
    """Video, image folder, zip, or clip folder with truth."""

    def run(self) -> None:
        """Measures both runs and tells what reduction bought and what it moved."""
        self.check()
        report = Report(self)
        report.doing("loading the model")
        network = self.load()
        report.doing("reading frames")
        frames = self.read(clip_source(self.input), network)
        report.notes(frames)
        schedule = self.reduction(len(frames), network)
        truth = load_truth(self.input, size=self.size(frames, network))
        comparison = compare(
            frames, network, schedule, truth=truth, resolution=self.resolution, progress=report.progress
        )
        report.answer(comparison_text(comparison), comparison.to_json())


def comparison_text(comparison: Comparison) -> str:
    """The whole answer for a person."""
    row = comparison.to_json()["rows"][1]
    parts = [
        f"dense against {comparison.reduced.schedule}",
        _costs(comparison),
        _differences(comparison),
        _truth(comparison),
        _consistency(comparison),
        conditions(comparison.machine, row),
    ]
    return "\n\n".join(part for part in parts if part)


def _costs(comparison: Comparison) -> str:
    dense, reduced = comparison.dense.cost, comparison.reduced.cost
    times = [(stage.replace("_", " "), dense.milliseconds.get(stage, 0.0), reduced.milliseconds.get(stage, 0.0), "")
             for stage in STAGES]  # fmt: skip
    times.insert(6, ("aggregator", dense.aggregator_ms, reduced.aggregator_ms, factor(comparison.speedup_aggregator)))
    times.append(("total", dense.total_ms, reduced.total_ms, factor(comparison.speedup_total)))
    rows = [(name, milliseconds(before), milliseconds(after), gain) for name, before, after, gain in times]
    rows.append(("peak memory", byte_count(dense.peak_bytes), byte_count(reduced.peak_bytes), ""))
    rows.append(("queries", f"{dense.query_tokens}", f"{reduced.query_tokens}", ""))
    rows.append(("keys/values", f"{dense.kv_tokens}", f"{reduced.kv_tokens}", ""))
    reused = " (reused)" if comparison.dense_reused else ""
    return table(rows, header=("", f"dense{reused}", "reduced", "factor"))


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
    rows = [
        ("dense", *consistency_cells(comparison.dense_consistency)),
        ("reduced", *consistency_cells(comparison.reduced_consistency)),
    ]
    return table(rows, header=("against matched features", *CONSISTENCY_COLUMNS))


def _truth(comparison: Comparison) -> str:
    if comparison.dense_truth is None or comparison.reduced_truth is None:
        return ""
    rows = [
        ("dense", *score_cells(comparison.dense_truth)),
        ("reduced", *score_cells(comparison.reduced_truth)),
    ]
    return table(rows, header=("against truth", *SCORE_COLUMNS))
