"""A run on tensors without data: the real code of networks and reductions, op by op, with its memory and its work.

What happens many times alike (chunks of frames, blocks of one kind) is run once and counted so many times; memory is
looked at where most of it is held, at the last block of each kind.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from spark3r.attention import Reduction
from spark3r.ledger import FusedAttention, Ledger
from spark3r.meta import standing_for, watching_kernels
from spark3r.models.checkpoints import skeleton
from spark3r.models.config import ModelConfig
from spark3r.models.cost import FRAMES_AT_ONCE, head_frames
from spark3r.models.network import Network, Taps
from spark3r.reduction import ReductionSchedule, SchedulePlanner
from spark3r.stages import STAGE_OF_SCOPE
from spark3r.tokens import TokenLayout


@dataclass(frozen=True)
class Case:
    """What is run: a model of this config and type, on a device of this kind, over a clip of so many frames."""

    config: ModelConfig
    dtype: torch.dtype
    device: str  # "cuda" or "cpu"
    frames: int
    height: int  # of the network's input
    width: int
    schedule: ReductionSchedule
    offload: bool = False


def dry_run(case: Case) -> Ledger:
    """Encoder, trunk, camera head and dense head over a clip, counted; takes about a second for the largest models."""
    network = _skeleton(case.config, case.dtype)
    ledger = Ledger(weight_bytes(case.config, case.dtype))
    window, overlap = case.schedule.window, case.schedule.overlap
    if window and case.frames > window:
        ledger.times = -(-(case.frames - overlap) // (window - overlap))
        case = _one_window(case)
    with standing_for(case.device), watching_kernels(ledger.kernel), torch.no_grad(), FusedAttention(), ledger:
        layout = network.trunk.layout(case.frames, network.grid(case.height, case.width))
        tokens, skip, pictures = _encode(network, layout, case, ledger)
        taps = _aggregate(network, tokens, layout, case, ledger)
        del tokens
        _heads(network, taps, skip, case, ledger)
        del pictures
    return ledger


@lru_cache(maxsize=64)
def weight_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes of a model's weights."""
    return sum(x.numel() * x.element_size() for x in _skeleton(config, dtype).state_dict().values())


def _one_window(case: Case) -> Case:
    """Windows follow each other, so memory is that of one."""
    return replace(case, frames=case.schedule.window, schedule=case.schedule.with_(window=0, overlap=0))


_SHORT = {"cpu": 20_000, "cuda": 80_000}  # tokens: more than any chunk, so that memory grows evenly from here on
_MARGIN = 1.01  # for the small tables that one run leaves to the next


_ALONE = threading.Lock()  # a skeleton is shared, and changed while it runs


