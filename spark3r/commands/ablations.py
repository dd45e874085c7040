"""`ablations FOLDER...`"""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import tyro

from spark3r.benchmark.ablations import METRICS, measure_ablations
from spark3r.commands.benchmark import command_line
from spark3r.commands.options import OutputOptions, UsageError, shown_as
from spark3r.commands.report import Report, table
from spark3r.commands.sensitivity import sample_of
from spark3r.errors import InputError
from spark3r.measure import machine
from spark3r.models.checkpoints import load_model
from spark3r.reduction import ReductionSchedule


@dataclass(frozen=True, kw_only=True)
class Ablations(OutputOptions):
    """Measure the alternatives where the paper leaves a choice open: what is matched, kept, and where it stands."""

    folders: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FOLDER...")]]
    """Clip folders with truth."""
    model: Annotated[str, shown_as("NAME|PATH")] = "mini"
    """A name from `spark3r models` or a file of weights; default: mini."""
    frames: Annotated[int, shown_as("N")] = 60
    """Taken evenly over each clip; shorter clips are left out; default: 60."""
    query_factor: Annotated[int, shown_as("N")] = 4
    """The same in every layer; default: 4."""
    kv_factor: Annotated[int, shown_as("N")] = 8
    """The same in every layer; default: 8."""

    def run(self) -> None:
        """Runs every variant on every clip."""
        if not self.folders:
            raise UsageError("ablations needs at least one clip folder")
        report = Report(self)
        network = load_model(self.model, "cpu")
        schedule = ReductionSchedule(self.query_factor, self.kv_factor)
        rows: list[dict[str, Any]] = []
        for folder in self.folders:
            sample = sample_of(folder, self.frames, network)
            if sample is not None and sample.truth is None:
                raise InputError(f"{folder} has no truth: it needs a truth.npz (or recipe.json) beside the frames")
            if sample is not None:
                rows += measure_ablations(sample, network, schedule, report.doing)
        if not rows:
            raise InputError(f"no clip has {self.frames} frames: choose fewer --frames or longer clips")
        about = {**machine(network.device), "command": command_line(), "model": network.config.name}
        report.answer(f"{ablations_table(rows)}\n\n{schedule}; means over clips", {"machine": about, "rows": rows})


def ablations_table(rows: list[dict[str, Any]]) -> str:
    """Mean over clips of each variant's errors."""
    lines = []
    for name in dict.fromkeys(row["variant"] for row in rows):
        chosen = [row for row in rows if row["variant"] == name]
        lines.append((name, *(f"{fmean(row[metric] for row in chosen):.4f}" for metric in METRICS)))
    return table(lines, header=("variant", *METRICS))
