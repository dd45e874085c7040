"""What `python -m spark3r` can do: one file per command, each a dataclass of its flags with a `run()`."""

from typing import Protocol

from spark3r.commands.ablations import Ablations
from spark3r.commands.batch import Batch
from spark3r.commands.benchmark import Benchmark
from spark3r.commands.compare import Compare
from spark3r.commands.evaluate import Evaluate
from spark3r.commands.models import Models
from spark3r.commands.policies import Policies
from spark3r.commands.probe import ProbeLayers
from spark3r.commands.reconstruct import Reconstruct
from spark3r.commands.sensitivity import Sensitivity
from spark3r.commands.train import Train
from spark3r.errors import InputError
from spark3r.files import check_target
from spark3r.installation import require
from spark3r.reduction import ReductionSchedule


class Command(Protocol):
    """Parsed flags that know what to do."""

    def run(self) -> None:
        """Does it and prints it. Raises InputError with the sentence for the person."""


COMMANDS: dict[str, type[Command]] = {
    "reconstruct": Reconstruct,
    "batch": Batch,
    "compare": Compare,
    "benchmark": Benchmark,
    "sensitivity": Sensitivity,
    "probe": ProbeLayers,
    "ablations": Ablations,
    "policies": Policies,
    "evaluate": Evaluate,
    "models": Models,
    "train": Train,
}

_SCORING = (Ablations, Compare, Evaluate, Policies, ProbeLayers, Sensitivity)


def check_installed(command: Command) -> None:
    """Raises InputError if a package is missing that the command would need in the end; asked before it starts."""
    scores = ("scipy",) if isinstance(command, _SCORING) else ()
    charts = ("matplotlib",) if getattr(command, "chart", None) is not None else ()
    require(f"`spark3r {next(name for name in COMMANDS if COMMANDS[name] is type(command))}`", *scores, *charts)


def check_outputs(command: Command) -> None:
    """Raises InputError, before any work, where an answer could not be written."""
    for name in ("json", "chart"):
        path = getattr(command, name, None)
        if path not in (None, "-"):
            check_target(path)
    if isinstance(command, ProbeLayers):
        try:
            ReductionSchedule.read(command.out)  # one of an earlier run may be replaced
        except InputError:
            check_target(command.out)


__all__ = [
    "COMMANDS",
    "Batch",
    "Benchmark",
    "Ablations",
    "Command",
    "Compare",
    "Evaluate",
    "Models",
    "Policies",
    "ProbeLayers",
    "Reconstruct",
    "Sensitivity",
    "Train",
    "check_installed",
    "check_outputs",
]
