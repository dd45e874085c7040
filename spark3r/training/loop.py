"""The training loop."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from spark3r.errors import InputError
from spark3r.models.checkpoints import pick_device, save_checkpoint
from spark3r.models.config import ModelConfig
from spark3r.models.families.mini import MINI_CONFIG
from spark3r.models.network import Network, build
from spark3r.training.scenes.sequences import Clips

from .batches import micro_batches_of, step_frames
from .config import TrainingConfig
from .muon import Muon
from .supervise import Supervision
from .validate import WORLDS, validate, validation_clips
from .workers import StepPlan, WorkerPool, network_and_supervision, weights_of


@dataclass
class Learner:
    """Everything that changes while training."""

    network: Network
    average: Network  # exponential moving average of the weights; this is what gets shipped
    supervision: Supervision
    optimisers: list[torch.optim.Optimizer]
    step: int = 0
    minutes: float = 0.0  # spent in earlier sessions
    clips_seen: int = 0
    frames: int = 0  # of the clips at hand

    def plan(self, config: TrainingConfig, progress: float) -> StepPlan:
        """What the next step works on; clips are rendered every `reuse` steps."""
        if self.step % config.reuse == 0 or not self.frames:
            self.frames = step_frames(config, self.step - self.step % config.reuse, progress)
        renders_next = (self.step + 1) % config.reuse == 0
        return StepPlan(self.step, self.frames, step_frames(config, self.step + 1, progress) if renders_next else None)

    def state(self) -> dict:
        """All that a later session needs to go on."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "supervision": self.supervision.state_dict(),
            "optimisers": [o.state_dict() for o in self.optimisers],
            "rng": torch.get_rng_state(),
            "step": self.step,
            "minutes": self.minutes,
            "clips_seen": self.clips_seen,
            "frames": self.frames,
        }

    def load(self, state: dict) -> None:
        """Continue from what `state` returned."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.supervision.load_state_dict(state["supervision"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        torch.set_rng_state(state["rng"])
        self.step, self.minutes, self.clips_seen = state["step"], state["minutes"], state["clips_seen"]
        self.frames = state.get("frames", 0)


def learner_of(config: TrainingConfig, model: ModelConfig = MINI_CONFIG) -> Learner:
    """A fresh learner, or one that starts from exported weights."""
    network, supervision = network_and_supervision(config, model)
    average = build(network.config).to(config.device).requires_grad_(False)
    average.load_state_dict(network.state_dict())
    return Learner(network, average, supervision, optimisers_of(network, supervision, config))


def optimisers_of(network: Network, supervision: nn.Module, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """Muon for matrices and kernels inside the network, AdamW for everything else."""
    shapes: dict[tuple, list[nn.Parameter]] = {}
    matrices = set()
    for name, weight in hidden_weights(network):
        shapes.setdefault((3 if "qkv" in name else 1, *weight.shape), []).append(weight)
        matrices.add(id(weight))
    groups = [{"params": weights, "parts": shape[0]} for shape, weights in shapes.items()]
    others = [p for p in (*network.parameters(), *supervision.parameters()) if id(p) not in matrices]
    decayed = [p for p in others if p.ndim >= 2 and p.ndim != 3]
    plain = [p for p in others if not (p.ndim >= 2 and p.ndim != 3)]
    adam = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=config.learning_rate, betas=(0.9, 0.98), foreach=True,
    )  # fmt: skip
    return [Muon(groups, config.learning_rate, weight_decay=config.weight_decay), adam]


def hidden_weights(network: Network) -> Iterator[tuple[str, nn.Parameter]]:
    """What neither reads the image nor writes an answer: matrices of the blocks, kernels of the stem and dense head."""
    yield from ((name, weight) for name, weight in network.trunk.blocks.named_parameters() if weight.ndim == 2)
    for part in (network.encoder, network.dense_head):
        for name, weight in part.named_parameters():
            if (weight.ndim == 4 and not name.startswith(("embed", "out"))) or name == "spread.weight":
                yield name, weight


def learning_rate_at(config: TrainingConfig, step: int, progress: float) -> float:
    """Learning rate: warm up, stay, fall as a cosine at the end."""
    warm = min(1.0, (step + 1) / config.warmup_steps)
    if progress < config.anneal_from:
        return config.learning_rate * warm
    share = min(1.0, (progress - config.anneal_from) / (1.0 - config.anneal_from))
    fall = config.final_learning_rate + (1 - config.final_learning_rate) * 0.5 * (1 + math.cos(math.pi * share))
    return config.learning_rate * warm * fall


def train_step(learner: Learner, pool: WorkerPool, config: TrainingConfig, progress: float) -> dict[str, float]:
    """Lower the loss of one batch; returns the parts of the loss before."""
    for optimiser in learner.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(config, learner.step, progress)
    plan = learner.plan(config, progress)
    parts = pool.gradients_of(plan)
    norm = nn.utils.clip_grad_norm_(weights_of(learner.network, learner.supervision), config.clip_norm, foreach=True)
    if bool(norm.isfinite()):  # one broken batch must not end a long run
        for optimiser in learner.optimisers:
            optimiser.step()
    else:
        parts = {"broken": 1.0}
    with torch.no_grad():
        keep = min(config.ema, (learner.step + 1) / (learner.step + 10))
        for mean, now in zip(learner.average.parameters(), learner.network.parameters(), strict=True):
            mean.lerp_(now, 1 - keep)
    learner.step += 1
    learner.clips_seen += sum(micro_batches_of(config, plan.frames))
    return parts


class Record:
    """Writes what happens: the curve as JSON lines, checkpoints, the best weights so far."""

    def __init__(self, config: TrainingConfig):
        self.config = config
        config.folder.mkdir(parents=True, exist_ok=True)
        self.sums: dict[str, float] = {}
        self.count = 0
        self.best = float("inf")

    def add(self, parts: dict[str, float]) -> None:
        """Adds the losses of one step."""
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def line(self, row: dict) -> None:
        """Append one row to the curve and show it."""
        text = json.dumps(row)
        with open(self.config.folder / "curve.jsonl", "a") as file:
            file.write(text + "\n")
        print(text, flush=True)

    def means(self) -> dict[str, float]:
        """Mean losses since the last call."""
        out = {name: round(value / max(self.count, 1), 4) for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return out

    def save(self, learner: Learner) -> None:
        """Replace the checkpoint in one move, so that a crash leaves the old one."""
        path = self.config.folder / "checkpoint.pt"
        temporary = path.with_suffix(".tmp")
        torch.save(learner.state(), temporary)
        os.replace(temporary, path)

    def keep_best(self, learner: Learner, row: dict) -> None:
        """Export the averaged weights when they are the best on unseen scenes."""
        score = sum(  # the path's error is noisy where a camera only turns
            row[f"{prefix}abs_rel"] + row[f"{prefix}rotation_degrees"] / 60 for prefix in WORLDS
        )
        if score < self.best:
            self.best = score
            export(learner, self.config.folder / "best.safetensors", row)


def scores_of(network: Network, unseen: dict[str, list[Clips]], autocast: bool) -> dict[str, float]:
    """Scores on the unseen clips of every world, each under its prefix."""
    return {
        f"{prefix}{name}": value
        for prefix, clips in unseen.items()
        for name, value in validate(network, clips, autocast).to_json().items()
    }


def export(learner: Learner, path: Path, row: dict) -> None:
    """Averaged weights as float16 with the recipe beside them."""
    save_checkpoint(learner.average, path, {"training": json.dumps(row)})
    path.with_suffix(".json").write_text(json.dumps(row, indent=1) + "\n")


def train(config: TrainingConfig, model: ModelConfig = MINI_CONFIG) -> Learner:
    """Train until the time (or the number of steps) is over.

    Continues the checkpoint in `config.folder` if there is one.
    """
    if config.workers > 1 and config.device != "cpu":
        raise InputError(f"workers={config.workers} on {config.device}: must be 1, only a CPU is shared by processes")
    pick_device(config.device)  # or a sentence why not
    torch.set_num_threads(config.threads)
    os.environ["SPARK3R_COMPILE"] = "1" if config.compile_renderer else "0"
    record, learner = Record(config), learner_of(config, model)
    checkpoint = config.folder / "checkpoint.pt"
    if checkpoint.exists():
        learner.load(torch.load(checkpoint, map_location=config.device, weights_only=True))
    record.line({"config": config.to_json(), "model": model.name, "step": learner.step, "torch": torch.__version__})
    unseen = validation_clips(config)  # before workers start: they find the compiled renderer ready
    pool = WorkerPool(config, learner.network, learner.supervision)
    started, before = time.monotonic(), learner.minutes
    saved = validated = learner.minutes
    while (progress := progress_at(config, learner)) < 1.0 and learner.step != config.stop_after:
        record.add(train_step(learner, pool, config, progress))
        learner.minutes = before + (time.monotonic() - started) / 60
        if learner.minutes - validated >= config.validate_every_minutes or progress_at(config, learner) >= 1.0:
            validated = learner.minutes
            row = facts(learner) | scores_of(learner.average, unseen, config.autocast)
            record.line(row | record.means())
            record.keep_best(learner, row)
        elif learner.step % 20 == 0:
            record.line(facts(learner) | record.means())
        if learner.minutes - saved >= config.save_every_minutes:
            saved = learner.minutes
            record.save(learner)
    record.save(learner)
    pool.close()
    return learner


def progress_at(config: TrainingConfig, learner: Learner) -> float:
    """Share of the run that is over."""
    return learner.step / config.steps if config.steps else learner.minutes / config.minutes


def facts(learner: Learner) -> dict[str, float]:
    """Where the run stands: steps, minutes, clips."""
    return {"step": learner.step, "minutes": round(learner.minutes, 2), "clips": learner.clips_seen}
