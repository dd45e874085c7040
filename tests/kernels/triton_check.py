"""Run by test_elementwise.py: every Triton kernel against its plain twin under the interpreter, or compiled for a GPU.

TRITON_INTERPRET=1 python -m tests.kernels.triton_check interpreted
python -m tests.kernels.triton_check compiled_for_a_gpu
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from spark3r.kernels import elementwise, triton_kernels
from spark3r.kernels.elementwise import Rotation

BF16 = torch.bfloat16
CLOSE = {torch.float32: 1e-5, BF16: 1.6e-2}  # the interpreter cuts bfloat16 off where a GPU rounds


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def same(name: str, ours: Tensor, plain: Tensor) -> None:
    assert ours.dtype == plain.dtype, name
    tolerance = CLOSE[plain.dtype]
    torch.testing.assert_close(
        ours.float(), plain.float(), rtol=tolerance, atol=tolerance, msg=lambda m: f"{name}: {m}"
    )


def interpreted() -> None:
    """Odd widths and lengths, so that what lies beyond the end is masked; both types."""
    for dtype in (torch.float32, BF16):
        _rows(dtype)
        _heads(dtype)


def _rows(dtype: torch.dtype) -> None:
    x, change, gamma = drawn(7, 24), drawn(7, 24, seed=1, dtype=dtype), drawn(24, seed=2)
    weight, bias, rows = drawn(24, seed=3), drawn(24, seed=4), torch.tensor([1, 1, 0, 2, 2, 6, 0])
    outs = [torch.empty(7, 24, dtype=dtype) for _ in range(2)]
    for module, out in zip((triton_kernels, elementwise), outs, strict=True):
        module.normed(x, weight, bias, 1e-5, out=out)
    same("normed", *outs)
    for scale, chosen in ((gamma, None), (None, rows), (gamma, rows)):
        a, b = x.clone(), x.clone()
        same(
            "add_scaled",
            triton_kernels.add_scaled(a, change, scale, chosen),
            elementwise.add_scaled(b, change, scale, chosen),
        )
        norm = (weight, bias, 1e-5, dtype)
        ours, plain = (
            m.add_scaled_normed(x.clone(), change, scale, chosen, *norm) for m in (triton_kernels, elementwise)
        )
        same("sum", ours[0], plain[0])
        same("its norm", ours[1], plain[1])
    both = drawn(3, 2 * 24, dtype=dtype)
    same("gated", triton_kernels.gated(both), elementwise.gated(both))
    members, starts = torch.tensor([5, 0, 2, 1, 3, 4, 6]), torch.tensor([0, 1, 4, 7])
    same("means", *(m.mean_of_members(change, members, starts) for m in (triton_kernels, elementwise)))


def _heads(dtype: torch.dtype) -> None:
    """Queries as a part of a joint projection: strides are not those of a tensor by itself."""
    x = drawn(2, 21, 3, 5, 24, dtype=dtype)[:, :, 1]  # [B, N, h, D]
    weight, bias = drawn(24, seed=3), drawn(24, seed=4)
    for parts in (1, 2):
        whole = Rotation.by(drawn(7, parts, 24 // (2 * parts), seed=5))
        some = whole.rows(torch.arange(21).flip(0) * 5 % 21)
        for rotation in (None, whole, some):
            for norm in ((weight, bias, 1e-6), (None, None, 0.0)):
                given = (x, *norm, *(rotation or (None, None, 0, None)), dtype)
                ours, plain = (m._heads_first(*given) for m in (triton_kernels, elementwise))
                same("heads", ours, plain)
                assert ours.transpose(1, 2).is_contiguous()


def compiled_for_a_gpu() -> None:
    """Down to machine code of sm_90, in the types of a bfloat16 run; no GPU is needed for that."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    flags = {"SCALED": True, "CHOSEN": True, "NORMED": True, "TURNED": True, "WIDTH": 1024, "BLOCK": 1024}
    head = {**flags, "WIDTH": 64, "BLOCK": 64, "HALF": 16, "ROWS": 16}
    half, whole, number = "*bf16", "*fp32", "*i64"
    sources = {
        triton_kernels.norm_rows: ((whole, whole, whole, half, "fp32"), flags),
        triton_kernels.add_rows: ((whole, half, whole, number, whole, whole, half, "fp32"), flags),
        triton_kernels.gate_rows: ((half, half), {"HIDDEN": 4096, "BLOCK": 1024}),
        triton_kernels.turn_heads: ((half, *(whole,) * 4, number, half, *("i32",) * 6, "fp32"), head),
        triton_kernels.mean_of_rows: ((half, number, number, half), flags),
    }
    for kernel, (types, constants) in sources.items():
        names = kernel.arg_names
        given = dict(zip(names, types, strict=False))
        fixed = {name: constants[name] for name in names if name not in given}
        signature = given | dict.fromkeys(fixed, "constexpr")
        made = triton.compile(ASTSource(kernel, signature, fixed), target=GPUTarget("cuda", 90, 32))
        assert made.asm["cubin"], kernel
        assert made.metadata.shared < 100_000, kernel


if __name__ == "__main__":
    with torch.inference_mode():
        {each.__name__: each for each in (interpreted, compiled_for_a_gpu)}[sys.argv[1]]()
