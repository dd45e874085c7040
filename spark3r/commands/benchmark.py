"""`benchmark`"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from spark3r.benchmark.chart import draw_speed
from spark3r.benchmark.sharing import working_ms
from spark3r.benchmark.speed import TORCH, Setting, benchmark
from spark3r.commands.options import Dtype, OutputOptions, UsageError, shown_as
from spark3r.commands.paper import across_ranks, paper_report, paper_table
from spark3r.commands.report import Report, table
from spark3r.estimate import schedule_for
from spark3r.formatting import byte_count, factor, factor_range, milliseconds
from spark3r.measure import machine
from spark3r.models.checkpoints import load_model, pick_device, random_model
from spark3r.models.network import Network
from spark3r.stages import COMPUTED

COLUMNS = (*COMPUTED, "aggregator", "total")  # of times
HEADER = (
    "frames",
    "schedule",
    *(stage.removesuffix("_attention") for stage in COLUMNS),
    "× agg",
    "× all",
    "range",
    "memory",
    "TFLOP",
    "of matmul rate",
)


@dataclass(frozen=True, kw_only=True)
class Benchmark(OutputOptions):
    """Measure models under schedules at several lengths: time per stage, factors, memory, arithmetic.

    Every schedule is warmed up, then all take turns; times are medians. Frames are noise, for time does not depend on
    what they show.
    """

    model: Annotated[tuple[str, ...], shown_as("NAME|PATH ...")] = ("mini",)
    """Names from `spark3r models` or files of weights; default: mini."""
    random_weights: Annotated[bool, tyro.conf.FlagCreatePairsOff, shown_as("")] = False
    """Models by name with random weights: time does not depend on the weights, so no checkpoint is needed."""
    schedule: Annotated[tuple[str, ...], shown_as("WORD ...")] = ("dense", "uniform", "auto")
    """dense, auto, 4x25, uniform:4, grid:4x25, anchor:25, register, chunked:12+4 or a schedule file (as in `compare`);
    default: dense uniform auto.
    Followed by :torch (dense:torch) the same with torch's own attention kernel."""
    frames: Annotated[tuple[int, ...], shown_as("N ...")] = (100, 300)
    """Lengths of clips; default: 100 300."""
    resolution: Annotated[tuple[int, ...], shown_as("PIXELS ...")] = ()
    """Longer sides of the network's input; default: each model's own."""
    repeats: Annotated[int, shown_as("N")] = 3
    """Runs of each schedule, of which the median counts; default: 3."""
    device: Annotated[str | None, shown_as("DEVICE")] = None
    """cpu, cuda, cuda:1, …; default: a GPU if there is one."""
    dtype: Annotated[Dtype | None, shown_as("float32|bfloat16|float16")] = None
    """Of the fast layers; default: bfloat16 where the device is fast in it, else float32."""
    chart: Annotated[Path | None, shown_as("FILE.png")] = None
    """Also draw time against length, and the stages at the longest clip."""
    paper: Annotated[tuple[str, ...], shown_as("h100|h200|a100|h20|l40s|rtx4090 ...")] = ()
    """Compute what runs would take on these GPUs from their data sheets, in place of measuring here."""
    offload: Annotated[bool, tyro.conf.FlagCreatePairsOff, shown_as("")] = False
    """What the heads read waits in the computer's memory, so that longer clips fit on the card."""
    compile: Annotated[bool, tyro.conf.FlagCreatePairsOff, shown_as("")] = False
    """Compile elementwise functions for the CPU, while warming up; needs a C++ compiler."""
    ranks: Annotated[tuple[int, ...], shown_as("N ...")] = (1,)
    """With --paper: so many cards share the clip; default: 1."""
    link: Annotated[Literal["nvlink", "pcie", "ethernet100g"], shown_as("nvlink|pcie|ethernet100g")] = "nvlink"
    """With --ranks: what lies between the cards; default: nvlink."""

    def run(self) -> None:
        """Measures every model, size and length in turn."""
        self._check()
        report = Report(self)
        if self.paper:
            rows = paper_report(
                self.model, self.schedule, self._settings(), self.paper, self.dtype, self.offload, report
            )
            rows = across_ranks(rows, self.ranks, self.link)
            about = {"computed": True, "torch": torch.__version__, "command": command_line()}
            report.answer(paper_table(rows), {"machine": about, "rows": rows})
            return
        rows: list[dict[str, Any]] = []
        for name in self.model:
            report.doing(f"{name}: loading")
            network = self._network(name)
            for setting in self._settings():
                schedules = {
                    word: schedule_for(word.removesuffix(TORCH), setting.frames, network) for word in self.schedule
                }
                rows += benchmark(network, setting, schedules, progress=lambda word, now: report.progress(now))
        about = {**machine(pick_device(self.device)), "command": command_line(), "random_weights": self.random_weights}
        if self.chart is not None:
            draw_speed(rows, self.chart, caption_of(rows, about))
        shown = table([(row["model"], *_cells(row)) for row in rows], header=("model", *HEADER))
        shared = [sharing_tables(row) for row in rows if "sharing" in row]
        text = "\n\n".join([shown, *shared, caption_of(rows, about)])
        report.answer(text, {"machine": about, "rows": rows})

    def _check(self) -> None:
        if not (self.model and self.schedule and self.frames):
            raise UsageError("benchmark needs at least one model, one schedule and one length")
        if self.repeats < 1 or min(self.frames) < 1:
            raise UsageError("--repeats and --frames must be 1 or more")

    def _network(self, name: str) -> Network:
        if not self.random_weights:
            return load_model(name, self.device, self.dtype, offload=self.offload, compile=self.compile)
        network = random_model(name, self.device, self.dtype)
        network.offload, network.compiled = self.offload, self.compile
        return network

    def _settings(self) -> list[Setting]:
        sides = self.resolution or (None,)
        return [Setting(frames, side, self.repeats) for side in sides for frames in self.frames]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    start = (str(row["frames"]), row["schedule"])
    if "skipped" in row:
        return (*start, "does not fit", *["–"] * (len(HEADER) - 3))
    times = (milliseconds(row[f"{stage}_ms"]) for stage in COLUMNS)
    gains = (factor(row[f"speedup_{part}"]) for part in ("aggregator", "total"))
    work = (f"{row['flops']['total'] / 1e12:.2f}", f"{row['matmul_share']['total']:.0%}")
    reach = row["speedup_total_range"]
    return (*start, *times, *gains, factor_range(*reach) if reach else "", byte_count(row["peak_bytes"]), *work)


