"""`policies`"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from spark3r.benchmark.chart import draw_policies
from spark3r.benchmark.policies import LENGTHS, QUALITIES, SCHEDULES, measure_quality, measure_times, summary
from spark3r.benchmark.unseen import FIRST_SEED
from spark3r.commands.benchmark import command_line
from spark3r.commands.options import Dtype, OutputOptions, UsageError, shown_as
from spark3r.commands.report import Report, table
from spark3r.errors import InputError
from spark3r.formatting import factor, milliseconds, number
from spark3r.measure import machine
from spark3r.models.checkpoints import load_model
from spark3r.models.network import Network


@dataclass(frozen=True, kw_only=True)
class Policies(OutputOptions):
    """Quality against time for every policy, on scenes that a model never saw, with the Pareto front.

    First all schedules take turns on noise and their times are medians; then each is scored on rendered clips.
    """

    model: Annotated[str, shown_as("NAME|PATH")] = "mini"
    """A name from `spark3r models` or a file of weights; default: mini."""
    schedule: Annotated[tuple[str, ...], shown_as("WORD ...")] = SCHEDULES
    """As in `benchmark`; default: dense, the paper's, and each rival at two strengths."""
    frames: Annotated[tuple[int, ...], shown_as("N ...")] = LENGTHS
    """Lengths of clips; default: 100 300."""
    clips: Annotated[int, shown_as("N")] = 8
    """Unseen clips at each length; default: 8."""
    repeats: Annotated[int, shown_as("N")] = 3
    """Timed runs of each schedule, of which the median counts; default: 3."""
    times: Annotated[Path | None, shown_as("FILE.json")] = None
    """Take the times from what this command wrote earlier, on an idle machine say, and only score."""
    device: Annotated[str | None, shown_as("DEVICE")] = None
    """cpu, cuda, cuda:1, …; default: a GPU if there is one."""
    dtype: Annotated[Dtype | None, shown_as("float32|bfloat16|float16")] = None
    """Of the fast layers; default: bfloat16 where the device is fast in it, else float32."""
    chart: Annotated[Path | None, shown_as("FILE.png")] = None
    """Also draw quality against time, a column per length."""
    compile: Annotated[bool, tyro.conf.FlagCreatePairsOff, shown_as("")] = False
    """Compile the renderer: up to a minute to start, then ten times faster; needs a C++ compiler."""

    def run(self) -> None:
        """Measures, scores and tells which are on the front."""
        if min(self.clips + 1, self.repeats, *self.frames) < 1 or not self.schedule:
            raise UsageError("policies needs a schedule; --frames and --repeats of 1 or more, --clips of 0 or more")
        if self.compile:
            os.environ["SPARK3R_COMPILE"] = "1"
        report = Report(self)
        report.doing("loading the model")
        network = load_model(self.model, self.device, self.dtype)
        times, timed_on = self._times(network, report)
        quality = measure_quality(network, self.schedule, self.frames, self.clips, report.doing)
        rows = summary(times, quality)
        about = {**machine(network.device), "command": command_line(), "model": network.config.name}
        about |= {"first_seed": FIRST_SEED, "clips": self.clips, "timed_on": timed_on}
        caption = caption_of(about, times)
        if self.chart is not None and rows:
            draw_policies(rows, self.chart, caption)
        content = {"machine": about, "summary": rows, "times": times, "rows": quality}
        report.answer(f"{policies_table(rows)}\n\n{caption}" if rows else caption, content)

    def _times(self, network: Network, report: Report) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Rows of times, and the machine they were measured on."""
        if self.times is None:
            rows = measure_times(network, self.schedule, self.frames, self.repeats, report.doing)
            return rows, machine(network.device)
        try:
            content = json.loads(self.times.read_text(encoding="utf-8"))
            return content["times"], content["machine"]["timed_on"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.times} holds no times: name what `policies --json FILE` wrote") from error


def policies_table(rows: list[dict[str, Any]]) -> str:
    """One line per length and schedule; a star where it is on the front."""

    def cell(row: dict[str, Any], name: str) -> str:
        return number(row[name], 3 if name.startswith("auc") else 4) + (" *" if name in row["front"] else "  ")

    lines = [
        (
            str(row["frames"]),
            row["schedule"],
            milliseconds(row["total_ms"]),
            factor(row["speedup_total"]),
            *(cell(row, name) for name in QUALITIES),
            number(row["rotation_deg"], 2),
            number(row["ate_relative"]),
            number(row["epipolar_px"], 2),
        )
        for row in rows
    ]
    header = (
        "frames",
        "schedule",
        "time",
        "× dense",
        "AbsRel",
        "AUC@3°",
        "AUC@30°",
        "rotation °",
        "ATE/path",
        "epipolar px",
    )
    return table(lines, header=header) + "\n* no other schedule of this length is faster and better"


def caption_of(about: dict[str, Any], times: list[dict[str, Any]]) -> str:
    """What was measured on what."""
    timed = about["timed_on"]
    run = next((row for row in times if "skipped" not in row), {"dtype": "–", "repeats": 0, "width": 0, "height": 0})
    return (
        f"{about['model']} · {run['width']}×{run['height']} · {about['clips']} unseen clips, seeds from "
        f"{about['first_seed']} · times: median of {run['repeats']}, {run['dtype']}, {timed['processor']}, "
        f"{timed['threads']} threads · torch {timed['torch']}"
    )
