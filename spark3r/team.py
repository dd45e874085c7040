"""A run that several processes share: rank 0 leads, the others follow.

Rank 0 runs its command or the page as if alone; where a clip is to be reconstructed, it tells the others what to join,
sends them the network (so that weights cannot differ) and the frames they hold, and gets back what they found. Results
arrive in arrays that lie on disk where they are large, so no clip need fit the memory of one machine.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from spark3r.distributed import FrameShare
from spark3r.errors import Cancelled
from spark3r.frames import Frames
from spark3r.inference import Progress, Run, run_by
from spark3r.models.checkpoints import pick_device, skeleton
from spark3r.models.config import config_from_json, config_to_json
from spark3r.models.network import Network
from spark3r.ranks import Ranks
from spark3r.reconstruction import RankCost, Reconstruction
from spark3r.reduction import ReductionSchedule
from spark3r.tokens import split_frames
from spark3r.world import World

IN_MEMORY_BYTES = 1 << 30  # larger arrays of rank 0 lie in a file without a name
log = logging.getLogger(__name__)

_FROM_RANKS = ("images", "depth", "confidence", "world_from_camera", "intrinsics")


@contextmanager
def team() -> Iterator[bool]:
    """Joins the processes that torchrun started. Within, rank 0 (True) has the others at its service; a follower
    (False) has done all its work when the block begins."""
    with World() as world:
        world.check_versions(spark3r=_source_digest())
        if not world.leads:
            try:
                Follower(world).follow()
            except Exception:  # told to all by `World.together`, and to the person by rank 0
                log.debug("rank %d ends", world.rank, exc_info=True)
                sys.exit(1)
            yield False
            return
        run_by(Leader(world).run)
        yield True


class Leader:
    """Rank 0's side of every job."""

    def __init__(self, world: World):
        self.world = world
        self._networks: weakref.WeakKeyDictionary[Network, int] = weakref.WeakKeyDictionary()

    def run(
        self,
        frames: Frames,
        network: Network,
        schedule: ReductionSchedule,
        resolution: int | None,
        progress: Callable[[Progress], None] | None,
        cancel: Callable[[], bool] | None,
    ) -> Reconstruction:
        """As `inference.Run`, by all ranks that get frames."""
        parts = split_frames(len(frames), self.world.size, frames_together(schedule))
        Run(frames.select(parts[0]), network, schedule, resolution, None, None).check_memory()
        with self.world.together():
            self._send(network)
            self.world.announce(
                "run",
                parts=[[part.start, part.stop] for part in parts],
                frame=list(frames.images.shape[1:]),
                schedule=schedule.to_json(),
                resolution=resolution,
            )
            share = _share(self.world, parts)
            assert share is not None
            for rank, part in enumerate(share.parts[1:], 1):
                share.ranks.send(rank, frames.images[part])
            own = Run(frames.select(parts[0]), network, schedule, resolution, progress, self._asking(cancel), share)
            return self._collected(own.run(), share, frames)

    def _asking(self, cancel: Callable[[], bool] | None) -> Callable[[], bool]:
        """Asks the caller, and passes a yes on to all ranks, which see it at their next chunk."""

        def asked() -> bool:
            stop = cancel is not None and cancel()
            if stop:
                self.world.stop()
            return stop

        return asked

    def _send(self, network: Network) -> None:
        """Once for every network, all its tensors."""
        if network in self._networks:
            return
        self._networks[network] = len(self._networks)
        dtype = str(network.dtype).removeprefix("torch.")
        self.world.announce("network", config=config_to_json(network.config), dtype=dtype)
        _broadcast(network, from_us=True)

    def _collected(self, own: Reconstruction, share: FrameShare, frames: Frames) -> Reconstruction:
        """The whole result, of one's own part and of what the others send."""
        whole = {}
        for name in _FROM_RANKS:
            mine: np.ndarray = getattr(own, name)
            whole[name] = _room((len(frames), *mine.shape[1:]), mine.dtype)
            whole[name][share.here] = mine
        costs = [_cost_of(own, share)]
        for rank, part in enumerate(share.parts[1:], 1):
            for name in _FROM_RANKS:
                share.ranks.receive(rank, whole[name][part])
            costs.append(_received_cost(share, rank))
        return replace(
            own, **whole, cost=replace(own.cost, ranks=tuple(costs)),
            indices=frames.indices, timestamps=frames.timestamps, names=frames.names,
        )  # fmt: skip


