"""The flags that several commands share, and what they mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from spark3r.errors import InputError
from spark3r.estimate import network_size, schedule_for
from spark3r.frames import Frames, frames_for
from spark3r.models.checkpoints import load_model
from spark3r.models.network import Network
from spark3r.reduction import ReductionSchedule
from spark3r.reduction.policies import POLICIES
from spark3r.reduction.schedule import PolicyName

Dtype = Literal["float32", "bfloat16", "float16"]


class UsageError(InputError):
    """Flags that contradict each other: exit code 2, as for flags that cannot be parsed."""


def shown_as(metavar: str) -> Any:
    """A flag whose comment says everything, the default included."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


Source = Annotated[str, shown_as("INPUT")]


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where the answer goes."""

    json: Annotated[str | None, shown_as("FILE|-")] = None
    """Also write the answer as one JSON object to this file; "-" prints it in place of the table."""
    quiet: Annotated[bool, tyro.conf.FlagCreatePairsOff, shown_as("")] = False
    """No progress and no notes on standard error."""


@dataclass(frozen=True, kw_only=True)
class RunOptions(OutputOptions):
    """Which frames run through which model, and how reduced."""

    model: Annotated[str, shown_as("NAME|PATH")] = "mini"
    """A name from `spark3r models` or a .safetensors file; default: mini."""
    device: Annotated[str | None, shown_as("DEVICE")] = None
    """cpu, cuda, cuda:1, …; default: a GPU if there is one."""
    dtype: Annotated[Dtype | None, shown_as("float32|bfloat16|float16")] = None
    """Of the fast layers; default: bfloat16 where the device is fast in it, else float32."""
    resolution: Annotated[int | None, shown_as("PIXELS")] = None
    """Longer side of the network's input; default: the model's own."""
    max_frames: Annotated[int | None, shown_as("N")] = None
    """Take at most this many frames, evenly over the clip; default: all."""
    fps: Annotated[float | None, shown_as("RATE")] = None
    """Take this many frames per second of video; default: all."""
    offload: Annotated[bool, tyro.conf.FlagCreatePairsOff, shown_as("")] = False
    """What the heads read waits in the computer's memory, so that longer clips fit on a GPU."""
    compile: Annotated[bool, tyro.conf.FlagCreatePairsOff, shown_as("")] = False
    """Compile elementwise functions for the CPU: up to a minute to start; needs a C++ compiler."""
    query_factor: Annotated[int | None, shown_as("N")] = None
    """So many frames share one query; 1 is off."""
    kv_factor: Annotated[int | None, shown_as("N")] = None
    """One frame in so many keeps its keys/values; 1 is off."""
    schedule: Annotated[str | None, shown_as("WORD")] = None
    """In place of the two factors: auto (by length, the default), dense, 4x25, uniform:4, grid:4x25, anchor:25,
    register, chunked:12+4 (windows of 12 frames, 4 shared; chunked:60+20:auto reduces each), or a schedule file."""
    policy: Annotated[PolicyName | None, shown_as("NAME")] = None
    """spark3r (the default), or a rival under the same factors: uniform, grid, anchor, register."""

    def load(self) -> Network:
        """The network, where and as the flags say."""
        return load_model(self.model, self.device, self.dtype, offload=self.offload, compile=self.compile)

    def read(self, source: str | Path | Sequence[str | Path], network: Network) -> Frames:
        """The frames that the flags ask for, as the network needs them."""
        return frames_for(source, network, max_frames=self.max_frames, fps=self.fps, resolution=self.resolution)

    def size(self, frames: Frames, network: Network) -> tuple[int, int]:
        """(H, W) of the network's input, at which depth comes out."""
        height, width = frames.images.shape[1:3]
        return network_size(network, height, width, self.resolution)

    def reduction(self, num_frames: int, network: Network) -> ReductionSchedule:
        """The schedule the flags mean. Factors use the model's own sensitive layers; a factor left out is off."""
        self.check()
        if self.query_factor is None and self.kv_factor is None:
            chosen = schedule_for(self.schedule or "auto", num_frames, network)
        else:
            chosen = schedule_for(f"{self.query_factor or 1}x{self.kv_factor or 1}", num_frames, network)
        return chosen if self.policy is None else chosen.with_(policy=self.policy)

    def check(self) -> None:
        """Raises UsageError for flags that contradict each other; called before any work."""
        factors = self.query_factor is not None or self.kv_factor is not None
        if factors and self.schedule is not None:
            raise UsageError("--schedule and --query-factor/--kv-factor exclude each other: give one of them")
        for name in ("query_factor", "kv_factor"):
            if self.policy and getattr(self, name) is not None and name not in POLICIES[self.policy].reads:
                raise UsageError(f"--policy {self.policy} has no use for --{name.replace('_', '-')}: leave it out")
        for name, value in (("--query-factor", self.query_factor), ("--kv-factor", self.kv_factor)):
            if value is not None and value < 1:
                raise UsageError(f"{name} {value}: must be 1 (off) or more")
