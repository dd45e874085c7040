"""Starts processes that share a clip, and brings back what each of them found, as JSON."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def on_ranks(module: str, ranks: int, seconds: float) -> list[Any]:
    """Runs `main(rank, ranks)` of a module in so many processes (gloo) and returns their answers in order of rank.

    All end when one fails or the time is over; the error then carries what they printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        started = [_start(module, rank, ranks, folder) for rank in range(ranks)]
        try:
            printed = [process.communicate(timeout=seconds)[0] for process in started]
        finally:
            for process in started:
                process.kill()
        assert all(process.returncode == 0 for process in started), "\n".join(printed)
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(ranks)]


def _start(module: str, rank: int, ranks: int, folder: str) -> subprocess.Popen[str]:
    code = (
        "import importlib, json, pathlib, torch, torch.distributed as dist\n"
        "torch.set_num_threads(1)\n"
        f"dist.init_process_group('gloo', init_method='file://{folder}/meet', rank={rank}, world_size={ranks})\n"
        f"found = importlib.import_module('{module}').main({rank}, {ranks})\n"
        f"pathlib.Path('{folder}/{rank}.json').write_text(json.dumps(found))\n"
        "dist.destroy_process_group()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