def sharing_tables(row: dict[str, Any]) -> str:
    """What the ranks of one row moved and waited for: each of them, by stage, and by block of the trunk."""
    found = row["sharing"]
    ranks = [
        (
            f"rank {number}",
            str(rank["frames"]),
            milliseconds(working_ms(rank)),
            milliseconds(rank["waited_ms"]),
            byte_count(sum(rank["received_bytes"].values())),
        )
        for number, rank in enumerate(row["ranks"])
    ]
    moved = [
        (title, byte_count(part["received_bytes"]), milliseconds(part["waited_ms"]))
        for part, title in [
            *((stage, stage["stage"].replace("_", " ")) for stage in found["stages"]),
            *((block, f"block {block['block']} ({block['scope']})") for block in found["blocks"]),
        ]
    ]
    return "\n\n".join([
        f"{row['schedule']}, {row['frames']} frames: the busiest rank works {found['balance']:.2f}× the mean",
        table(ranks, header=("", "frames", "works", "waits", "received")),
        table(moved, header=("all ranks", "received", "longest wait")),
    ])  # fmt: skip


def caption_of(rows: list[dict[str, Any]], about: dict[str, Any]) -> str:
    """What the numbers were measured on."""
    run = next((row for row in rows if "skipped" not in row), None)
    where = f"{about['processor']}, {about['threads']} threads · torch {about['torch']} · {about['device']}"
    if run is None:
        return where
    rate = run["matmul_flops_per_second"] / 1e9
    busy = "\nbusy machine: its speed drifted, or times spread; take these numbers with doubt"
    return (
        f"{where} · {run['dtype']} · {run['kernel']} attention · {run['width']}×{run['height']} · "
        f"median of {run['repeats']} · matmul {rate:.0f} GFLOP/s · commit {about.get('commit') or 'unknown'}"
        f"{busy if any(row.get('busy') for row in rows) else ''}"
    )


def command_line() -> str:
    """The command under way, as one would type it."""
    return " ".join(["python -m spark3r", *sys.argv[1:]])
