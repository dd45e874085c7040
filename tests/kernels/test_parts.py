"""Attention in parts against attention in one piece."""

import pytest
import torch

from spark3r.kernels import attend_with_lse, merge_parts
from spark3r.kernels.parts import _plain
from tests import reference


def qkv(queries: int, keys: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(queries * 31 + keys)
    return tuple(torch.randn(2, 3, n, 16, generator=generator).to(dtype) for n in (queries, keys, keys))


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (5, 3), (40, 70)])
def test_out_is_attention_and_lse_the_logarithm_of_its_mass(queries: int, keys: int):
    q, k, v = qkv(queries, keys)
    out, lse = attend_with_lse(q, k, v, 0.3)
    torch.testing.assert_close(out[1, 2], reference.attention(q[1, 2], k[1, 2], v[1, 2], 0.3), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(lse, (q @ k.mT * 0.3).logsumexp(-1), rtol=1e-5, atol=1e-5)
    assert lse.shape == q.shape[:3]
    assert lse.dtype == torch.float32


def test_the_fused_and_the_plain_path_agree(monkeypatch: pytest.MonkeyPatch):
    q, k, v = qkv(33, 50)
    whole = _plain(q, k, v, 0.3)
    torch.testing.assert_close(attend_with_lse(q, k, v, 0.3), whole, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr("spark3r.kernels.parts._SCORES_AT_ONCE", 2 * 3 * 50 * 7)
    torch.testing.assert_close(_plain(q, k, v, 0.3), whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("cuts", [(50,), (1, 50), (17, 18, 50)])
def test_parts_merge_into_the_whole_in_any_grouping(cuts: tuple[int, ...]):
    q, k, v = qkv(12, 50)
    parts, start = [], 0
    for stop in cuts:
        parts.append(attend_with_lse(q, k[:, :, start:stop], v[:, :, start:stop], 0.5))
        start = stop
    whole = attend_with_lse(q, k, v, 0.5)
    torch.testing.assert_close(merge_parts(parts), whole, rtol=1e-5, atol=1e-5)
    running = parts[0]
    for part in parts[1:]:
        running = merge_parts((running, part))
    torch.testing.assert_close(running, whole, rtol=1e-5, atol=1e-5)


def test_one_key_that_stands_for_many_weighs_as_many():
    q, k, v = qkv(6, 4)
    repeated_k, repeated_v = (torch.cat((x, x[:, :, -1:].expand(-1, -1, 9, -1)), dim=2) for x in (k, v))
    lone = v[:, :, -1:], (q @ k[:, :, -1:].mT * 0.5)[..., 0] + torch.tensor(10.0).log()
    merged, _ = merge_parts((attend_with_lse(q, k[:, :, :-1], v[:, :, :-1], 0.5), lone))
    expected, _ = attend_with_lse(q, repeated_k, repeated_v, 0.5)
    torch.testing.assert_close(merged, expected, rtol=1e-5, atol=1e-5)


def test_scores_far_apart_neither_overflow_nor_vanish():
    out = torch.tensor([[1.0]]), torch.tensor([[2.0]])
    near = merge_parts(((out[0], torch.tensor([1000.0])), (out[1], torch.tensor([-1000.0]))))
    assert near[0].item() == 1.0
    assert near[1].item() == 1000.0


def test_bfloat16_parts_stay_within_rounding_of_float32():
    q, k, v = qkv(20, 64)
    low = [x.bfloat16() for x in (q, k, v)]
    parts = [
        attend_with_lse(low[0], low[1][:, :, half], low[2][:, :, half], 0.2) for half in (slice(32), slice(32, 64))
    ]
    out, lse = merge_parts(parts)
    assert out.dtype == torch.bfloat16
    expected, expected_lse = attend_with_lse(q, k, v, 0.2)
    assert float((out - expected).abs().max()) < 0.02
    assert float((lse - expected_lse).abs().max()) < 0.02


def test_gradients_flow_through_parts():
    q, k, v = (x.requires_grad_() for x in qkv(5, 8))
    halves = [attend_with_lse(q, k[:, :, half], v[:, :, half], 0.3) for half in (slice(3), slice(3, 8))]
    merge_parts(halves)[0].square().sum().backward()
    got = [x.grad.clone() for x in (q, k, v)]  # pyright: ignore[reportOptionalMemberAccess]
    for x in (q, k, v):
        x.grad = None
    torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.3).square().sum().backward()
    torch.testing.assert_close(got, [x.grad for x in (q, k, v)], rtol=1e-4, atol=1e-5)


def test_nothing_to_attend_to_is_an_error():
    q, k, v = qkv(2, 1)
    with pytest.raises(ValueError, match="at least one key"):
        attend_with_lse(q, k[:, :, :0], v[:, :, :0], 0.3)
    with pytest.raises(ValueError, match="at least one part"):
        merge_parts([])
