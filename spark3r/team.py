"""A run that several processes share: rank 0 leads, the others follow.

Rank 0 runs its command or the page as if alone; where a clip is to be reconstructed, it tells the others what to join,
sends them the network (so that weights cannot differ) and the frames they hold, and gets back what they found. Results
arrive in arrays that lie on disk where they are large, so no clip need fit the memory of one machine.
"""

from __future__ import annotations

import logging
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spark3r import handover
from spark3r.distributed import FrameShare
from spark3r.errors import Cancelled
from spark3r.files import remove_half_written
from spark3r.frames import Frames, describe_source, planned_frames, read_frames
from spark3r.frames.read import read_by
from spark3r.inference import Progress, Run, run_by
from spark3r.models.config import config_to_json
from spark3r.models.network import Network
from spark3r.parcels import arriving_frames, arriving_json, joined, room, send_frames, send_json
from spark3r.rank_part import cost_of, read_part, save_shard, shard_path
from spark3r.ranks import Ranks
from spark3r.reconstruction import RankCost, Reconstruction
from spark3r.reduction import ReductionSchedule
from spark3r.tokens import split_frames
from spark3r.world import RankFailed, RankLost, World

log = logging.getLogger(__name__)

leader: Leader | None = None  # of this process, while it is rank 0 of a team

_FROM_RANKS = ("images", "depth", "confidence", "world_from_camera", "intrinsics")


@contextmanager
def team() -> Iterator[bool]:
    """Joins the processes that torchrun started. Within, rank 0 (True) has the others at its service; a follower
    (False) has done all its work when the block begins."""
    with World(tidy=remove_half_written) as world:
        try:
            world.check_versions(spark3r=handover.source_digest())
        except RankLost:
            if world.leads:  # and says so, once for all
                raise
            sys.exit(1)
        if not world.leads:
            try:
                Follower(world).follow()
            except Exception:  # told to all by `World.together`, and to the person by rank 0
                log.debug("rank %d ends", world.rank, exc_info=True)
                sys.exit(1)
            yield False
            return
        global leader
        leader = Leader(world)
        run_by(leader.run)
        read_by(leader.read)
        yield True


