"""How much arithmetic a run needs, counted on tensors without data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from spark3r.attention import Planner, Reduction
from spark3r.models.checkpoints import skeleton
from spark3r.models.config import ModelConfig
from spark3r.models.network import Network
from spark3r.reduction import ReductionSchedule, SchedulePlanner
from spark3r.stages import STAGE_OF_SCOPE
from spark3r.tokens import TokenLayout
from spark3r.windows import spans


@lru_cache(maxsize=256)
@torch.enable_grad()  # without gradients blocks work in parts, and counting the parts of a long clip takes minutes
def count_flops(
    config: ModelConfig, frames: int, height: int, width: int, schedule: ReductionSchedule
) -> Mapping[str, float]:
    """Floating-point operations per stage (a multiply–add is two) of matrix products, attention and convolutions.

    height and width are the network's input. Keys: encoder, frame_attention, global_attention, matching, heads; all
    blocks of a kind with their MLPs, as the times are. Norms, activations and copies are not counted. Takes about a
    second the first time; the answer is kept.
    """
    if schedule.window:
        windows = len(spans(frames, schedule.window, schedule.overlap))
        one = count_flops(config, schedule.frames_at_once(frames), height, width, schedule.of_a_window)
        return MappingProxyType({stage: windows * work for stage, work in one.items()})
    network = skeleton(config).eval()
    image = torch.empty(1, 3, height, width, device="meta")
    layout = network.trunk.layout(frames, network.grid(height, width))
    with FlopCounterMode(display=False) as encoder:
        encoded = network.encode(image)
    patches = encoded.patches.expand(frames, -1, -1)
    plan = _CountedPlanner(schedule)
    trunk = FlopCounterMode(display=False)
    stages = _count_stages(network, trunk)
    with trunk:
        taps = network.aggregate(patches, layout, plan)
    with FlopCounterMode(display=False) as cameras:
        network.cameras(taps, height, width)
    with FlopCounterMode(display=False) as dense:
        network.dense(taps, encoded.skip, slice(0, 1), height, width)
    flops = {"encoder": float(frames * encoder.get_total_flops()), **stages}
    flops["global_attention"] -= plan.flops
    flops["matching"] = float(plan.flops)
    flops["heads"] = float(cameras.get_total_flops() + frames * dense.get_total_flops())
    return MappingProxyType(flops)


class _CountedPlanner:
    """The planner of a schedule, its own work counted apart."""

    def __init__(self, schedule: ReductionSchedule):
        self.flops = 0
        self._plan: Planner = SchedulePlanner(schedule)

    def __call__(self, x: Tensor, layout: TokenLayout, layer: int) -> Reduction:
        with FlopCounterMode(display=False) as counter:
            reduction = self._plan(x, layout, layer)
        self.flops += counter.get_total_flops()
        return reduction


def _count_stages(network: Network, counter: FlopCounterMode) -> dict[str, float]:
    """What the counter sees in the trunk's blocks, by kind; filled while they run.

    Asked around each block, as torch before 2.4 keeps no counts of single modules unless told which.
    """
    stages = {"frame_attention": 0.0, "global_attention": 0.0}

    def before(stage: str) -> Callable[..., None]:
        return lambda *_: stages.update({stage: stages[stage] - counter.get_total_flops()})

    def after(stage: str) -> Callable[..., None]:
        return lambda *_: stages.update({stage: stages[stage] + counter.get_total_flops()})

    for block, config in zip(network.trunk.blocks, network.config.blocks, strict=True):
        stage = STAGE_OF_SCOPE[config.scope]
        block.register_forward_pre_hook(before(stage))
        block.register_forward_hook(after(stage))
    return stages
