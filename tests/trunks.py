"""One trunk, three codes: `python -m tests.trunks vggt=PATH fastvggt=PATH --json FILE`, on an otherwise idle CPU.

VGGT-1B's trunk (24 pairs of a frame and a global layer, 605 M parameters) with random weights in bfloat16: the official
one dense and under the plug-in, FastVGGT's (mystorm16/FastVGGT, with its own settings), and our own, dense and reduced.
All run in one process, in turns, and what is told is processor seconds, which other work disturbs least. PATH is a
checkout, imported from there and left as it is; its commit is read from git, or given as PATH@COMMIT. The encoder is
left out: a convolution gives the official codes their patches, random numbers ours.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import nn

from spark3r import ReductionSchedule, accelerate
from spark3r.attention import Planner, dense
from spark3r.kernels import recording
from spark3r.measure import machine
from spark3r.models.checkpoints import random_model
from spark3r.reduction import SchedulePlanner
from tests.official import path_and_commit, with_random_weights

FRAMES, HEIGHT, WIDTH, PATCH = 120, 126, 168, 14
TYPE = torch.bfloat16
FASTVGGT, OFFICIAL = "fastvggt", "official, dense"
UNUSED = ("einops", "matplotlib", "matplotlib.pyplot")  # imported for trackers and pictures

Way = Callable[[], object]


class OnCpu(SourceFileLoader):
    """FastVGGT as it is, but for the device written into its aggregator."""

    def get_data(self, path: str) -> bytes:
        return super().get_data(path).replace(b'device="cuda"', b'device="cpu"') if path.endswith(".py") else b""

    def set_data(self, *_: Any, **__: Any) -> None:
        """Keeps the changed code out of the checkout's cache."""


class FindOnCpu(MetaPathFinder):
    """Finds FastVGGT's packages, without what it draws pictures with."""

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> Any:
        spec = PathFinder.find_spec(fullname, path)
        if spec and isinstance(spec.loader, SourceFileLoader) and fullname.partition(".")[0] in ("vggt", "merging"):
            spec.loader = OnCpu(fullname, spec.loader.path)
        return spec


def imported(module: str, folder: str, *finders: MetaPathFinder) -> Any:
    """A module of a checkout. Both call their package vggt: the one before is forgotten."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("vggt", "merging")]:
        del sys.modules[name]
    sys.modules.update({name: mock.MagicMock() for name in UNUSED if name not in sys.modules})
    sys.path.insert(0, folder)
    sys.meta_path[:0] = finders
    return importlib.import_module(module)


def official_of(folder: str) -> nn.Module:
    """VGGT without encoder and heads."""
    module = imported("vggt.models.vggt", folder)
    with mock.patch.object(module, "Aggregator", partial(module.Aggregator, patch_embed="conv")):
        model = module.VGGT(enable_camera=False, enable_depth=False, enable_point=False, enable_track=False)
    return with_random_weights(model).to(TYPE)


def fastvggt_of(folder: str) -> nn.Module:
    """Its aggregator, which merges from the first layer on."""
    model = imported("vggt.models.aggregator", folder, FindOnCpu()).Aggregator(patch_embed="conv", merging=0)
    for block in model.global_blocks:
        block.attn.patch_width, block.attn.patch_height = WIDTH // PATCH, HEIGHT // PATCH
    return with_random_weights(model).to(TYPE)


def ways(checkouts: dict[str, str]) -> dict[str, Way]:
    """Everything that is timed: {name: one pass through the trunk}."""
    network = random_model("vggt", "cpu", TYPE)
    grid = network.grid(HEIGHT, WIDTH)
    images = torch.rand(1, FRAMES, 3, HEIGHT, WIDTH, dtype=TYPE)
    patches = torch.randn(FRAMES, grid[0] * grid[1], network.config.width, dtype=TYPE)
    schedule = ReductionSchedule.parse("auto", FRAMES, network.config.sensitive_layers)

    layout = network.trunk.layout(FRAMES, grid)

    def ours(plan: Planner) -> None:
        network.aggregate(patches.clone(), layout, plan)

    found: dict[str, Way] = {"own, dense": partial(ours, dense), "own, auto": partial(ours, SchedulePlanner(schedule))}
    if "vggt" in checkouts:
        official: Any = official_of(checkouts["vggt"])

        def plugged() -> None:
            with accelerate(official, schedule):
                official.aggregator(images)

        found |= {OFFICIAL: lambda: official.aggregator(images), "official, plug-in auto": plugged}
    if FASTVGGT in checkouts:
        rival = fastvggt_of(checkouts[FASTVGGT])

        def merged() -> None:
            with mock.patch.multiple(torch.cuda, synchronize=lambda: None, empty_cache=lambda: None):
                rival(images)

        found["FastVGGT"] = merged
    return found


@torch.inference_mode()
def measured(found: dict[str, Way], turns: int) -> list[dict[str, Any]]:
    """Rows, in turns; the first of all does not count, as kernels are chosen in it."""
    seconds: dict[str, list[float]] = {name: [] for name in found}
    kernels: dict[str, set[str]] = {name: set() for name in found}
    for turn in range(1 + turns):
        for name, way in found.items():
            started = time.process_time()
            with recording(kernels[name].add if turn else lambda _: None):
                way()
            spent = time.process_time() - started
            print(f"{name}, turn {turn}: {spent:.1f} s", file=sys.stderr, flush=True)
            if turn:
                seconds[name].append(spent)
    base = median(seconds.get(OFFICIAL, seconds["own, dense"]))
    return [
        {
            "trunk": name,
            "processor_seconds": round(median(spent), 2),
            "low": round(min(spent), 2),
            "high": round(max(spent), 2),
            "of_official_dense": round(median(spent) / base, 3),
            "kernels": sorted(kernels[name]) or ["torch"],
        }
        for name, spent in seconds.items()
    ]


def main() -> int:
    """Prints a row for each, and writes them."""
    torch.manual_seed(0)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", metavar="NAME=PATH[@COMMIT]")
    parser.add_argument("--turns", type=int, default=3, help="that count (a minute or two for each code)")
    parser.add_argument("--json", type=Path, help="write machine and rows to this file")
    arguments = parser.parse_args()
    given = {one.partition("=")[0]: path_and_commit(one.partition("=")[2]) for one in arguments.checkouts}
    rows = measured(ways({name: path for name, (path, _) in given.items()}), arguments.turns)
    for row in rows:
        print(json.dumps(row))
    about = {
        **machine(torch.device("cpu")),
        "command": " ".join(
            ("python -m tests.trunks", *(f"{name}=PATH" for name in given), f"--turns {arguments.turns}")
        ),
    }
    clip = {"frames": FRAMES, "height": HEIGHT, "width": WIDTH, "dtype": "bfloat16", "turns": arguments.turns}
    code = {name: commit for name, (_, commit) in given.items()}
    if arguments.json is not None:
        content = {"machine": about, "clip": clip, "code": code, "rows": rows}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
