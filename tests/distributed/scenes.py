"""What the ranks of a nursery do: real commands, with a fault put into one rank."""

from __future__ import annotations

import importlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from spark3r import handover, parcels, rank_part, team, world
from spark3r import ranks as transport
from spark3r.__main__ import main
from spark3r.commands import COMMANDS
from spark3r.distributed import FrameShare
from spark3r.errors import Cancelled, InputError
from spark3r.export import write
from spark3r.frames import Frames, frames_for
from spark3r.inference import Run, reconstruct
from spark3r.models.checkpoints import load_model
from spark3r.models.network import Network
from spark3r.reconstruction import Cost, Reconstruction
from spark3r.reduction import ReductionSchedule

torch.set_num_threads(1)
world.SUSPECT_SECONDS, world.BEAT_SECONDS = 0.5, 0.1  # the machine is one: what is silent for half a second is gone
assert COMMANDS  # imported before the ranks are
SIDE = 64  # pixels, of every clip in these tests


def grow_up() -> None:
    """Does once what each rank would do first: imports, estimates, measured kernels."""
    reconstruct(np.zeros((3, SIDE, SIDE, 3), np.uint8), "mini", "2x4", resolution=SIDE)


def command(arguments: list[str], fault: str = "", at: int = -1) -> int:
    """A command line under torchrun; rank `at` has a fault."""
    if int(os.environ["RANK"]) == at:
        FAULTS[fault]()
    return main(arguments)


def finding(module: str, folder: str) -> int:
    """What `main(rank, ranks)` of a module finds, written to `folder`."""
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo")
    found = importlib.import_module(module).main(rank, ranks)
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()
    return 0


def stopped_then_whole(clip: str, told: str) -> int:
    """Several jobs of one group; rank 0 writes what it saw of them to `told`."""
    rank, readable = int(os.environ["RANK"]), rank_part.read_frames
    if rank == 1:
        refusals: Iterator[Exception | None] = iter([InputError("not this time")])
        _before(rank_part, "read_frames", lambda: _raise_next(refusals))
    with team.team() as leads:
        if not leads:
            return 0
        assert readable is rank_part.read_frames
        network, found = load_model("mini"), {}
        try:
            frames_for(clip, network, resolution=SIDE)
        except InputError as error:
            found["unreadable"] = str(error)
        read: list[list[int]] = []
        frames = frames_for(clip, network, resolution=SIDE, progress=lambda *counts: read.append(list(counts)))
        found["stopped"] = [_stopped(frames, network, after) for after in (1, 9)]
        fractions: list[float] = []
        assert team.leader is not None
        scene = reconstruct(
            frames, network, "2x4", resolution=SIDE, progress=lambda now: fractions.append(now.fraction)
        )
        found |= {"read": read, "frames": len(scene), "fractions": fractions}
        team.leader.world.least_done = lambda: 0.25
        behind: list[float] = []
        reconstruct(frames, network, "2x4", resolution=SIDE, progress=lambda now: behind.append(now.fraction))
        found["while another was behind"] = behind
        Path(told).write_text(json.dumps(found))
    return 0


def page(clip: str, told: str) -> int:
    """The page's own runs on ranks: one that is stopped, one whose clip rank 1 cannot read, and a whole one."""
    from spark3r.frames import describe_source
    from tests.viewer.conftest import Nobody
    from viewer.engine import Engine, Models, RunQueue
    from viewer.job import Job
    from viewer.request import Clip, RunRequest
    from viewer.state import ReductionSettings, SamplingSettings

    if os.environ["RANK"] == "1":
        refusals: Iterator[Exception | None] = iter([None, InputError("not this time")])
        _before(rank_part, "read_frames", lambda: _raise_next(refusals))
    with team.team() as leads:
        if not leads:
            return 0
        engine = Engine(RunQueue(), Models())
        request = RunRequest(
            Clip("clip", (Path(clip),)), describe_source(clip), SamplingSettings(23, 0.0, "mini", SIDE),
            ReductionSettings("manual", 2, 2, 20, 1, "spark3r"),
        )  # fmt: skip
        phases = []
        for stops in (True, False, False):
            job = Job(request, engine, Nobody())
            nobody = job._visitor
            if stops:
                _before(job, "_hear", job.stop)
            threading.Thread(target=job.work).start()
            while job.report.is_busy:
                time.sleep(0.05)
            phases.append([job.report.phase, job.report.message])
        ranks = [[part.frames for part in run.scene.cost.ranks] for run in nobody.runs.values() if run.scene]
        Path(told).write_text(json.dumps({"phases": phases, "ranks": ranks}))
    return 0