class Follower:
    """The other ranks: they do what rank 0 announces."""

    def __init__(self, world: World):
        self.world = world
        self._network: Network | None = None

    def follow(self) -> None:
        """Until rank 0 leaves."""
        for job in self.world.jobs():
            with self.world.together():
                if job["kind"] == "network":
                    self._network = _arriving_network(job)
                else:
                    self._join(job)

    @torch.inference_mode()
    def _join(self, job: dict[str, Any]) -> None:
        share = _share(self.world, [slice(*part) for part in job["parts"]])
        if share is None:
            return
        assert self._network is not None
        images = np.empty((share.here.stop - share.here.start, *job["frame"]), np.uint8)
        share.ranks.receive(0, images)
        schedule = ReductionSchedule.from_json(job["schedule"])
        run = Run(Frames.of(images), self._network, schedule, job["resolution"], None, self.world.is_stopped, share)
        try:
            found = run.run()
        except Cancelled:
            return
        for name in _FROM_RANKS:
            share.ranks.send(0, getattr(found, name))
        _send_cost(_cost_of(found, share), share)


def frames_together(schedule: ReductionSchedule) -> int:
    """How many consecutive frames one rank must hold together: a group, where queries are merged in groups."""
    return 1 if schedule.is_off else schedule.group_size


def _share(world: World, parts: Sequence[slice]) -> FrameShare | None:
    """The ranks that get frames, and which (None: not this one). All ranks of the world must come here together."""
    active = [part for part in parts if part.stop > part.start]
    group = world.group(len(active))
    return FrameShare(Ranks(group), active) if world.rank < len(active) else None


def _source_digest() -> str:
    """Of the code of this package: ranks that run another would part ways."""
    digest = blake2b(digest_size=8)
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _broadcast(network: Network, from_us: bool) -> None:
    for tensor in network.state_dict().values():
        plain = tensor.detach().contiguous()
        dist.broadcast(plain.view(-1).view(torch.uint8), src=0)
        if not from_us:
            tensor.copy_(plain)


def _arriving_network(job: dict[str, Any]) -> Network:
    device = pick_device(None)
    network = skeleton(config_from_json(job["config"])).set_dtype(getattr(torch, job["dtype"])).to_empty(device=device)
    with torch.no_grad():
        _broadcast(network, from_us=False)
    return network.eval().requires_grad_(False)


def _room(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array, in a file that ends with it where it is large."""
    if int(np.prod(shape)) * dtype.itemsize <= IN_MEMORY_BYTES:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(prefix="spark3r-") as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def _cost_of(found: Reconstruction, share: FrameShare) -> RankCost:
    traffic = share.ranks.traffic
    return RankCost(len(found), found.cost.total_ms, traffic.waited_ms, traffic.by_stage, found.cost.peak_bytes)


def _send_cost(cost: RankCost, share: FrameShare) -> None:
    text = np.frombuffer(json.dumps(asdict(cost)).encode(), np.uint8).copy()
    share.ranks.send(0, np.array([len(text)]))
    share.ranks.send(0, text)


def _received_cost(share: FrameShare, rank: int) -> RankCost:
    length = np.empty(1, np.int64)
    share.ranks.receive(rank, length)
    text = np.empty(int(length[0]), np.uint8)
    share.ranks.receive(rank, text)
    return RankCost(**json.loads(text.tobytes()))
