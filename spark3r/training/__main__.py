"""`python -m spark3r.training FOLDER [--minutes M] …`: train the small model."""

from __future__ import annotations

import argparse
from pathlib import Path

from .config import TrainingConfig
from .loop import train


def main() -> None:
    parser = argparse.ArgumentParser(prog="spark3r.training", description="Train the small model on rendered scenes.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--resume-weights", type=Path)
    train(TrainingConfig(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
