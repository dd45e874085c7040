"""Groups of ranks as torchrun makes them, in a fraction of a second: forked from one process that has imported all.

The nursery reads one JSON object per line, {"scene", "ranks", "arguments", "seconds", "ends"}: `scene(**arguments)` of
tests/distributed/scenes.py runs on every rank, and its answer is the rank's exit code. It answers with a line of JSON:
the exit codes, what each rank printed, and how long it took. Unless `ends` says so it does not end the others when a
rank fails, as torchrun does: the ranks must see to that themselves.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SECONDS = 60.0  # for any scene, on a busy machine


@dataclass(frozen=True)
class Ended:
    """What became of a group."""

    codes: list[int]  # of the ranks; negative: the signal that ended it, -9 where the time was over
    printed: list[str]
    seconds: float

    @property
    def said(self) -> list[str]:
        """The lines of spark3r's own, of all ranks."""
        return [line for text in self.printed for line in text.splitlines() if line.startswith("spark3r: ")]


class Nursery:
    """The caller's side. `close` when done."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.distributed.nursery"],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, scene: str, ranks: int, seconds: float = SECONDS, *, ends: bool = False, **arguments: Any) -> Ended:
        """One group, from its start to the end of its last rank."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"scene": scene, "ranks": ranks, "seconds": seconds, "arguments": arguments, "ends": ends}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def _group(scene: str, ranks: int, seconds: float, arguments: dict[str, Any], ends: bool) -> Ended:
    from torch._C._distributed_c10d import TCPStore

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        pids = [_forked(scene, rank, ranks, port, Path(folder) / str(rank), arguments) for rank in range(ranks)]
        store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)  # as torchrun holds it
        codes = _codes(pids, started + seconds, ends)
        del store
        printed = [(Path(folder) / str(rank)).read_text() for rank in range(ranks)]
    return Ended(codes, printed, time.monotonic() - started)


def _codes(pids: list[int], deadline: float, ends: bool) -> list[int]:
    codes: dict[int, int] = {}
    while len(codes) < len(pids):
        for pid in set(pids) - codes.keys():
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                codes[pid] = os.waitstatus_to_exitcode(status)
                for other in set(pids) - codes.keys() if ends and codes[pid] else ():
                    os.kill(other, signal.SIGTERM)
        time.sleep(0.02)
    return [codes[pid] for pid in pids]


def _forked(scene: str, rank: int, ranks: int, port: int, printed: Path, arguments: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may be deaf to it
    try:
        handle = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.environ.update(
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks),
            TORCHELASTIC_RUN_ID="nursery", TORCHELASTIC_RESTART_COUNT="0", TORCHELASTIC_USE_AGENT_STORE="True",
        )  # fmt: skip
        from tests.distributed import scenes

        code = getattr(scenes, scene)(**arguments)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 printed, and the code says it
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    from tests.distributed import scenes

    answers, sys.stdout = sys.stdout, sys.stderr  # what else prints is no answer
    scenes.grow_up()
    for line in sys.stdin:
        print(json.dumps(vars(_group(**json.loads(line)))), file=answers, flush=True)


if __name__ == "__main__":
    main()
