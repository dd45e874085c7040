"""`evaluate FOLDER...` and `evaluate --unseen N`"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from spark3r.benchmark.chart import draw_confidence
from spark3r.benchmark.unseen import BASELINE, FIRST_SEED, LENGTHS, SCHEDULES, Study, study_unseen
from spark3r.commands.benchmark import command_line
from spark3r.commands.options import RunOptions, UsageError, shown_as
from spark3r.commands.report import Report, table
from spark3r.errors import InputError
from spark3r.estimate import schedule_for
from spark3r.examples import load_truth
from spark3r.formatting import number
from spark3r.inference import reconstruct
from spark3r.measure import machine
from spark3r.metrics import Consistency, Scores, consistency, evaluate, match_features, trivial_baseline, trivial_scores
from spark3r.models.network import Network
from spark3r.reduction import ReductionSchedule

TRIVIAL = "constant depth, standing still"

SCORE_COLUMNS = (
    *("AbsRel", "δ<1.25", "ATE", "ATE/path", "rotation °", "AUC@3°", "AUC@30°"),
    *("accuracy", "completeness", "normals"),
)
CONSISTENCY_COLUMNS = ("epipolar px", "< 1 px", "< 2 px", "< 4 px", "reprojection px", "matches")

UNSEEN_COLUMNS = {
    "abs_rel": "AbsRel",
    "delta_1_25": "δ<1.25",
    "rotation_deg": "rotation °",
    "ate_relative": "ATE/path",
    "auc_3": "AUC@3°",
    "auc_30": "AUC@30°",
    "epipolar_px": "epipolar px",
}
CONFIDENCE_COLUMNS = {"abs_rel": "AbsRel", "wrong": "depth > 10 % off", "misplaced": "misplaced", "flying": "flying"}


@dataclass(frozen=True)
class Evaluated:
    """One clip: the model's scores, and those of the trivial baseline."""

    clip: str
    frames: int
    schedule: ReductionSchedule
    scores: Scores
    consistency: Consistency
    trivial: Scores
    trivial_consistency: Consistency

    def row(self, model: str) -> dict[str, Any]:
        """The model's scores as a row of `evaluate --json`."""
        schedule = self.schedule
        return {
            "clip": self.clip,
            "model": model,
            "policy": schedule.name,
            "query_factor": schedule.query_factor,
            "kv_factor": schedule.kv_factor,
            "frames": self.frames,
            **self.scores.to_json(),
            **self.consistency.to_json(),
        }

    def baseline(self) -> dict[str, Any]:
        """The scores of the trivial baseline, for the same frames."""
        scores = {**self.trivial.to_json(), **self.trivial_consistency.to_json()}
        return {"clip": self.clip, "model": TRIVIAL, "frames": self.frames, **scores}


