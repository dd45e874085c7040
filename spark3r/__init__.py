"""Spark3R: long videos into depth, cameras and point clouds, fast, without retraining.

>>> import spark3r
>>> scene = spark3r.reconstruct(spark3r.read_frames("clip.mp4"))  # doctest: +SKIP
"""

from spark3r import interruption as interruption  # first, before what takes seconds to load
from spark3r.compare import Comparison, compare, sweep
from spark3r.errors import Cancelled, CheckpointError, DoesNotFit, InputError
from spark3r.estimate import Estimate, estimate, network_size, schedule_for
from spark3r.frames import Frames, describe_source, frames_for, planned_frames, read_frames
from spark3r.inference import Progress, reconstruct
from spark3r.models.checkpoints import ModelCard, list_models, load_model
from spark3r.plugin import Acceleration, accelerate
from spark3r.reconstruction import Reconstruction
from spark3r.reduction import ReductionSchedule

__all__ = [
    "Acceleration",
    "Cancelled",
    "Comparison",
    "CheckpointError",
    "DoesNotFit",
    "Estimate",
    "Frames",
    "InputError",
    "ModelCard",
    "Progress",
    "Reconstruction",
    "ReductionSchedule",
    "accelerate",
    "compare",
    "describe_source",
    "estimate",
    "frames_for",
    "list_models",
    "load_model",
    "network_size",
    "planned_frames",
    "read_frames",
    "reconstruct",
    "schedule_for",
    "sweep",
]
