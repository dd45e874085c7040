"""Which extensions for fast matrix products the processor has."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")  # the last one is Arm's


@cache
def extensions() -> frozenset[str]:
    """Names of processor features as torch tells them or, where an older torch does not, Linux; else none."""
    ask = getattr(torch.cpu, "get_capabilities", None)
    if ask is not None:
        return frozenset(name for name, there in ask().items() if there is True)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    flags = (line.partition(":")[2] for line in lines if line.partition(":")[0].strip() in ("flags", "Features"))
    return frozenset(next(flags, "").split())
