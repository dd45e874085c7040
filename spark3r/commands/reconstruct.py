"""`reconstruct INPUT -o OUT`"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from spark3r import team
from spark3r.commands.options import RunOptions, Source, UsageError, shown_as
from spark3r.commands.report import Report, conditions, table
from spark3r.compare import cost_row
from spark3r.examples import footage_note
from spark3r.export import Origin, check, write
from spark3r.formatting import byte_count, milliseconds
from spark3r.inference import reconstruct
from spark3r.measure import machine
from spark3r.rank_part import shard_path
from spark3r.reconstruction import RankCost, Reconstruction
from spark3r.stages import STAGES


@dataclass(frozen=True, kw_only=True)
class Reconstruct(RunOptions):
    """Reconstruct a video, photos, a folder or a zip, and write the scene.

    The suffix of OUT decides: .glb (points and cameras, y up), .ply (points), .npz (everything), .tum (camera path),
    .zip (COLMAP and nerfstudio). A name without suffix becomes a COLMAP folder: sparse/0, images, transforms.json.
    """

    input: tyro.conf.Positional[Source]
    """Video, image folder or zip."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")]
    """File to write (.glb, .ply, .npz, .tum, .zip), or folder for COLMAP."""
    min_confidence_percentile: Annotated[float, tyro.conf.arg(metavar="0..100")] = 0.0
    """Leave out this share of the points, the least confident ones."""
    max_points: Annotated[int | None, shown_as("N")] = None
    """Points written at most, evenly from the frames; default: 1,000,000, for COLMAP 100,000."""
    shards: Annotated[bool, tyro.conf.FlagCreatePairsOff, shown_as("")] = False
    """Under torchrun: every rank writes the .npz of its own frames (scene.0000.npz, scene.0001.npz, …)."""

    def run(self) -> None:
        """Reads, reconstructs, writes, and tells what it cost."""
        self.check()
        check(self.out)
        if self.shards:
            self._share_out()
        report = Report(self)
        report.doing("loading the model")
        network = self.load()
        report.doing("reading frames")
        frames = self.read(self.input, network)
        if advice := footage_note(self.model, self.input):
            frames = replace(frames, notes=(*frames.notes, advice))
        report.notes(frames)
        schedule = self.reduction(len(frames), network)
        scene = reconstruct(frames, network, schedule, resolution=self.resolution, progress=report.progress)
        if not self.shards:  # these are written already, by every rank its own
            report.doing("writing")
            write(
                scene,
                self.out,
                min_confidence_percentile=self.min_confidence_percentile,
                max_points=self.max_points,
                origin=Origin(clip=frames.source, source=self.input),
            )
        out = shard_path(self.out, 0) if self.shards else self.out
        about = machine(network.device)
        row = cost_row(scene)
        report.answer(
            f"{cost_table(scene)}\n\n{scene.schedule}\n{conditions(about, row)}\nwritten: {out}",
            {"machine": about, "rows": [row], "notes": list(frames.notes), "output": str(out)},
        )

    def check(self) -> None:
        """As for all runs, and what would only fail in the end."""
        super().check()
        if not 0 <= self.min_confidence_percentile <= 100:
            raise UsageError(f"--min-confidence-percentile {self.min_confidence_percentile:g}: must be 0 to 100")
        if self.max_points is not None and self.max_points < 1:
            raise UsageError(f"--max-points {self.max_points}: must be 1 or more")

    def _share_out(self) -> None:
        if team.leader is None:
            raise UsageError("--shards is for several processes: start them with torchrun")
        if self.out.suffix.lower() != ".npz":
            raise UsageError(f"{self.out}: shards are .npz files, which hold everything")
        team.leader.shards = self.out


def cost_table(scene: Reconstruction) -> str:
    """Time per stage, memory and tokens of one run."""
    cost = scene.cost
    stages = [(stage.replace("_", " "), milliseconds(cost.milliseconds.get(stage, 0.0))) for stage in STAGES]
    return table(
        [
            *stages,
            ("total", milliseconds(cost.total_ms)),
            ("peak memory", byte_count(cost.peak_bytes)),
            ("queries × keys", f"{cost.query_tokens} × {cost.kv_tokens}"),
            *((f"rank {number}", _share_of(rank)) for number, rank in enumerate(cost.ranks)),
        ]
    )


def _share_of(rank: RankCost) -> str:
    """What one rank did."""
    received = byte_count(sum(rank.received_bytes.values()))
    return f"{rank.frames} frames, waited {milliseconds(rank.waited_ms)}, received {received}"