def streamed(frames: int, out: str, grown: str) -> int:
    """What rank 0 does with results, all but one frame of them another's; `grown`: bytes received, and by how many the
    memory grew that is its own and not a file's."""
    parcels.IN_MEMORY_BYTES, transport._BYTES_AT_ONCE = 0, 1 << 20
    with world.World() as group:
        share = FrameShare(transport.Ranks(), [slice(0, 1), slice(1, frames)])
        mine = _blank(1) if group.leads else _blank(frames - 1)
        if not group.leads:
            for name in team._FROM_RANKS:
                share.ranks.send(0, getattr(mine, name))
            parcels.send_json(asdict(rank_part.cost_of(mine, share)), share.ranks)
            return 0
        clip = Frames.of(np.zeros((frames, SIDE, SIDE, 3), np.uint8))
        with _own_memory() as growth:
            scene = team.Leader(group)._collected(mine, share, clip, 0.0)
            write(scene, out, max_points=50_000)
        Path(grown).write_text(f"{share.ranks.traffic.all.bytes} {max(growth)}")
    return 0


def _blank(frames: int) -> Reconstruction:
    """A result of 512 x 512 pixels; frame i of the second rank is i + 2 away."""
    shape = (frames, 512, 512)
    depth = np.broadcast_to(np.arange(1, frames + 1, dtype=np.float32)[:, None, None] + (frames > 1), shape)
    return Reconstruction(
        np.zeros((*shape, 3), np.uint8), depth, np.ones(shape, np.float32),
        np.stack([np.eye(4, dtype=np.float32)] * frames),
        np.stack([np.diag(np.array([500, 500, 1], np.float32))] * frames), Cost({}, 0, 0, 0, 0),
        ReductionSchedule.off(), "mini", "cpu", "float32", "torch", np.arange(frames), np.arange(frames) / 1.0,
        tuple(map(str, range(frames))),
    )  # fmt: skip


@contextmanager
def _own_memory() -> Iterator[list[int]]:
    """Growth of the process's own memory in bytes, seen every few milliseconds."""

    def own() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

    before, growth, ended = own(), [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.002):
            growth.append(own() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield growth
    finally:
        ended.set()
        thread.join()


def _stopped(frames: Frames, network: Network, after: int) -> str:
    """How a run ends that is asked to stop when it asks so often."""
    asked = iter(range(after))
    try:
        reconstruct(frames, network, "2x4", resolution=SIDE, cancel=lambda: next(asked, None) is None)
    except Cancelled as stopped:
        return type(stopped).__name__
    return "went on"


def _raise_next(errors: Iterator[Exception | None]) -> None:
    error = next(errors, None)
    if error is not None:
        raise error


def _before(owner: Any, name: str, act: Callable[[], None]) -> None:
    whole = getattr(owner, name)

    def instead(*given: Any, **named: Any) -> Any:
        act()
        return whole(*given, **named)

    setattr(owner, name, instead)


def _raise(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def _killed() -> None:
    _before(Run, "_densify", lambda: os.kill(os.getpid(), signal.SIGKILL))


def _terminated() -> None:
    _before(Run, "_densify", lambda: os.kill(os.getpid(), signal.SIGTERM))


def _interrupted() -> None:
    _before(Run, "_densify", lambda: os.kill(os.getpid(), signal.SIGINT))


def _without_memory() -> None:
    _before(Run, "_encode", _raise(MemoryError()))


def _without_device_memory() -> None:
    _before(Run, "_encode", _raise(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")))


def _broken() -> None:
    _before(Run, "_aggregate", _raise(KeyError("a mistake in the program")))


def _unreadable() -> None:
    _before(rank_part, "read_frames", _raise(InputError("clip.mp4 breaks off at frame 21: copy it again")))


def _unwritable() -> None:
    _before(Reconstruction, "save", _raise(InputError("The disk is full")))


def _other_code() -> None:
    handover.source_digest = lambda: "another"


def _other_weights() -> None:
    whole = handover.broadcast

    def corrupting(network: Network, from_us: bool) -> None:
        whole(network, from_us)
        network.trunk.special.data.add_(1)

    handover.broadcast = corrupting


FAULTS: dict[str, Callable[[], None]] = {
    "killed": _killed, "terminated": _terminated, "interrupted": _interrupted, "without memory": _without_memory,
    "without device memory": _without_device_memory, "broken": _broken, "unreadable": _unreadable,
    "unwritable": _unwritable, "other code": _other_code, "other weights": _other_weights,
}  # fmt: skip
