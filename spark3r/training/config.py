"""Everything that decides a training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from spark3r.models.config import ModelConfig
from spark3r.models.families.mini import MINI_CONFIG


@dataclass(frozen=True)
class TrainingConfig:
    """Knobs of one run. Times in minutes of wall clock, learning rates per step."""

    folder: Path  # checkpoint.pt, curve.jsonl and best.safetensors go here; an existing checkpoint is continued
    model: ModelConfig = MINI_CONFIG
    minutes: float = 90.0  # length of the whole run, annealing included
    steps: int | None = None  # a bound by steps instead; then the schedule follows steps and repeats exactly
    stop_after: int | None = None  # end at this step all the same, to be continued later
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    workers: int = 1  # processes that share each step
    pieces_per_step: int = 4
    autocast: bool = True  # bfloat16 matmuls; weights stay float32
    compile_renderer: bool = True
    height: int = 96
    width: int = 128
    frames_per_step: int = 48
    samples_per_pixel: int = 2
    reuse: int = 2  # how often a rendered clip is used (mirrored, recoloured, reversed)
    short_until: float = 0.12  # share of the run with clips of 2–4 frames
    long_from: float = 0.3  # from here on up to 12 frames
    rate: float = 1.2e-3
    warmup_steps: int = 100
    anneal_from: float = 0.72  # share of the run after which the rate falls as a cosine
    final_rate: float = 0.02  # of the peak rate
    weight_decay: float = 0.02
    ema: float = 0.998
    clip_norm: float = 1.0
    matching_layers: tuple[int, ...] = (3, 5, 7)  # blocks one of whose heads learns to look at the matching patch
    reference_layers: tuple[int, ...] = (5, 7, 9)  # and at the matching patch of the reference frame
    auxiliary_layers: tuple[int, ...] = (5, 8)  # blocks from which linear heads read points, flow and pose
    validate_every_minutes: float = 6.0
    save_every_minutes: float = 3.0
    validation_clips: int = 24
    validation_frames: int = 8
    resume_weights: Path | None = None  # start from exported weights, with a fresh optimiser

    def to_json(self) -> dict:
        values = asdict(self) | {"model": self.model.name}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


VALIDATION_SEED = 900_000_000  # scenes from here on are never trained on
EXAMPLE_SEED = 950_000_000  # and the example clips come from here
