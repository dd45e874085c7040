"""`reconstruct INPUT -o OUT`"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from spark3r.commands.options import RunOptions, Source, shown_as
from spark3r.commands.report import Report, conditions, table
from spark3r.compare import cost_row
from spark3r.examples import footage_note
from spark3r.export import Origin, check, write
from spark3r.formatting import byte_count, milliseconds
from spark3r.inference import reconstruct
from spark3r.measure import machine
from spark3r.reconstruction import Reconstruction
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

    def run(self) -> None:
        """Reads, reconstructs, writes, and tells what it cost."""
        self.check()
        check(self.out)
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
        report.doing("writing")
        write(
            scene,
            self.out,
            min_confidence_percentile=self.min_confidence_percentile,
            max_points=self.max_points,
            origin=Origin(clip=frames.source, source=self.input),
        )
        about = machine(network.device)
        row = cost_row(scene)
        report.answer(
            f"{cost_table(scene)}\n\n{scene.schedule}\n{conditions(about, row)}\nwritten: {self.out}",
            {"machine": about, "rows": [row], "notes": list(frames.notes), "output": str(self.out)},
        )


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
        ]
    )
