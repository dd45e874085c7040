"""Everything that decides a training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainingConfig:
    """Knobs of one run. Times in minutes of wall clock, learning rates per step."""

    folder: Path  # checkpoint.pt, curve.jsonl and best.safetensors go here; an existing checkpoint is continued
    minutes: float = 90.0  # length of the whole run, annealing included
    steps: int | None = None  # a bound by steps instead; then the schedule follows steps and repeats exactly
    stop_after: int | None = None  # end at this step all the same, to be continued later
    seed: int = 0  # decides first weights and every clip
    device: str = "cpu"  # or "cuda"
    channels: int = 192  # width of the model's tokens, a multiple of 48
    patch: int = 16  # pixels of a token's side, a multiple of 4: fewer are finer tokens
    pairs: int = 6  # of a frame and a global layer
    threads: int = 1  # of each process
    workers: int = 1  # processes that share each step
    micro_batches_per_step: int = 4  # parts of a batch that processes take one by one
    autocast: bool = True  # bfloat16 matmuls; weights stay float32
    compile_renderer: bool = True  # a minute at the start, then about ten times faster
    height: int = 96  # pixels
    width: int = 128
    frames_per_step: int = 48  # clips of a step times their frames
    samples_per_pixel: int = 2  # antialiasing: 1, 2 or 4
    reuse: int = 2  # how often a rendered clip is used (mirrored, recoloured, reversed)
    wild: float = 0.72  # share of clips from the wide world (scenes.domain); the others are the original rooms
    dense_every: int = 2  # depth is predicted for every so-manieth frame of a clip: neighbours say nearly the same
    portrait: float = 0.15  # share of steps with upright clips,
    cropped: float = 0.35  # and share of steps whose clips are cropped to nearly 16:9
    short_until: float = 0.12  # share of the run with clips of 2–4 frames
    long_from: float = 0.3  # from here on up to 24 frames
    longest_from: float = 1.0  # and from here on up to 48
    learning_rate: float = 1.2e-3  # peak learning rate
    warmup_steps: int = 100
    anneal_from: float = 0.72  # share of the run after which the rate falls as a cosine
    final_learning_rate: float = 0.02  # of the peak rate
    weight_decay: float = 0.02
    ema: float = 0.995  # memory of the averaged weights, per step; a longer one lags behind the falling rate
    clip_norm: float = 1.0  # largest length of a step's gradient
    matching_layers: tuple[int, ...] = (3, 5, 7)  # blocks one of whose heads learns to look at the matching patch
    reference_layers: tuple[int, ...] = (5, 7, 9)  # and at the matching patch of the reference frame
    auxiliary_layers: tuple[int, ...] = (5, 8)  # blocks from which linear heads read points, flow and pose
    validate_every_minutes: float = 6.0
    save_every_minutes: float = 3.0
    validation_clips: int = 24
    validation_frames: int = 8
    resume_weights: Path | None = None  # start from exported weights (and their sizes), with a fresh optimiser
    start_from: Path | None = None  # or from those of another size, as far as names and shapes agree

    def to_json(self) -> dict:
        """All fields by name, paths as text."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}


VALIDATION_SEED = 900_000_000  # scenes from here on are never trained on
EXAMPLE_SEED = 950_000_000  # and the example clips come from here
