"""`batch SOURCE… -o OUT`"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from spark3r.commands.options import RunOptions, UsageError, shown_as
from spark3r.commands.report import Report
from spark3r.compare import cost_row
from spark3r.errors import InputError
from spark3r.export import Origin, check, write
from spark3r.formatting import milliseconds
from spark3r.frames.image import IMAGE_SUFFIXES
from spark3r.frames.source import VIDEO_SUFFIXES
from spark3r.inference import reconstruct
from spark3r.models.network import Network
from spark3r.world import RankLost, finish_together

CLIP_SUFFIXES = VIDEO_SUFFIXES | {".zip"}
REPORT = "report.jsonl"


@dataclass(frozen=True, kw_only=True)
class Batch(RunOptions):
    """Reconstruct many clips, one after the other; a clip that fails is told and does not stop the rest.

    INPUT is a folder whose videos, zips and folders of pictures are clips, or a text file with one path per line. Each
    clip becomes OUT/<name><format>; what is there already is left out, so that an interrupted batch goes on where it
    stopped. OUT/report.jsonl gets one line per clip. Exit code 1 if any clip failed.
    """

    input: tyro.conf.Positional[Annotated[Path, shown_as("FOLDER|LIST")]]
    """Folder of clips, or list of paths."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")]
    """Folder for the scenes."""
    format: Annotated[Literal[".npz", ".glb", ".ply", ".tum", ".zip"], shown_as("SUFFIX")] = ".npz"
    """Of the scenes; default: .npz, which holds everything."""
    part: Annotated[str | None, shown_as("I/N")] = None
    """Only every N-th clip from number I on (0 … N-1), for several machines or the tasks of a Slurm array."""

    spread: Annotated[bool, tyro.conf.FlagCreatePairsOff, shown_as("")] = False
    """Under torchrun: every process takes clips of its own; else all share each clip."""

    def run(self) -> None:
        """Works through what is not done yet."""
        self.check()
        check(self.out / f"clip{self.format}")
        every = clips_of(self.input)
        first, step = self._ours()
        clips = list(zip(every, unique_names(every), strict=True))[first::step]
        self.out.mkdir(parents=True, exist_ok=True)
        if self.spread and torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        report, network, failed = Report(self), self.load(), []
        for clip, name in clips:
            target = self.out / f"{name}{self.format}"
            if target.exists():
                continue
            line = self._one(clip, target, network, report)
            self._tell(line)
            failed += [f"{clip}: {line['error']}"] if "error" in line else []
        done = len(clips) - len(failed)
        report.answer(
            "\n".join([f"{done} of {len(clips)} clips are in {self.out}", *failed]),
            {"done": done, "failed": failed, "output": str(self.out)},
        )
        if self.spread:
            finish_together()
        if failed:
            raise InputError(f"{len(failed)} of {len(clips)} clips could not be reconstructed")

    def _ours(self) -> tuple[int, int]:
        """(first, step) of the clips that this process takes."""
        if self.spread:
            return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        if self.part is None:
            return 0, 1
        first, _, step = self.part.partition("/")
        if not (first.isdigit() and step.isdigit() and int(first) < int(step)):
            raise UsageError(f"--part {self.part}: must be I/N with I from 0 to N-1, such as 0/4")
        return int(first), int(step)

    def _one(self, clip: Path, target: Path, network: Network, report: Report) -> dict[str, Any]:
        """The line of one clip: what it cost, or why it failed."""
        started = time.perf_counter()
        report.doing(f"{clip.name}: reading")
        try:
            frames = self.read(clip, network)
            schedule = self.reduction(len(frames), network)
            scene = reconstruct(frames, network, schedule, resolution=self.resolution, progress=report.progress)
            write(scene, target, origin=Origin(clip=frames.source, source=clip))
        except RankLost:  # the ranks that the other clips need are gone as well
            raise
        except Exception as error:  # noqa: BLE001 told, in the report and at the end; the other clips are none of its
            told = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            return {"clip": str(clip), "error": told}
        seconds = time.perf_counter() - started
        report.doing(f"{clip.name}: {len(frames)} frames in {milliseconds(seconds * 1e3)}")
        return {"clip": str(clip), "output": str(target), "seconds": round(seconds, 3), **cost_row(scene)}

    def _tell(self, line: dict[str, Any]) -> None:
        """One write per line, so that the tasks of an array may share the file."""
        handle = os.open(self.out / REPORT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(handle, (json.dumps(line) + "\n").encode())
        finally:
            os.close(handle)


def clips_of(source: Path) -> list[Path]:
    """The clips of a folder, by name, or of a list, in its order. Raises InputError where there is none."""
    if source.is_dir():
        found = sorted(path for path in source.iterdir() if _is_clip(path))
    elif source.is_file():
        lines = source.read_text(encoding="utf-8").splitlines()
        found = [source.parent / line.strip() for line in lines if line.strip() and not line.startswith("#")]
    else:
        raise InputError(f"{source} does not exist: name a folder of clips, or a text file with one path per line")
    if not found:
        raise InputError(f"{source} holds no clip: videos, zips and folders of pictures are taken")
    return found


def _is_clip(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    if path.is_dir():
        return any(inside.suffix.lower() in IMAGE_SUFFIXES | CLIP_SUFFIXES for inside in path.iterdir())
    return path.suffix.lower() in CLIP_SUFFIXES


def unique_names(clips: Sequence[Path]) -> Iterator[str]:
    """A file name for each clip: its own without suffix, numbered where another has it already."""
    seen: dict[str, int] = {}
    for clip in clips:
        count = seen[clip.stem] = seen.get(clip.stem, 0) + 1
        yield clip.stem if count == 1 else f"{clip.stem}-{count}"
