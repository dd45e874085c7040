"""What a person and a script get to see: tables, JSON, a progress line."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spark3r.commands.options import OutputOptions
from spark3r.compare import RunProgress
from spark3r.files import replacing
from spark3r.frames import Frames
from spark3r.inference import Progress


class Report:
    """Standard output for the answer, standard error for everything on the way to it."""

    def __init__(self, options: OutputOptions):
        self._json, self._quiet = options.json, options.quiet
        self._live = sys.stderr.isatty() and not options.quiet
        self._last_shown = 0.0

    def progress(self, progress: Progress) -> None:
        """One line that overwrites itself, at most ten times a second, on a terminal only."""
        now = time.monotonic()
        if self._live and now - self._last_shown > 0.1:
            self._last_shown = now
            stage, seconds = progress.stage.replace("_", " "), progress.elapsed_ms / 1000
            self._overwrite(f"{_which(progress)}{progress.fraction:4.0%}  {stage:17}{seconds:7.1f} s")

    def doing(self, what: str) -> None:
        """As `progress`, in words."""
        if self._live:
            self._overwrite(what)

    def notes(self, frames: Frames) -> None:
        """What reading the source had to leave out or change."""
        if not self._quiet:
            self.clear()
            for note in frames.notes:
                print(f"note: {note}", file=sys.stderr)

    def answer(self, text: str, content: dict[str, Any]) -> None:
        """The table, and the same as JSON where asked for; only the JSON if it goes to standard output."""
        self.clear()
        content = {"software": "Spark3R", **content}  # by which a later run knows that it may replace the file
        if self._json == "-":
            print(json.dumps(content, indent=2))
            return
        print(text)
        if self._json is not None:
            with replacing(Path(self._json)) as temporary:
                temporary.write_text(json.dumps(content, indent=2) + "\n")

    def clear(self) -> None:
        """Takes the progress line away."""
        if self._live:
            self._overwrite("")

    def _overwrite(self, text: str) -> None:
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _which(progress: Progress) -> str:
    """Of a comparison: which of its runs this is."""
    if not isinstance(progress, RunProgress):
        return ""
    turn = "warm-up" if progress.phase == "warm-up" else f"{progress.turn + 1} of {progress.turns}"
    return f"{progress.run:10}{turn:9}"


def table(rows: Sequence[Sequence[str]], header: Sequence[str] | None = None) -> str:
    """Columns as wide as their longest cell: the first to the left, numbers to the right."""
    cells = [list(header), *rows] if header is not None else list(rows)
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in cells
    ]
    if header is not None:
        lines.insert(1, "─" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(lines)


def conditions(machine: dict[str, Any], row: dict[str, Any]) -> str:
    """What every quoted number has to name."""
    return (
        f"{row['model']} · {row['frames']} frames at {row['width']}×{row['height']} · {row['device']} · "
        f"{row['dtype']} · {row['kernel']} attention\n"
        f"{machine['processor']}, {machine['threads']} threads · torch {machine['torch']} · {machine['system']}"
    )
