"""What one rank finds: the same clip alone and shared, for every family and policy. All collectives come first; the
comparison is the caller's."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from spark3r.attention import Planner
from spark3r.distributed import FrameShare
from spark3r.models.checkpoints import load_model
from spark3r.models.network import Network
from spark3r.ranks import Ranks
from spark3r.reduction import ReductionSchedule, SchedulePlanner
from spark3r.tokens import WHOLE_CLIP, WholeClip, split_frames
from tests.distributed.oracles import tiny_network

FAMILIES = ("mini", "vggt", "pi3", "pi3x", "da3", "vggt_omega")
SCHEDULES = ("off", "2x4", "uniform:4", "grid:2x4", "anchor:4", "register")
FRAMES, GROUP = 11, 3  # groups of 3, 3, 3 and 2: uneven on every number of ranks
GOLDEN = Path(__file__).parents[1] / "golden" / "parity"


def main(rank: int, size: int) -> dict[str, list[float]]:
    """{"family schedule": greatest differences of cameras, depth and confidence, as shares of the largest value}; on
    rank 0, which alone runs the clip by itself as well."""
    share = FrameShare(Ranks(), split_frames(FRAMES, size, GROUP))
    return {f"{family} {word}": _difference(network, images, word, share)
            for family, network, images in _networks() for word in SCHEDULES}  # fmt: skip


def _networks() -> Iterator[tuple[str, Network, Tensor]]:
    for family in FAMILIES:
        torch.manual_seed(1)  # the same clip on every rank
        if family == "mini":
            yield family, load_model("mini", "cpu", "float32"), torch.rand(FRAMES, 3, 48, 64)
        else:
            network, (height, width) = tiny_network(GOLDEN / family / "tiny_s.safetensors", family)
            yield family, network, torch.rand(FRAMES, 3, height, width)


def _difference(network: Network, images: Tensor, word: str, share: FrameShare) -> list[float]:
    schedule = ReductionSchedule.off() if word == "off" else ReductionSchedule.parse(word, FRAMES, (1, 2))
    plan = SchedulePlanner(schedule.with_(group_size=GROUP))
    with torch.inference_mode():
        cameras, *dense = _run(network, images[share.here], plan, share)
        shared = [cameras, *(share.gather(part, dim=0) for part in dense)]
        if share.ranks.rank > 0:
            return []
        alone = _run(network, images, plan, WHOLE_CLIP)
    return [float((one - other).abs().max() / one.abs().max()) for one, other in zip(alone, shared, strict=True)]


def _run(network: Network, images: Tensor, plan: SchedulePlanner, clip: WholeClip) -> tuple[Tensor, Tensor, Tensor]:
    """Cameras of all frames; depth and confidence of the frames held here."""
    size = (images.shape[-2], images.shape[-1])
    whole = network.trunk.layout(FRAMES, network.grid(*size))
    planner: Planner = clip.across(plan, whole)
    encoded = network.encode(images)
    taps = network.aggregate(encoded.patches, clip.part_of(whole), planner, clip=clip)
    cameras = network.cameras(taps, *size, clip)
    dense = network.dense(taps, encoded.skip, slice(None), *size, cameras.scale)
    return cameras.world_from_camera, dense.depth, dense.confidence_logit
