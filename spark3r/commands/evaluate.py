"""`evaluate FOLDER...`"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from spark3r.commands.options import RunOptions, UsageError
from spark3r.commands.report import Report, number, table
from spark3r.compare import policy_name
from spark3r.errors import InputError
from spark3r.inference import reconstruct
from spark3r.metrics import Scores, evaluate, guess_scores
from spark3r.models.network import Network
from spark3r.reduction import ReductionSchedule
from spark3r.synthetic.truth import load_truth

GUESS = "constant depth, standing still"

SCORE_COLUMNS = ("AbsRel", "δ<1.25", "ATE", "ATE/path", "rotation °", "accuracy", "completeness", "normals")


@dataclass(frozen=True)
class Evaluated:
    """One clip: the model's scores, and those of guessing."""

    clip: str
    frames: int
    schedule: ReductionSchedule
    scores: Scores
    guessed: Scores

    def row(self, model: str) -> dict[str, Any]:
        """The model's scores as a row of `evaluate --json`."""
        schedule = self.schedule
        return {
            "clip": self.clip,
            "model": model,
            "policy": policy_name(schedule),
            "query_factor": schedule.query_factor,
            "kv_factor": schedule.kv_factor,
            "frames": self.frames,
            **self.scores.to_json(),
        }

    def baseline(self) -> dict[str, Any]:
        """The scores of guessing, for the same frames."""
        return {"clip": self.clip, "model": GUESS, "frames": self.frames, **self.guessed.to_json()}


@dataclass(frozen=True, kw_only=True)
class Evaluate(RunOptions):
    """Score a model and schedule on clips with known truth, beside the scores of guessing.

    A clip folder holds rgb/000000.png … or video.mp4, and truth.npz (depth, world_from_camera, intrinsics) or the
    recipe it was rendered from.
    """

    folders: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FOLDER...")]]
    """Clip folders."""

    def run(self) -> None:
        """Reconstructs every clip and compares it to its truth."""
        self.check()
        if not self.folders:
            raise UsageError("evaluate needs at least one clip folder")
        report = Report(self)
        report.doing("loading the model")
        network = self.load()
        clips = [self._evaluate(folder, network, report) for folder in self.folders]
        name = network.config.name
        report.answer(
            evaluation_text(clips, name),
            {"rows": [clip.row(name) for clip in clips], "baselines": [clip.baseline() for clip in clips]},
        )

    def _evaluate(self, folder: Path, network: Network, report: Report) -> Evaluated:
        report.doing(f"{folder}: frames")
        frames = self.read(clip_source(folder), network)
        report.notes(frames)
        report.doing(f"{folder}: truth")
        truth = load_truth(folder, size=self.size(frames, network))
        if truth is None:
            raise InputError(f"{folder} has no truth: evaluate needs a truth.npz (or recipe.json) beside the frames")
        schedule = self.reduction(len(frames), network)
        scene = reconstruct(frames, network, schedule, resolution=self.resolution, progress=report.progress)
        report.doing(f"{folder}: scores")
        truth = truth.select(scene.indices)
        return Evaluated(folder.name, len(scene), schedule, evaluate(scene, truth), guess_scores(scene, truth))


def evaluation_text(clips: list[Evaluated], model: str) -> str:
    """The table for a person: per clip the model, then the guess."""
    rows = []
    for clip in clips:
        rows.append((clip.clip, model, str(clip.frames), *score_cells(clip.scores)))
        rows.append(("", GUESS, "", *score_cells(clip.guessed)))
    schedules = "\n".join(sorted({f"{model}: {clip.schedule}" for clip in clips}))
    units = "accuracy and completeness: parts of the scene diagonal; ATE: units of the truth"
    return f"{table(rows, header=('clip', 'model', 'frames', *SCORE_COLUMNS))}\n\n{schedules}\n{units}"


def score_cells(scores: Scores) -> tuple[str, ...]:
    """The cells under SCORE_COLUMNS."""
    return (
        number(scores.abs_rel),
        number(scores.delta_1_25, 3),
        number(scores.ate),
        number(scores.ate_relative),
        number(scores.rotation_deg, 2),
        number(scores.accuracy),
        number(scores.completeness),
        number(scores.normal_consistency, 3),
    )


def clip_source(folder: str | Path) -> Path:
    """Where a clip folder keeps its frames: rgb/, video.mp4, or the folder itself; other inputs as they are."""
    folder = Path(folder)
    for inside in (folder / "rgb", folder / "video.mp4"):
        if inside.exists():
            return inside
    return folder