def peak_bytes(case: Case) -> int:
    """Bytes held at most; of a long clip scaled from two shorter ones, phase by phase: never too few."""
    if case.schedule.window and case.frames > case.schedule.window:
        case = _one_window(case)
    schedule, config = case.schedule, case.config
    per_frame = config.tokens.special + (case.height // config.patch) * (case.width // config.patch)
    short = schedule.group_size * max(
        2, -(-_SHORT.get(case.device, 80_000) // (per_frame * schedule.group_size))
    )  # whole groups
    if case.frames <= 2 * short:
        return int(_MARGIN * max(_peaks(case).values()))
    if schedule.policy == "spark3r":  # a clip too short for the factors keeps one frame all the same
        schedule = schedule.with_(kv_factor=min(schedule.kv_factor, short // 2), kv_boost=1)
    less, more = (_peaks(replace(case, frames=n * short, schedule=schedule)) for n in (1, 2))
    beyond = (case.frames - 2 * short) / short
    return int(_MARGIN * max(at + (at - less[phase]) * beyond for phase, at in more.items()))


@lru_cache(maxsize=256)
def _peaks(case: Case) -> dict[str, int]:
    with _ALONE:
        return dry_run(case).peaks


@lru_cache(maxsize=16)
def _skeleton(config: ModelConfig, dtype: torch.dtype) -> Network:
    return skeleton(config).set_dtype(dtype).requires_grad_(False)


def _chunks(frames: int, at_once: int) -> Iterator[tuple[int, int]]:
    """(frames of a chunk, how many such chunks there are)."""
    full, rest = divmod(frames, at_once)
    if full:
        yield at_once, full
    if rest:
        yield rest, 1


def _encode(network: Network, layout: TokenLayout, case: Case, ledger: Ledger) -> tuple[Tensor, Tensor | None, Tensor]:
    """Tokens, fine features and pictures of all frames."""
    ledger.enter("encoder")
    tokens, skip = network.trunk.empty_tokens(layout), None
    pictures = _of_every_pixel(case, 3, torch.uint8)
    blocks = getattr(network.encoder, "blocks", ())
    with _each_kind_once(blocks, list(getattr(case.config.encoder, "blocks", ())), ledger):  # pyright: ignore[reportArgumentType]
        for frames, times in _chunks(layout.frames, FRAMES_AT_ONCE):
            with ledger.repeated(times):
                images = torch.empty(frames, 3, case.height, case.width, device="meta")
                encoded = network.encode(images)
                tokens[:frames, -encoded.patches.shape[1] :] = encoded.patches
                if encoded.skip is not None and skip is None:
                    skip = encoded.skip.new_empty(layout.frames, *encoded.skip.shape[1:])
                    skip[:frames] = encoded.skip
    return tokens, skip, pictures


def _of_every_pixel(case: Case, values: int, dtype: torch.dtype) -> Tensor:
    """What a run on a CPU keeps of every frame; a GPU's results wait in the computer's memory."""
    frames = case.frames if case.device == "cpu" else 0
    return torch.empty(frames, case.height, case.width, values, dtype=dtype, device="meta")


def _aggregate(network: Network, tokens: Tensor, layout: TokenLayout, case: Case, ledger: Ledger) -> Taps:
    plan = SchedulePlanner(case.schedule, match_dtype=network.dtype)

    def matching(x: Tensor, layout: TokenLayout, layer: int) -> Reduction:
        stage, phase = ledger.stage, ledger.phase
        ledger.enter("matching", f"matching {layer}")
        reduction = plan(x, layout, layer)
        ledger.enter(stage, phase)
        return reduction

    ledger.enter("heads", "trunk")  # what lies between blocks: heads read the tapped layers
    with _each_kind_once(network.trunk.blocks, _kinds(case), ledger, [b.scope for b in case.config.blocks]):
        return network.aggregate(tokens, layout, matching, case.offload)


def _kinds(case: Case) -> list[Hashable]:
    """Blocks of one kind do the same work and hold the same memory, apart from the tapped layers held beside them."""
    kinds: list[Hashable] = []
    layer, spans = 0, _tapped_spans(case.config)
    for index, block in enumerate(case.config.blocks):
        level = case.schedule.at(layer) if block.scope == "global" else None
        layer += block.scope == "global"
        kinds.append((block, level, spans[index]))
    return kinds


def _tapped_spans(config: ModelConfig) -> list[bool]:
    """For every block whether the frame output before it is held, for a layer tapped before the next frame block."""
    held, spans = False, []
    for index in reversed(range(len(config.blocks))):
        held = held or index in config.taps
        is_frame = config.blocks[index].scope == "frame"
        spans.append(held and not is_frame)
        held = held and not is_frame
    return spans[::-1]


@contextmanager
def _each_kind_once(
    blocks: Iterable[nn.Module], kinds: list[Hashable], ledger: Ledger, scopes: list[str] | None = None
) -> Iterator[None]:
    """Of the blocks of one kind only the last runs, and counts for all. `scopes` name the stages."""
    counts, last = Counter(kinds), {kind: index for index, kind in enumerate(kinds)}

    def enter(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            ledger.times *= counts[kinds[index]]
            if scopes is not None:
                stage = STAGE_OF_SCOPE[scopes[index]]
                ledger.enter(stage, f"{stage} {index}")

        return hook

    def leave(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            ledger.times //= counts[kinds[index]]
            if scopes is not None:
                ledger.enter("heads", "trunk")

        return hook

    def before_mlp(module: nn.Module, inputs: Any) -> None:
        ledger.enter(ledger.stage, "feed-forward")

    with ExitStack() as stack:
        for index, block in enumerate(blocks):
            if last[kinds[index]] == index:
                stack.callback(block.register_forward_pre_hook(enter(index)).remove)
                stack.callback(block.register_forward_hook(leave(index)).remove)
                stack.callback(block.get_submodule("mlp").register_forward_pre_hook(before_mlp).remove)
            else:
                block.forward = lambda x, *args, **kwargs: x
                stack.callback(delattr, block, "forward")
        yield


def _heads(network: Network, taps: Taps, skip: Tensor | None, case: Case, ledger: Ledger) -> None:
    ledger.enter("heads")
    cameras = network.cameras(taps, case.height, case.width)
    results = _of_every_pixel(case, 2, torch.float32)  # depth and confidence
    for frames, times in _chunks(case.frames, head_frames(case.height * case.width)):
        with ledger.repeated(times):
            chosen = slice(0, frames)
            network.dense(taps, None if skip is None else skip[chosen], chosen, case.height, case.width)
    del cameras, results
