"""The size of the parts that go through an MLP at once: measured where it matters, never a reason for other results."""

import pytest
import torch
from torch import Tensor

from spark3r.kernels import choice, rows
from spark3r.kernels.choice import Times
from spark3r.kernels.rows import HIDDEN_AT_ONCE, ROWS, rows_at_once
from spark3r.meta import standing_for
from spark3r.models.blocks import Mlp

HIDDEN, WIDTH = 64, 16
LIKE = torch.empty(1, WIDTH)
MANY = 1 << 20


def never(*_: object) -> Times:
    raise AssertionError("nothing is to be measured here")


def unused(x: Tensor) -> Tensor:
    raise AssertionError("nothing is to be run here")


def test_a_gpu_takes_what_its_memory_bears(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows, "times_of", never)
    assert rows_at_once(unused, HIDDEN, MANY, LIKE.to("meta")) == HIDDEN_AT_ONCE // HIDDEN


def test_what_is_one_part_anyway_is_not_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows, "times_of", never)
    smallest = min(ROWS.values())
    assert rows_at_once(unused, HIDDEN, smallest, LIKE) == smallest


def test_memory_is_estimated_for_the_largest_parts():
    with standing_for("cpu"):
        assert rows_at_once(unused, HIDDEN, MANY, LIKE.to("meta")) == max(ROWS.values())


@pytest.mark.parametrize("best", ROWS)
def test_the_fastest_size_is_taken(best: str, monkeypatch: pytest.MonkeyPatch, tmp_path):
    memory = choice.Memory(tmp_path / "kernels.json", "this machine")
    monkeypatch.setattr(rows, "memory_of", lambda device: memory)
    asked: list[Tensor] = []

    def times(mlp: object, like: Tensor) -> Times:
        asked.append(like)
        return {name: 1.0 if name == best else 2.0 for name in ROWS} | {"a size of yesterday": 0.5}

    monkeypatch.setattr(rows, "times_of", times)
    for _ in range(2):
        assert rows_at_once(unused, HIDDEN, MANY, LIKE) == ROWS[best]
    assert len(asked) == 1


def test_every_size_is_timed_on_as_many_tokens(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows, "ROWS", {"small": 4, "large": 16})
    seen: list[int] = []
    mlp = Mlp(WIDTH, HIDDEN).requires_grad_(False)

    def watched(x: Tensor) -> Tensor:
        seen.append(len(x))
        return mlp(x)

    times = rows.times_of(watched, LIKE)
    assert set(times) == {"small", "large"}
    assert all(ms > 0 for ms in times.values())
    runs = "".join("s" if size == 4 else "L" for size in seen)
    assert set(runs.replace("ssss", "S")) == {"S", "L"}, "a run of small parts has as many tokens as one of large ones"