@dataclass(frozen=True, kw_only=True)
class Evaluate(RunOptions):
    """Score a model and schedules against exact truth, beside the scores of the trivial baseline.

    Either on clip folders: each holds rgb/000000.png … or video.mp4, and truth.npz (depth, world_from_camera,
    intrinsics) or the recipe it was rendered from. Or, with --unseen, on rendered clips that nothing was trained or
    chosen on, each path at several lengths.
    """

    folders: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FOLDER...")]]
    """Clip folders; they come before the flags."""
    unseen: Annotated[int | None, shown_as("N")] = None
    """In place of folders: N clips of unseen seeds, rendered at the network's size."""
    wild: Annotated[bool, tyro.conf.FlagCreatePairsOff, shown_as("")] = False
    """Unseen clips of the wide world: any place, hand-held, by a camera with faults; otherwise of the example rooms."""
    frames: Annotated[tuple[int, ...] | None, shown_as("N ...")] = None
    """Lengths of each unseen clip: the same path, more or less densely; default: 32 120 300."""
    schedule: Annotated[tuple[str, ...] | None, shown_as("WORD ...")] = None
    """dense, auto, uniform, 4x25 (as in benchmark), or a schedule file; default: auto, for unseen clips dense auto."""
    chart: Annotated[Path | None, shown_as("FILE.png")] = None
    """Also draw the error of the unseen clips against confidence."""
    compile: Annotated[bool, tyro.conf.FlagCreatePairsOff, shown_as("")] = False
    """Compile the network's elementwise functions and the renderer of unseen clips: up to a minute to start, then the
    renderer is ten times faster; needs a C++ compiler."""

    def run(self) -> None:
        """Reconstructs every clip and compares it to its truth."""
        self.check()
        report = Report(self)
        report.doing("loading the model")
        network = self.load()
        if self.unseen is not None:
            self._study(self.unseen, network, report)
            return
        clips = [one for folder in self.folders for one in self._evaluate(folder, network, report)]
        name = network.config.name
        report.answer(
            evaluation_text(clips, name),
            {"rows": [clip.row(name) for clip in clips], "baselines": [clip.baseline() for clip in clips]},
        )

    def check(self) -> None:
        """As for all runs, and: folders or unseen clips, with the flags of that form only."""
        super().check()
        if bool(self.folders) == (self.unseen is not None):
            raise UsageError("evaluate takes clip folders (before the flags) or --unseen N: give one of the two")
        flags = ("max_frames", "fps") if self.unseen is not None else ("wild", "frames", "chart")
        for flag in flags:
            if getattr(self, flag) not in (None, False):
                other = "clip folders" if self.unseen is not None else "--unseen"
                raise UsageError(f"--{flag.replace('_', '-')} is for {other} only: leave it out")
        if min(1 if self.unseen is None else self.unseen, *(self.frames or LENGTHS)) < 1:
            raise UsageError("--unseen and --frames must be 1 or more")

    def schedules(self, num_frames: int, network: Network) -> Mapping[str, ReductionSchedule]:
        """The schedules the flags mean, by the word that names them."""
        if self.schedule is not None:
            words = self.schedule
        elif self.query_factor is None and self.kv_factor is None:
            words = SCHEDULES if self.unseen is not None else ("auto",)
        else:
            return {f"{self.query_factor or 1}x{self.kv_factor or 1}": self.reduction(num_frames, network)}
        named = {word: schedule_for(word, num_frames, network) for word in words}
        if self.policy is None:
            return named
        return {word: schedule.with_(policy=self.policy) for word, schedule in named.items()}

    def _evaluate(self, folder: Path, network: Network, report: Report) -> list[Evaluated]:
        report.doing(f"{folder}: frames")
        frames = self.read(clip_source(folder), network)
        report.notes(frames)
        report.doing(f"{folder}: truth")
        truth = load_truth(folder, size=self.size(frames, network))
        if truth is None:
            raise InputError(f"{folder} has no truth: evaluate needs a truth.npz (or recipe.json) beside the frames")
        truth = truth.select(frames.indices)
        found, trivial, matches = [], None, match_features(frames.images)
        for schedule in self.schedules(len(frames), network).values():
            scene = reconstruct(frames, network, schedule, resolution=self.resolution, progress=report.progress)
            report.doing(f"{folder}: scores")
            trivial = trivial or (trivial_scores(scene, truth), consistency(trivial_baseline(scene), matches))
            scores = evaluate(scene, truth), consistency(scene, matches)
            found.append(Evaluated(folder.name, len(scene), schedule, *scores, *trivial))
        return found

    def _study(self, count: int, network: Network, report: Report) -> None:
        if self.compile:
            os.environ["SPARK3R_COMPILE"] = "1"
        started = time.monotonic()
        study = study_unseen(
            network, count, self.frames or LENGTHS, lambda frames: self.schedules(frames, network), self.resolution,
            report.doing, wild=self.wild,
        )  # fmt: skip
        about = {
            **machine(network.device),
            "command": command_line(),
            "model": network.config.name,
            "dtype": str(network.dtype).removeprefix("torch."),
            "seconds": round(time.monotonic() - started),
            "first_seed": FIRST_SEED,
            "world": "the wide world" if self.wild else "rooms like the examples",
        }
        if self.chart is not None:
            draw_confidence(study.confidence(), self.chart, caption_of(about, count))
        report.answer(
            f"{unseen_text(study)}\n\n{caption_of(about, count)}",
            {"machine": about, "summary": study.summary(), "confidence": study.confidence(), "rows": study.rows},
        )


