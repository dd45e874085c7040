"""`probe INPUT`"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from spark3r.commands.evaluate import clip_source
from spark3r.commands.options import Dtype, OutputOptions, Source, shown_as
from spark3r.commands.report import Report, table
from spark3r.compare import difference
from spark3r.errors import InputError
from spark3r.estimate import network_size
from spark3r.examples import load_truth
from spark3r.files import replacing
from spark3r.frames import Frames, frames_for
from spark3r.inference import reconstruct
from spark3r.metrics import consistency, evaluate, match_features
from spark3r.metrics.truth import Truth
from spark3r.models.checkpoints import load_model
from spark3r.models.network import Network
from spark3r.reconstruction import Reconstruction
from spark3r.reduction import ReductionSchedule
from spark3r.reduction.probe import BASE_FACTOR, GROWTH_LIMIT, RAISED_FACTOR, Probe, probe

AGAINST = {"truth": "truth", "dense": "the dense result", "pictures": "features matched in the pictures"}


@dataclass(frozen=True, kw_only=True)
class ProbeLayers(OutputOptions):
    """Find the global layers that bear little pruning, and write a schedule that spares them.

    All layers keep one frame in 32, then one layer at a time keeps one in 256; a layer whose error grows by more than
    5 % is sensitive. The error is the distance between the clouds, to the truth where the clip has it, else to the
    dense result; or how far the result is from features matched in the pictures, which asks neither of them.
    """

    input: tyro.conf.Positional[Source]
    """Video, image folder, zip, or clip folder with truth; a few hundred frames tell most."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = Path("schedule.json")
    """The schedule to write: the automatic one for this length, with the layers found."""
    model: Annotated[str, shown_as("NAME|PATH")] = "mini"
    """A name from `spark3r models` or a file of weights; default: mini."""
    device: Annotated[str | None, shown_as("DEVICE")] = None
    """cpu, cuda, cuda:1, …; default: a GPU if there is one."""
    dtype: Annotated[Dtype | None, shown_as("float32|bfloat16|float16")] = None
    """Of the fast layers; default: bfloat16 where the device is fast in it, else float32."""
    resolution: Annotated[int | None, shown_as("PIXELS")] = None
    """Longer side of the network's input; default: the model's own."""
    max_frames: Annotated[int | None, shown_as("N")] = None
    """Take at most this many frames, evenly over the clip; default: all."""
    against: Annotated[Literal["truth", "dense", "pictures"] | None, shown_as("truth|dense|pictures")] = None
    """What the error is measured against; default: truth where there is one, else dense."""
    growth_limit: Annotated[float, shown_as("FACTOR")] = GROWTH_LIMIT
    """A layer whose error grows by more than this is sensitive; default: 1.05."""

    def run(self) -> None:
        """Runs the model once per layer and once more, and writes the schedule."""
        report = Report(self)
        report.doing("loading the model")
        network = load_model(self.model, self.device, self.dtype)
        frames = frames_for(
            clip_source(self.input), network, max_frames=self.max_frames, resolution=self.resolution
        )  # fmt: skip
        report.notes(frames)
        report.doing("truth")
        height, width = frames.images.shape[1:3]
        size = network_size(network, height, width, self.resolution)
        truth = load_truth(self.input, size=size) if self.against in (None, "truth") else None
        against = self.against or ("dense" if truth is None else "truth")
        if against == "truth" and truth is None:
            raise InputError(f"{self.input} has no truth: leave out --against truth, or probe a clip that has")
        found = self._probe(network, frames, truth, against, report)
        schedule = found.schedule(len(frames))
        with replacing(self.out) as temporary:
            temporary.write_text(schedule.to_json() + "\n")
        report.answer(
            f"{probe_table(found)}\n\nagainst {AGAINST[against]}, {len(frames)} frames\n"
            f"{schedule}\nwritten: {self.out}",
            probe_json(found, frames, network, against),
        )

    def _probe(self, network: Network, frames: Frames, truth: Truth | None, against: str, report: Report) -> Probe:
        def run(schedule: ReductionSchedule | None) -> Reconstruction:
            return reconstruct(frames, network, schedule, resolution=self.resolution)

        error = self._error(run, frames, truth, against)

        def error_of(schedule: ReductionSchedule) -> float:
            return error(run(schedule))

        def progress(done: int, total: int) -> None:
            report.doing(f"run {done + 1} of {total}")

        return probe(error_of, len(network.config.global_blocks), self.growth_limit, progress)

    @staticmethod
    def _error(
        run: Callable[[None], Reconstruction], frames: Frames, truth: Truth | None, against: str
    ) -> Callable[[Reconstruction], float]:
        """What tells the error of a result."""
        if truth is not None:
            known = truth.select(frames.indices)
            return lambda scene: evaluate(scene, known).chamfer
        if against == "pictures":
            matches = match_features(frames.images)
            return lambda scene: consistency(scene, matches).epipolar_px
        dense = run(None)
        return lambda scene: difference(scene, dense).chamfer


def probe_table(found: Probe) -> str:
    """One line per layer."""
    rows = [
        (str(layer.layer), f"{layer.error:.5f}", f"{layer.growth:.3f}×", "sensitive" if layer.sensitive else "")
        for layer in found.layers
    ]
    base = (f"all at {BASE_FACTOR}", f"{found.base_error:.5f}", "1.000×", "")
    return table([base, *rows], header=("layer", f"error, at {RAISED_FACTOR}", "growth", ""))


def probe_json(found: Probe, frames: Frames, network: Network, against: str) -> dict[str, object]:
    """The layer table for a script."""
    return {
        "model": network.config.name,
        "clip": frames.source,
        "frames": len(frames),
        "against": against,
        "base_error": found.base_error,
        "sensitive_layers": list(found.sensitive_layers),
        "rows": [
            {"layer": layer.layer, "error": layer.error, "growth": layer.growth, "sensitive": layer.sensitive}
            for layer in found.layers
        ],
    }
