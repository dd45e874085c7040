"""`sensitivity FOLDER...`"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from spark3r.benchmark.chart import METRICS, draw_sensitivity, relative_to_dense
from spark3r.benchmark.sensitivity import KV_FACTORS, QUERY_FACTORS, Sample, study
from spark3r.commands.benchmark import command_line
from spark3r.commands.evaluate import clip_source
from spark3r.commands.options import Dtype, OutputOptions, UsageError, shown_as
from spark3r.commands.report import Report, table
from spark3r.errors import InputError
from spark3r.estimate import network_size
from spark3r.examples import load_truth
from spark3r.frames import describe_source, frames_for
from spark3r.measure import machine
from spark3r.metrics import match_features
from spark3r.models.checkpoints import load_model
from spark3r.models.network import Network


@dataclass(frozen=True, kw_only=True)
class Sensitivity(OutputOptions):
    """Compress one side, leave the other alone, and score: are keys/values the tolerant side?

    Scored against truth where a clip has it, and always against features matched in the pictures.
    """

    folders: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FOLDER...")]]
    """Clip folders, or videos; results are means over the clips that are long enough."""
    model: Annotated[str, shown_as("NAME|PATH")] = "mini"
    """A name from `spark3r models` or a file of weights; default: mini."""
    device: Annotated[str | None, shown_as("DEVICE")] = None
    """cpu, cuda, cuda:1, …; default: a GPU if there is one."""
    dtype: Annotated[Dtype | None, shown_as("float32|bfloat16|float16")] = None
    """Of the fast layers; default: bfloat16 where the device is fast in it, else float32."""
    resolution: Annotated[int | None, shown_as("PIXELS")] = None
    """Longer side of the network's input; default: the model's own."""
    frames: Annotated[tuple[int, ...], shown_as("N ...")] = (100, 300)
    """Lengths, taken evenly over each clip; shorter clips are left out; default: 100 300."""
    query_factors: Annotated[tuple[int, ...], shown_as("N ...")] = QUERY_FACTORS
    """With keys/values untouched; 1 is dense and always among them."""
    kv_factors: Annotated[tuple[int, ...], shown_as("N ...")] = KV_FACTORS
    """With queries untouched; 1 is dense and always among them."""
    chart: Annotated[Path | None, shown_as("FILE.png")] = None
    """Also draw error / dense error against the factor."""

    def run(self) -> None:
        """Studies every clip at every length it has."""
        if not (self.folders and self.frames):
            raise UsageError("sensitivity needs at least one clip folder and one length")
        report = Report(self)
        report.doing("loading the model")
        network = load_model(self.model, self.device, self.dtype)
        queries, keys = sorted({1, *self.query_factors}), sorted({1, *self.kv_factors})
        rows: list[dict[str, Any]] = []
        for length in self.frames:
            for folder in self.folders:
                sample = sample_of(folder, length, network, self.resolution)
                if sample is not None:
                    rows += study(sample, network, queries, keys, self.resolution, report.doing)
        if not rows:
            raise InputError(f"no clip has {min(self.frames)} frames: choose shorter --frames or longer clips")
        about = {**machine(network.device), "command": command_line(), "model": network.config.name}
        if self.chart is not None:
            draw_sensitivity(rows, self.chart, f"{network.config.name} · {len(self.folders)} clips")
        report.answer(sensitivity_table(rows), {"machine": about, "rows": rows})


def sample_of(folder: Path, length: int, network: Network, resolution: int | None = None) -> Sample | None:
    """So many frames of a clip, taken evenly, with their truth where there is one; None if the clip is shorter."""
    info = describe_source(clip_source(folder))
    if info.frame_count < length:
        return None
    size = network_size(network, info.height, info.width, resolution)
    frames = frames_for(clip_source(folder), network, max_frames=length, resolution=resolution)
    truth = load_truth(folder, size=size)
    known = None if truth is None else truth.select(frames.indices)
    return Sample(folder.name, frames, known, match_features(frames.images))


def sensitivity_table(rows: list[dict[str, Any]]) -> str:
    """Errors relative to dense, mean over clips, one line per side, length and factor."""
    lines = []
    for side in ("query", "kv"):
        for length in sorted({row["frames"] for row in rows}):
            columns = [dict(relative_to_dense(rows, side, length, metric)) for metric in METRICS]
            for factor in sorted(set().union(*columns)):
                cells = (f"{column[factor]:.3f}" if factor in column else "–" for column in columns)
                lines.append(("queries" if side == "query" else "keys/values", str(length), str(factor), *cells))
    return table(lines, header=("compressed", "frames", "factor", *METRICS.values())) + "\n\nerror / dense error"
