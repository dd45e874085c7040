"""One rank's part of a job: read and written on all ranks or on none, and what it cost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from spark3r.distributed import FrameShare
from spark3r.errors import Cancelled, InputError
from spark3r.export import Origin, about
from spark3r.files import replacing
from spark3r.frames import Frames, read_frames
from spark3r.parcels import arriving_json, send_json
from spark3r.reconstruction import RankCost, Reconstruction
from spark3r.world import RankFailed


def shard_path(out: Path, rank: int) -> Path:
    """The file of one rank's part: scene.npz → scene.0002.npz."""
    return out.with_suffix(f".{rank:04d}.npz")


def read_part(
    source: Any,
    wanted: dict[str, Any],
    share: FrameShare,
    progress: Callable[[int, int], None] | None,
    cancel: Callable[[], bool],
) -> Frames:
    """The frames that this rank holds; raises Cancelled or RankFailed on all ranks where one cannot read them."""
    own: Frames | None = None
    fault = ""
    try:
        own = read_frames(source, **wanted, part=share.here, progress=progress, cancel=cancel)
    except InputError as error:
        fault = str(error)
    except Cancelled:
        pass
    _agree(fault, share, "could not read its part")
    if share.any(own is None) or own is None:
        raise Cancelled("reading was stopped")
    return own


def save_shard(found: Reconstruction, path: Path, clip: str, share: FrameShare) -> None:
    """One rank's own part, on all ranks or on none. Raises RankFailed on all where one cannot write."""
    fault = ""
    with ExitStack() as written:
        try:
            temporary = written.enter_context(replacing(path))
            found.save(temporary, about(found, Origin(clip=clip)))
        except InputError as error:
            fault = str(error)
        _agree(fault, share, "could not write its part")


def _agree(fault: str, share: FrameShare, what: str) -> None:
    """Raises RankFailed on all ranks where one has a fault; rank 0's names the rank and the cause."""
    if not share.any(bool(fault)):
        return
    faults = [fault]
    if share.ranks.rank > 0:
        send_json(fault, share.ranks)
    else:
        faults += [arriving_json(share.ranks, rank) for rank in range(1, share.ranks.size)]
    rank = next((rank for rank, told in enumerate(faults) if told), 0)
    raise RankFailed(f"rank {rank} {what}: {faults[rank]}")


def cost_of(found: Reconstruction, share: FrameShare) -> RankCost:
    """What this rank did and moved for its part of a reconstruction."""
    traffic = share.ranks.traffic
    stages, blocks = traffic.by_stage.items(), traffic.by_block.items()
    waited = {stage: moved.waited_ms for stage, moved in stages}
    return RankCost(
        len(found),
        found.cost.total_ms - found.cost.milliseconds.get("decode", 0.0),
        sum(waited.values()) - waited.get("results", 0.0),
        {stage: moved.bytes for stage, moved in stages},
        found.cost.peak_bytes,
        waited,
        {str(block): moved.bytes for block, moved in blocks},
        {str(block): moved.waited_ms for block, moved in blocks},
    )
