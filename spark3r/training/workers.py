"""Two or more processes share the micro-batches of each step: whoever is free takes the next micro-batch.

One thread per process beats several threads in one process whenever the machine has other work, as no thread waits
at a barrier inside every matrix product. Weights lie in memory that all processes share; each has gradients of its own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.multiprocessing as mp
from torch import Tensor, nn

from spark3r.errors import InputError
from spark3r.models.checkpoints import load_model
from spark3r.models.config import ModelConfig
from spark3r.models.network import Network, build

from .batches import Stream, micro_batches_of
from .config import TrainingConfig
from .losses import Predicted, depth_losses, point_loss, pose_losses, total
from .supervise import Supervision
from .targets import Targets, targets_of


def network_and_supervision(config: TrainingConfig, model: ModelConfig) -> tuple[Network, Supervision]:
    """Fresh from the seed, from exported weights, which bring their own sizes, or from what fits of them."""
    torch.manual_seed(config.seed)
    exported = None if config.resume_weights is None else load_model(str(config.resume_weights), "cpu", "float32")
    network = build(model if exported is None else exported.config)
    if exported is not None:
        network.load_state_dict(exported.state_dict())
    elif config.start_from is not None:
        copy_what_fits(load_model(str(config.start_from), "cpu", "float32"), network)
    _check_layers(config, network.config)
    supervision = Supervision(network, config.matching_layers, config.reference_layers, config.auxiliary_layers)
    return network.to(config.device), supervision.to(config.device)


def copy_what_fits(source: Network, target: Network) -> None:
    """Weights whose name and shape the two networks share; the others of the target stay fresh."""
    ours = target.state_dict()
    fitting = {name: w for name, w in source.state_dict().items() if name in ours and ours[name].shape == w.shape}
    target.load_state_dict(ours | fitting)


def _check_layers(config: TrainingConfig, model: ModelConfig) -> None:
    """Raises InputError for supervised blocks that the model does not have, or that see one frame only."""
    for layer in (*config.matching_layers, *config.reference_layers, *config.auxiliary_layers):
        if layer >= len(model.blocks):
            raise InputError(
                f"block {layer} is to be supervised, but the model has {len(model.blocks)}: more pairs, or other "
                "matching, reference and auxiliary layers"
            )
    for layer in (*config.matching_layers, *config.reference_layers):
        if model.blocks[layer].scope != "global":
            raise InputError(f"block {layer} sees one frame only: matching needs a global one (odd numbers)")


def losses_of(
    network: Network, supervision: Supervision, truth: Targets, autocast: bool, dense_every: int = 1, first: int = 0
) -> dict[str, Tensor]:
    """One forward pass and every part of its loss; depth of every `dense_every`-th frame only, beginning at `first`."""
    batch, frames, _, height, width = truth.images.shape
    step = dense_every if frames % dense_every == 0 else 1
    dense = slice(first % step, None, step)
    with torch.autocast(truth.depth.device.type, torch.bfloat16, enabled=autocast):
        encoded = network.encode(truth.images.flatten(0, 1))
        assert encoded.skip is not None
        taps = network.aggregate(encoded.patches, network.trunk.layout(frames, network.grid(height, width)))
        cameras = network.cameras(taps, height, width)
        depth, logit, _ = network.dense(taps, encoded.skip[dense], dense, height, width)
    depth, logit = (x.unflatten(0, (batch, frames // step)) for x in (depth, logit))
    predicted = Predicted(depth, logit, cameras.pose[:, dense], cameras.world_from_camera[:, dense])
    parts = depth_losses(predicted, truth.some(dense)) | {"point": point_loss(predicted, truth.some(dense))}
    parts |= pose_losses(predicted._replace(pose=cameras.pose, world_from_camera=cameras.world_from_camera), truth)
    return parts | supervision.losses(truth)


@dataclass(frozen=True)
class StepPlan:
    """What is to be done in one step; sent to every worker."""

    step: int
    frames: int
    next_frames: int | None  # of the following step, if new clips will be rendered for it


class MicroBatches:
    """The micro-batches of a step, handed out from both ends so that each process tends to keep its own clips."""

    def __init__(self, bounds: Any):  # a shared array of two whole numbers
        self.bounds = bounds

    def open(self, count: int) -> None:
        """Lets workers take the micro-batches of a step."""
        with self.bounds.get_lock():
            self.bounds[0], self.bounds[1] = 0, count

    def take(self, from_end: bool) -> int | None:
        """The next micro-batch, or None when all are taken."""
        with self.bounds.get_lock():
            first, last = self.bounds
            if first >= last:
                return None
            if from_end:
                self.bounds[1] = last - 1
                return last - 1
            self.bounds[0] = first + 1
            return first


def weights_of(network: nn.Module, supervision: nn.Module) -> list[nn.Parameter]:
    """All weights that are trained, those of the auxiliary heads too."""
    return [*network.parameters(), *supervision.parameters()]


def flat_gradient(weights: list[nn.Parameter]) -> Tensor:
    """One vector that all gradients are views of."""
    flat = torch.zeros(sum(w.numel() for w in weights), device=weights[0].device)
    offset = 0
    for w in weights:
        w.grad = flat[offset : offset + w.numel()].view_as(w)
        offset += w.numel()
    return flat


class Worker:
    """Computes gradients of micro-batches; every process has one."""

    def __init__(self, config: TrainingConfig, network: Network, supervision: Supervision, from_end: bool):
        self.config, self.network, self.supervision, self.from_end = config, network, supervision, from_end
        self.stream = Stream(config)
        self.gradient = flat_gradient(weights_of(network, supervision))

    def work(self, plan: StepPlan, micro_batches: MicroBatches) -> dict[str, float]:
        """Add the gradients of as many micro-batches as this process gets; returns its share of the losses."""
        sums: dict[str, float] = {}
        while (micro_batch := micro_batches.take(self.from_end)) is not None:
            clips, share = self.stream.micro_batch(plan.step, plan.frames, micro_batch)
            truth, config = targets_of(clips), self.config
            parts = losses_of(self.network, self.supervision, truth, config.autocast, config.dense_every, plan.step)
            loss = total(parts)
            (loss * share).backward()
            for name, value in (parts | {"loss": loss}).items():
                sums[name] = sums.get(name, 0.0) + share * float(value.detach())
        return sums


class WorkerPool:
    """The main process's own worker, and the processes that help it."""

    def __init__(self, config: TrainingConfig, network: Network, supervision: Supervision):
        self.worker = Worker(config, network, supervision, from_end=False)
        context = mp.get_context("spawn")
        self.micro_batches = MicroBatches(context.Array("l", [0, 0]))
        self.links: list[Connection] = []
        self.workers, self.gradients = [], []
        for _ in range(config.workers - 1):
            ours, theirs = context.Pipe()
            network.share_memory()
            supervision.share_memory()
            gradient = torch.zeros_like(self.worker.gradient).share_memory_()
            arguments = (
                config,
                network.config,
                dict(network.named_parameters()),
                dict(supervision.named_parameters()),
                gradient,
            )
            arguments = (*arguments, self.micro_batches.bounds, theirs)
            worker = context.Process(target=_worker_process, args=arguments, daemon=True)
            worker.start()
            self.links.append(ours)
            self.workers.append(worker)
            self.gradients.append(gradient)

    def gradients_of(self, plan: StepPlan) -> dict[str, float]:
        """Leave the gradients of one step in the weights; returns the parts of the loss."""
        self.worker.gradient.zero_()
        self.micro_batches.open(len(micro_batches_of(self.worker.config, plan.frames)))
        for link in self.links:
            link.send(plan)
        sums = self.worker.work(plan, self.micro_batches)
        for link, gradient in zip(self.links, self.gradients, strict=True):
            for name, value in link.recv().items():
                sums[name] = sums.get(name, 0.0) + value
            self.worker.gradient += gradient
        return sums

    def close(self) -> None:
        """End the other processes."""
        for link, worker in zip(self.links, self.workers, strict=True):
            link.send(None)
            worker.join(timeout=10)


def _worker_process(
    config: TrainingConfig,
    model: ModelConfig,
    weights: dict[str, Tensor],
    readers: dict[str, Tensor],
    gradient: Tensor,
    bounds: Any,  # the shared array of MicroBatches
    link: Connection,
) -> None:
    """Life of a worker: wait for a plan, work, reply, render ahead."""
    torch.set_num_threads(config.threads)
    os.environ["SPARK3R_COMPILE"] = "1" if config.compile_renderer else "0"
    network, supervision = network_and_supervision(config, model)
    for module, shared in ((network, weights), (supervision, readers)):
        for name, weight in module.named_parameters():
            weight.data = shared[name].data
    worker = Worker(config, network, supervision, from_end=True)
    micro_batches = MicroBatches(bounds)
    while (plan := link.recv()) is not None:
        worker.gradient.zero_()
        sums = worker.work(plan, micro_batches)
        gradient.copy_(worker.gradient)
        link.send(sums)
        if plan.next_frames is not None:
            worker.stream.render_ahead(plan.step + 1, plan.next_frames, micro_batch=-1)