def evaluation_text(clips: list[Evaluated], model: str) -> str:
    """The table for a person: per clip the model, then the trivial baseline."""
    rows, fits = [], []
    for clip in clips:
        rows.append((clip.clip, model, str(clip.frames), *score_cells(clip.scores)))
        rows.append(("", TRIVIAL, "", *score_cells(clip.trivial)))
        fits.append((clip.clip, model, *consistency_cells(clip.consistency)))
        fits.append(("", TRIVIAL, *consistency_cells(clip.trivial_consistency)))
    schedules = "\n".join(sorted({f"{model}: {clip.schedule}" for clip in clips}))
    units = "accuracy and completeness: parts of the scene diagonal; ATE: units of the truth"
    return "\n\n".join([
        table(rows, header=("clip", "model", "frames", *SCORE_COLUMNS)),
        table(fits, header=("matched features", "model", *CONSISTENCY_COLUMNS)),
        f"{schedules}\n{units}",
    ])  # fmt: skip


def score_cells(scores: Scores) -> tuple[str, ...]:
    """The cells under SCORE_COLUMNS."""
    return (
        number(scores.abs_rel),
        number(scores.delta_1_25, 3),
        number(scores.ate),
        number(scores.ate_relative),
        number(scores.rotation_deg, 2),
        number(scores.auc_3, 3),
        number(scores.auc_30, 3),
        number(scores.accuracy),
        number(scores.completeness),
        number(scores.normal_consistency, 3),
    )


def consistency_cells(fit: Consistency) -> tuple[str, ...]:
    """The cells under CONSISTENCY_COLUMNS."""
    shares = (f"{share:.1%}" if fit.matches else "–" for share in (fit.below_1px, fit.below_2px, fit.below_4px))
    return number(fit.epipolar_px, 2), *shares, number(fit.reprojection_px, 2), str(fit.matches)


def clip_source(folder: str | Path) -> Path:
    """Where a clip folder keeps its frames: rgb/, video.mp4, or the folder itself; other inputs as they are."""
    folder = Path(folder)
    for inside in (folder / "rgb", folder / "video.mp4"):
        if inside.exists():
            return inside
    return folder


def unseen_text(study: Study) -> str:
    """Quality by length and schedule, and what the page's filter does to the errors."""
    quality = [
        (str(row["frames"]), row["schedule"], *(_mean_median(row, score) for score in UNSEEN_COLUMNS))
        for row in study.summary()
    ]
    confidence = [
        (str(row["frames"]), row["schedule"], *(_all_shown(row, measure) for measure in CONFIDENCE_COLUMNS))
        for row in study.confidence()
    ]
    hidden = study.confidence()[0]["hidden_percentile"]
    return (
        f"{table(quality, header=('frames', 'schedule', *UNSEEN_COLUMNS.values()))}\n"
        f"mean / median over clips; {BASELINE}: {TRIVIAL}\n"
        "AbsRel and δ after one median scale per clip; rotation: mean over frames after the one rotation that fits\n"
        "best; ATE: rmse of camera centres after Sim(3)\n\n"
        f"{table(confidence, header=('frames', 'schedule', *CONFIDENCE_COLUMNS.values()))}\n"
        f"all pixels → without the {hidden} % least sure of each clip, which the page hides at first;\n"
        "misplaced: farther from the true surface than 5 % of the scene diagonal; flying: so, at an edge of depth"
    )


def caption_of(about: dict[str, Any], count: int) -> str:
    """What was measured on what."""
    return (
        f"{about['model']} · {count} unseen clips of {about['world']}, seeds from {about['first_seed']} · "
        f"{about['dtype']} · {about['processor']}, {about['threads']} threads · torch {about['torch']} · "
        f"{about['seconds']} s"
    )


def _mean_median(row: dict[str, Any], score: str) -> str:
    digits = {"delta_1_25": 3, "rotation_deg": 2, "auc_3": 3, "auc_30": 3, "epipolar_px": 2}.get(score, 4)
    return f"{number(row['mean'][score], digits)} / {number(row['median'][score], digits)}"


def _all_shown(row: dict[str, Any], measure: str) -> str:
    shares = (row["all"][measure], row["shown"][measure])
    if measure == "abs_rel":
        return " → ".join(number(share) for share in shares)
    return " → ".join("–" if share is None else f"{share:.1%}" for share in shares)
