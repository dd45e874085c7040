"""What a visitor asks for: a clip, which of its frames through which model, and how strongly reduced."""

from dataclasses import dataclass
from pathlib import Path

from spark3r.frames import SourceInfo
from viewer.state import ReductionSettings, SamplingSettings


@dataclass(frozen=True)
class Clip:
    """What the visitor chose: one of ours, or files of theirs."""

    name: str
    paths: tuple[Path, ...]
    example: str = ""  # its name among the example clips; "" for the visitor's own

    @property
    def bundled(self) -> bool:
        """Whether it is one of ours."""
        return bool(self.example)

    @property
    def source(self) -> Path | list[Path]:
        """As `read_frames` takes it."""
        return self.paths[0] if len(self.paths) == 1 else list(self.paths)


@dataclass(frozen=True)
class Input:
    """What decides the dense run: equal for runs that differ in their reduction only."""

    clip: Clip
    sampling: SamplingSettings


@dataclass(frozen=True)
class RunRequest:
    """Everything a run depends on."""

    clip: Clip
    info: SourceInfo  # of the clip
    sampling: SamplingSettings
    reduction: ReductionSettings

    @property
    def input(self) -> Input:
        """Its clip and sampling."""
        return Input(self.clip, self.sampling)