class Leader:
    """Rank 0's side of every job."""

    def __init__(self, world: World):
        self.world = world
        self._networks: weakref.WeakKeyDictionary[Network, int] = weakref.WeakKeyDictionary()
        self.shards: Path | None = None  # every rank writes its own part there, and none comes back
        self._latest: list[slice] | None = None  # the parts of the clip that the others hold
        self._read: weakref.WeakKeyDictionary[Frames, list[slice]] = weakref.WeakKeyDictionary()  # held by the others

    def leave(self) -> None:
        """For a process that ends at once: the others need not look for what became of it."""
        self.world.say_goodbye()

    def read(
        self,
        source: str | Path | Sequence[str | Path],
        *,
        max_frames: int | None,
        fps: float | None,
        resolution: int,
        progress: Callable[[int, int], None] | None,
        cancel: Callable[[], bool] | None,
    ) -> Frames:
        """As `read_frames`; every rank decodes the frames that it will hold, so all must see the files."""
        count = planned_frames(describe_source(source), max_frames, fps)
        parts = split_frames(count, self.world.size, ReductionSchedule.group_size)
        paths = [str(Path(path).absolute()) for path in ([source] if isinstance(source, str | Path) else source)]
        wanted = {"max_frames": max_frames, "fps": fps, "resolution": resolution}
        with self.world.together():
            self.world.announce("read", paths=paths, wanted=wanted, parts=[[p.start, p.stop] for p in parts])
            share = _share(self.world, parts)
            assert share is not None
            told = None if progress is None else lambda done, here: progress(done * count // here, count)
            own = read_part(source, wanted, share, told, self._asking(cancel))
            others = [arriving_frames(share.ranks, rank) for rank in range(1, share.ranks.size)]
        if len({part.images.shape[1:] for part in [own, *others]}) > 1:  # photos of several sizes: look at all of them
            return read_frames(source, **wanted, progress=progress, cancel=cancel)
        frames = joined([own, *others])
        if [len(part) for part in [own, *others]] == share.counts:
            self._latest = self._read[frames] = parts
        return frames

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
        parts = split_frames(len(frames), self.world.size, self._unit(len(frames), schedule))
        held = self._latest is not None and self._read.get(frames) is self._latest and self._latest == parts
        largest = max(parts, key=lambda part: part.stop - part.start)
        Run(frames.select(largest), network, schedule, resolution, None, None).check_memory()
        started = time.perf_counter()
        with self.world.together():
            self._send(network)
            self.world.announce(
                "run",
                parts=[[part.start, part.stop] for part in parts],
                frame=list(frames.images.shape[1:]),
                schedule=schedule.to_json(),
                resolution=resolution,
                offload=network.offload,
                held=held,
                shards=None if self.shards is None else str(self.shards),
                clip=frames.source,
            )
            share = _share(self.world, parts)
            assert share is not None
            for rank, part in enumerate(share.parts[1:], 1):
                if not held:
                    share.ranks.send(rank, frames.images[part])
                if self.shards is not None:
                    some = frames.select(part)
                    send_json([some.indices.tolist(), some.timestamps.tolist(), some.names], share.ranks, rank)
            told = None if progress is None else self._telling(progress)
            run = Run(frames.select(parts[0]), network, schedule, resolution, told, self._asking(cancel), share)
            own = run.run()
            if self.shards is not None:
                save_shard(own, shard_path(self.shards, 0), frames.source, share)
                return own
            return self._collected(own, share, frames, started)

    def _unit(self, frames: int, schedule: ReductionSchedule) -> int:
        """How many consecutive frames stay together: groups, in which queries are merged and clips are read; single
        frames where a dense run would else leave ranks idle."""
        group = schedule.group_size
        return 1 if schedule.is_off and frames < 2 * group * self.world.size else group

    def _asking(self, cancel: Callable[[], bool] | None) -> Callable[[], bool]:
        """Asks the caller, and passes a yes on to all ranks, which see it at their next chunk."""

        def asked() -> bool:
            stop = cancel is not None and cancel()
            if stop:
                self.world.stop()
            return stop

        return asked

    def _telling(self, progress: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """Tells how far the rank is that is furthest behind; a rank that is heard of late takes nothing back."""
        furthest = 0.0

        def tell(now: Progress) -> None:
            nonlocal furthest
            furthest = max(furthest, min(now.fraction, self.world.least_done()))
            progress(replace(now, fraction=furthest))

        return tell

    def _send(self, network: Network) -> None:
        """Once for every network, all its tensors."""
        if network in self._networks:
            return
        self._networks[network] = len(self._networks)
        dtype = str(network.dtype).removeprefix("torch.")
        self.world.announce("network", config=config_to_json(network.config), dtype=dtype)
        handover.broadcast(network, from_us=True)
        self.world.check_same("weights", handover.weights_digest(network))

    def _collected(self, own: Reconstruction, share: FrameShare, frames: Frames, started: float) -> Reconstruction:
        """The whole result, of one's own part and of what the others send."""
        share.now_in("results")
        whole = {}
        for name in _FROM_RANKS:
            mine: np.ndarray = getattr(own, name)
            whole[name] = room((len(frames), *mine.shape[1:]), mine.dtype)
            whole[name][share.here] = mine
        others = []
        for rank, part in enumerate(share.parts[1:], 1):
            for name in _FROM_RANKS:
                share.ranks.receive(rank, whole[name][part])
            others.append(RankCost(**arriving_json(share.ranks, rank)))
        total = frames.decode_ms + (time.perf_counter() - started) * 1e3  # as the caller waited for it
        cost = replace(own.cost, milliseconds={**own.cost.milliseconds, "total": total})
        return replace(
            own, **whole, cost=replace(cost, ranks=(cost_of(own, share), *others)),
            indices=frames.indices, timestamps=frames.timestamps, names=frames.names,
        )  # fmt: skip


class Follower:
    """The other ranks: they do what rank 0 announces."""

    def __init__(self, world: World):
        self.world = world
        self._network: Network | None = None
        self._held: Frames | None = None  # of the clip read last

    def follow(self) -> None:
        """Until rank 0 leaves."""
        for job in self.world.jobs():
            with suppress(RankFailed), self.world.together():
                if job["kind"] == "network":
                    self._network = handover.arriving_network(job)
                    self.world.check_same("weights", handover.weights_digest(self._network))
                elif job["kind"] == "read":
                    self._join_reading(job)
                else:
                    self._join(job)

    def _join_reading(self, job: dict[str, Any]) -> None:
        share = _share(self.world, [slice(*part) for part in job["parts"]])
        if share is None:
            return
        paths = job["paths"]
        source = paths[0] if len(paths) == 1 else paths
        with suppress(Cancelled):
            self._held = read_part(source, job["wanted"], share, None, self.world.is_stopped)
            send_frames(self._held, share.ranks)

    @torch.inference_mode()
    def _join(self, job: dict[str, Any]) -> None:
        share = _share(self.world, [slice(*part) for part in job["parts"]])
        if share is None:
            return
        assert self._network is not None
        self._network.offload = job["offload"]
        frames = self._held
        if not job["held"]:
            images = np.empty((share.here.stop - share.here.start, *job["frame"]), np.uint8)
            share.ranks.receive(0, images)
            frames = Frames.of(images)
        assert frames is not None
        if job["shards"] is not None:
            indices, timestamps, names = arriving_json(share.ranks)
            frames = replace(frames, indices=np.array(indices), timestamps=np.array(timestamps), names=tuple(names))
        schedule = ReductionSchedule.from_json(job["schedule"])
        run = Run(frames, self._network, schedule, job["resolution"], self._tell, self.world.is_stopped, share)
        try:
            found = run.run()
        except Cancelled:
            return
        if job["shards"] is not None:
            save_shard(found, shard_path(Path(job["shards"]), self.world.rank), job["clip"], share)
            return
        for name in _FROM_RANKS:
            share.ranks.send(0, getattr(found, name))
        send_json(asdict(cost_of(found, share)), share.ranks)

    def _tell(self, now: Progress) -> None:
        self.world.done(now.fraction)


def _share(world: World, parts: Sequence[slice]) -> FrameShare | None:
    """The ranks that get frames, and which (None: not this one). All ranks of the world must come here together."""
    active = [part for part in parts if part.stop > part.start]
    group = world.group(len(active))
    return FrameShare(Ranks(group), active) if world.rank < len(active) else None
