"""The choice of a kernel: by measured times, remembered, and never a reason for a run to fail."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from spark3r.errors import InputError
from spark3r.inference import reconstruct
from spark3r.kernels import attend, attend_with_lse, dispatch, recording, rows, torch_kernel
from spark3r.kernels.candidates import TORCH, by_matmuls, by_torch, candidates
from spark3r.kernels.choice import Memory, measure
from spark3r.measure import Meter
from spark3r.timing import reference_speed

CPU = torch.device("cpu")


class Workshop:
    """Fake ways of doing something, on a clock that only they move: way n takes costs[n] seconds, one after another."""

    def __init__(self, **costs: list[float]):
        self.now, self.calls = 0.0, dict.fromkeys(costs, 0)
        self.costs = costs

    def clock(self) -> float:
        return self.now

    def way(self, name: str) -> Callable[[], None]:
        def run() -> None:
            costs = self.costs[name]
            self.now += costs[min(self.calls[name], len(costs) - 1)]
            self.calls[name] += 1

        return run

    @property
    def ways(self) -> dict[str, Callable[[], None]]:
        return {name: self.way(name) for name in self.costs}


def refuses() -> None:
    raise RuntimeError("no kernel for this size")


def test_the_shortest_of_several_turns_counts_and_the_warm_up_does_not():
    shop = Workshop(steady=[9.0, 2.0], jittery=[1.0, 8.0, 1.5, 8.0])
    times = measure(shop.ways, shop.clock)
    assert times == pytest.approx({"steady": 2000.0, "jittery": 1500.0})


def test_a_disturbed_moment_does_not_decide():
    """While other work runs everything takes long; the rounds go on until two runs of every way agree."""
    shop = Workshop(good=[1.0, 15.0, 19.0, 1.0, 1.0], bad=[2.0, 5.0, 2.0, 60.0, 2.0])
    assert measure(shop.ways, shop.clock) == pytest.approx({"good": 1000.0, "bad": 2000.0})
    assert shop.calls == {"good": 5, "bad": 5}


def test_what_does_not_run_is_no_candidate():
    shop = Workshop(only=[1.0])
    assert list(measure({"broken": refuses, **shop.ways}, shop.clock)) == ["only"]
    assert measure({"broken": refuses}, shop.clock) == {}


def test_a_hopeless_way_is_not_timed_again_and_again():
    shop = Workshop(fast=[1.0], slow=[11.0])
    measure(shop.ways, shop.clock)
    assert shop.calls == {"fast": 4, "slow": 2}


@pytest.mark.parametrize("winner", ["torch", "matmuls-512k", "matmuls-8m"])
def test_attention_runs_by_the_kernel_that_was_fastest(winner: str, monkeypatch: pytest.MonkeyPatch):
    """Whatever the machine: measurements are given, and the choice follows them."""
    times = dict.fromkeys(candidates(CPU, torch.float32), 2.0) | {winner: 1.0}
    monkeypatch.setattr("spark3r.kernels.dispatch.times_of", lambda size: times)
    assert ran_by(*qkv(200, 800)) == [winner]


def test_a_kernel_measured_elsewhere_and_absent_here_is_not_chosen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("spark3r.kernels.dispatch.times_of", lambda size: {"fa4": 0.1, "torch": 1.0})
    assert ran_by(*qkv(200, 800)) == ["torch"]
    monkeypatch.setattr("spark3r.kernels.dispatch.times_of", lambda size: {})
    assert ran_by(*qkv(200, 800)) == ["torch"]


def qkv(queries: int, keys: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(queries * 31 + keys)
    shapes = [(1, n, 4, 16) for n in (queries, keys, keys)]
    return tuple(torch.randn(shape, generator=generator).to(dtype).transpose(1, 2) for shape in shapes)


def ran_by(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> list[str]:
    names: list[str] = []
    with recording(names.append):
        attend(q, k, v, 0.25)
    return names


def test_measured_here_every_candidate_runs_and_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch):
    q, k, v = qkv(200, 900)
    expected = by_torch(q, k, v, 0.25)
    for name in candidates(CPU, torch.float32):
        monkeypatch.setenv("SPARK3R_KERNEL", name)
        torch.testing.assert_close(attend(q, k, v, 0.25), expected, rtol=1e-5, atol=1e-5)
        assert ran_by(q, k, v) == [name]
    monkeypatch.delenv("SPARK3R_KERNEL")
    assert ran_by(q, k, v)[0] in candidates(CPU, torch.float32)


def test_the_beginning_of_names_chooses_among_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPARK3R_KERNEL", "matmuls")
    times = {"torch": 1.0, "matmuls-512k": 3.0, "matmuls-2m": 2.0}
    monkeypatch.setattr("spark3r.kernels.dispatch.times_of", lambda size: times)
    assert ran_by(*qkv(200, 800)) == ["matmuls-2m"]


def test_an_unknown_kernel_is_told_with_what_there_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPARK3R_KERNEL", "cudnn")
    with pytest.raises(InputError, match=r"SPARK3R_KERNEL=cudnn: this device has torch, matmuls-512k"):
        attend(*qkv(2, 3), 0.25)  # pyright: ignore[reportCallIssue]


def test_torch_alone_is_kept_within_its_block_and_with_gradients(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPARK3R_KERNEL", "matmuls-2m")
    with torch_kernel():
        assert ran_by(*qkv(5, 6)) == [TORCH]
    assert ran_by(*qkv(5, 6)) == ["matmuls-2m"]
    assert ran_by(*(x.requires_grad_() for x in qkv(5, 6))) == [TORCH]


def test_meta_tensors_are_never_timed():
    q, k, v = (x.to("meta") for x in qkv(900, 4000))
    assert ran_by(q, k, v) == [TORCH]
    assert attend(q, k, v, 0.25).shape == q.shape
    assert attend_with_lse(q, k, v, 0.25)[1].shape == q.shape[:3]


@pytest.mark.parametrize("scores", [1, 1000, 15_000, 1 << 21])
def test_attention_in_parts_that_fit_the_cache_is_the_same_attention(scores: int):
    """One clip, or several items a few at a time: whole, and by query rows."""
    q, k, v = (torch.cat([x, x + 1, x.flip(2), x * 2, -x]) for x in qkv(100, 37))
    torch.testing.assert_close(by_matmuls(q, k, v, 0.3, scores), by_torch(q, k, v, 0.3), rtol=1e-5, atol=1e-5)


def test_times_are_measured_once_and_outlive_the_process(tmp_path: Path):
    path, asked = tmp_path / "deep" / "kernels.json", []

    def ask() -> dict[str, float]:
        asked.append(threading.current_thread())
        return {"torch": 1.5}

    memory = Memory(path, "this machine")
    assert memory.times("size", ask) == memory.times("size", ask) == {"torch": 1.5}
    assert Memory(path, "this machine").times("size", ask) == {"torch": 1.5}
    assert len(asked) == 1
    assert asked[0] is not threading.current_thread(), "modes of the caller must not see the measurement"
    assert Memory(path, "another machine").times("size", ask) == {"torch": 1.5}
    assert len(asked) == 2
    assert set(json.loads(path.read_text())["machines"]) == {"this machine", "another machine"}


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "null", '{"machines": 3}', '{"machines": {"m": null}}', '{"machines": {"m": {"size": {}}}}',
        '{"machines": {"m": {"size": {"torch": "fast"}}}}', '{"machines": {"m": {"size": {"torch": NaN}}}}',
        '{"machines": {"m": {"size": {"torch": -1}}}}', "\x00\x01",
    ],
)  # fmt: skip
def test_a_damaged_file_is_as_none(content: str, tmp_path: Path):
    path = tmp_path / "kernels.json"
    path.write_text(content)
    assert Memory(path, "m").times("size", lambda: {"torch": 2.0}) == {"torch": 2.0}
    assert Memory(path, "m").times("size", dict) == {"torch": 2.0}, "and it is written anew"


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path: Path):
    (tmp_path / "file").touch()
    memory = Memory(tmp_path / "file" / "kernels.json", "m")
    assert memory.times("size", lambda: {"torch": 2.0}) == {"torch": 2.0}


def test_an_error_while_measuring_reaches_the_caller(tmp_path: Path):
    with pytest.raises(RuntimeError, match="no kernel"):
        Memory(tmp_path / "kernels.json", "m").times("size", lambda: refuses() or {})


def test_what_is_measured_uses_up_no_random_numbers_of_the_caller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A seeded program draws the same with a cache of measured times and without one."""
    memory = Memory(tmp_path / "kernels.json", "m")
    for module in (dispatch, rows):
        monkeypatch.setattr(module, "memory_of", lambda device: memory)
    before = torch.get_rng_state()
    reconstruct(np.zeros((24, 96, 128, 3), np.uint8), "mini", "2x4")
    reference_speed(CPU, torch.float32)
    assert {question.split()[0] for question in json.loads(memory.path.read_text())["machines"]["m"]} == {
        "attention",
        "mlp",
    }
    assert torch.equal(torch.get_rng_state(), before)


def test_choosing_is_no_part_of_the_run_that_asks(tmp_path: Path):
    def ask() -> dict[str, float]:
        time.sleep(0.3)
        return {"torch": 1.0}

    meter = Meter(CPU)
    with meter.stage("global_attention"):
        Memory(tmp_path / "kernels.json", "m").times("size", ask)
    assert meter.milliseconds["global_attention"] < 200
    assert meter.elapsed_ms < 200
