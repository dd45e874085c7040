"""The attention module against plain loops, and its kernels against each other."""

import pytest
import torch

from spark3r.attention import Attention, Kernel, Rotation
from spark3r.models.blocks import grid_rotation
from tests import reference


def qkv(queries: int, keys: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(queries * 31 + keys)
    return tuple(torch.randn(1, 2, n, 8, generator=generator).to(dtype) for n in (queries, keys, keys))


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (5, 3), (3, 7)])
def test_kernel_is_softmax_attention(queries: int, keys: int):
    q, k, v = qkv(queries, keys)
    expected = torch.stack([reference.attention(q[0, h], k[0, h], v[0, h], 8**-0.5) for h in range(2)])
    torch.testing.assert_close(Kernel()(q, k, v)[0], expected, rtol=1e-5, atol=1e-6)


def test_bfloat16_attention_stays_within_rounding_of_float32():
    q, k, v = qkv(64, 200)
    with torch.inference_mode():
        low = Kernel()(q.bfloat16(), k.bfloat16(), v.bfloat16()).float()
    assert float((low - Kernel()(q, k, v)).abs().max()) < 0.03


def test_length_gain_sharpens_only_beyond_its_reference():
    q, k, v = qkv(4, 50)
    plain = Kernel()(q, k, v)
    assert torch.equal(Kernel(0.1, length_reference=50)(q, k, v), plain)
    torch.testing.assert_close(
        Kernel(0.1, length_reference=5)(q, k, v),
        torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=8**-0.5 * (1 + 0.1 * 2.302585)),
    )


def test_rotation_keeps_lengths_and_depends_on_relative_place_only():
    rotation = grid_rotation((4, 5), 2, 8, torch.device("cpu"))
    q, k, _ = qkv(22, 22)
    torch.testing.assert_close(rotation.apply(q).norm(dim=-1), q.norm(dim=-1))
    torch.testing.assert_close(rotation.apply(q)[:, :, :2], q[:, :, :2])  # special tokens stay unrotated

    same_q, same_k = q[:, :, :1].expand(-1, -1, 22, -1), k[:, :, :1].expand(-1, -1, 22, -1)
    scores = rotation.apply(same_q) @ rotation.apply(same_k).transpose(-1, -2)
    patch = {(r, c): 2 + r * 5 + c for r in range(4) for c in range(5)}
    torch.testing.assert_close(
        scores[..., patch[0, 0], patch[1, 2]], scores[..., patch[2, 1], patch[3, 3]], rtol=1e-4, atol=1e-5
    )
    assert not torch.allclose(scores[..., patch[0, 0], patch[1, 2]], scores[..., patch[0, 0], patch[2, 1]])


def test_linear_layers_work_in_the_type_of_their_weights():
    module = Attention(16, heads=2, qk_norm=True)
    module.qkv.to(torch.bfloat16)
    module.proj.to(torch.bfloat16)
    rotation = Rotation.by(torch.zeros(6, 2, 2))
    with torch.inference_mode():
        assert module(torch.randn(1, 6, 16), rotation).dtype == torch.bfloat16
