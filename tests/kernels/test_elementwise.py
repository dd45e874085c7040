"""Fused elementwise functions: their plain forms against what they stand for, and each kernel against its plain twin.

Where Triton is installed its kernels run here under its interpreter, and are compiled for a GPU that is not there.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spark3r.kernels import elementwise
from spark3r.kernels.choice import Memory
from spark3r.kernels.elementwise import Norm, Rotation

ROOT = Path(__file__).parents[2]
EPS = 1e-5
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def rotation_of(places: int, width: int, parts: int) -> Rotation:
    return Rotation.by(drawn(places, parts, width // (2 * parts), seed=5))


def slow_turned(x: Tensor, cos: Tensor, sin: Tensor, parts: int) -> Tensor:
    """Pair by pair, of one head of one token [D]."""
    out, part = torch.empty_like(x), len(x) // parts
    for j in range(len(x)):
        in_part = j % part
        pair = j + part // 2 if in_part < part // 2 else j - part // 2
        out[j] = x[j] * cos[j] + x[pair] * sin[j]
    return out


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("chosen", [False, True])
@pytest.mark.parametrize("at_once", [1 << 18, 12])
def test_heads_first_is_norm_then_rotation(parts: int, chosen: bool, at_once: int, monkeypatch: pytest.MonkeyPatch):
    """For tokens of several frames under one table, and for chosen ones; in parts of any size."""
    monkeypatch.setattr(elementwise, "elements_at_once", lambda *_: at_once)
    x, norm = drawn(2, 6, 3, 8), Norm(drawn(8, seed=1), drawn(8, seed=2), EPS)
    rotation = rotation_of(3, 8, parts)
    places = torch.tensor([2, 0, 4, 1, 5, 3]) if chosen else torch.arange(6)
    rotation = rotation.rows(places) if chosen else rotation
    out = elementwise.heads_first(x, norm, rotation, torch.float32)
    assert out.is_contiguous()
    for clip, token, head in [(0, 0, 0), (0, 4, 1), (1, 5, 2), (1, 2, 0)]:
        place = int(places[token]) % 3
        expected = slow_turned(norm.of(x[clip, token, head]), rotation.cos[place], rotation.sin[place], parts)
        torch.testing.assert_close(out[clip, head, token], expected)


@pytest.mark.parametrize("best", elementwise.AT_ONCE)
def test_the_fastest_size_of_parts_is_taken(best: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    memory = Memory(tmp_path / "kernels.json", "this machine")
    monkeypatch.setattr(elementwise, "memory_of", lambda device: memory)
    times = {name: 1.0 if name == best else 2.0 for name in elementwise.AT_ONCE}
    monkeypatch.setattr(elementwise, "_times_of_parts", lambda *_: times)
    norm = Norm(drawn(8, seed=1), drawn(8, seed=2), EPS)
    many = torch.empty(1, min(elementwise.AT_ONCE.values()), 1, 8)
    assert elementwise.elements_at_once(many, norm, None, torch.float32) == elementwise.AT_ONCE[best]
    assert elementwise.elements_at_once(many[:, :4], norm, None, torch.float32) == min(elementwise.AT_ONCE.values())


@pytest.mark.parametrize("rotated", [False, True])
def test_every_size_of_parts_is_timed(rotated: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(elementwise, "AT_ONCE", {"small": 16, "large": 64})
    norm, rotation = Norm(drawn(8, seed=1), drawn(8, seed=2), EPS), rotation_of(3, 8, 1) if rotated else None
    times = elementwise._times_of_parts(drawn(1, 6, 3, 8), norm, rotation, torch.float32)
    assert set(times) == {"small", "large"}


def test_heads_first_without_norm_or_rotation_moves_nothing():
    x = drawn(2, 6, 3, 8)
    assert elementwise.heads_first(x, None, None, torch.float32).data_ptr() == x.data_ptr()


def test_residual_layer_scale_and_next_norm():
    x, change, gamma = drawn(7, 16), drawn(7, 16, seed=1), drawn(16, seed=2)
    weight, bias, rows = drawn(16, seed=3), drawn(16, seed=4), torch.tensor([1, 1, 0, 2, 2, 2, 0])
    for scale, chosen in ((gamma, None), (None, None), (gamma, rows)):
        moved, answers = x.clone(), change if chosen is None else change[:3]
        update = answers if chosen is None else torch.stack([answers[int(row)] for row in chosen])
        expected = x + (update if scale is None else scale * update)
        both = elementwise.add_scaled_normed(moved, answers, scale, chosen, weight, bias, EPS, torch.bfloat16)
        assert both[0].data_ptr() == moved.data_ptr()
        torch.testing.assert_close(moved, expected)
        assert torch.equal(both[1], F.layer_norm(moved, (16,), weight, bias, EPS).bfloat16())
        again = elementwise.add_scaled(x.clone(), answers, scale, chosen)
        assert torch.equal(again, moved)


def test_norm_and_cast_write_where_they_are_told():
    x, out = drawn(5, 16), torch.empty(5, 16, dtype=torch.bfloat16)
    weight, bias = drawn(16, seed=1), drawn(16, seed=2)
    assert elementwise.normed(x, weight, bias, EPS, out=out) is out
    mean, spread = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    torch.testing.assert_close(out, ((x - mean) / (spread + EPS).sqrt() * weight + bias).bfloat16())


def test_gated_is_silu_times_the_other_half():
    both = drawn(3, 10)
    torch.testing.assert_close(elementwise.gated(both), both[:, :5] * both[:, :5].sigmoid() * both[:, 5:])


@pytest.mark.parametrize("at_once", [1 << 16, 2])
def test_means_of_members(at_once: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(elementwise, "_ROWS_AT_ONCE", at_once)
    x, members, starts = drawn(6, 4), torch.tensor([5, 0, 2, 1, 3, 4]), torch.tensor([0, 1, 4, 6])
    expected = torch.stack([x[5], x[[0, 2, 1]].mean(0), x[[3, 4]].mean(0)])
    torch.testing.assert_close(elementwise.mean_of_members(x, members, starts), expected)


def test_plain_forms_run_where_gradients_are_wanted():
    """The kernels know no gradients: with them the plain form is taken whatever the device."""
    with torch.inference_mode(False), torch.enable_grad():
        x = drawn(2, 6, 3, 8).requires_grad_()
        elementwise.heads_first(
            x, Norm(torch.ones(8), torch.zeros(8), EPS), rotation_of(6, 8, 2), x.dtype
        ).sum().backward()
        assert x.grad is not None


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("script", ["interpreted", "compiled_for_a_gpu"])
def test_kernels_agree_with_their_plain_twins(script: str):
    """In a process of its own: Triton reads its switch for the interpreter when it is imported."""
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1" if script == "interpreted" else "0",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    command = [sys.executable, "-m", "tests.kernels.triton_check", script]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_compiled_forms_agree_and_compile_once_for_all_lengths():
    from torch._dynamo.utils import counters

    def both(tokens: int) -> tuple[Tensor, Tensor]:
        x = drawn(2, tokens, 3, 4, 8, seed=tokens)[:, :, 1]
        change, rows = drawn(5, 8, seed=1), torch.arange(tokens) % 5
        out = elementwise.heads_first(x, Norm(drawn(8, seed=1), drawn(8, seed=2), EPS), rotation, torch.bfloat16)
        added = elementwise.add_scaled(x[0, :, 0].clone(), change, None, rows)
        return out.float(), added

    rotation, graphs = rotation_of(3, 8, 2), []
    for tokens in (6, 12, 33):
        plain = both(tokens)
        with elementwise.compiling():
            compiled = both(tokens)
        graphs.append(counters["stats"]["unique_graphs"])
        for ours, expected in zip(compiled, plain, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-2, atol=1e-2)
    assert graphs[0] > 0
    assert graphs == graphs[:1] * 3
