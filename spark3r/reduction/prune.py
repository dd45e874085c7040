"""Key/value pruning by temporal stride (choices 1 and 2 in reduce.py)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from spark3r.tokens import TokenLayout


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # so that indices made while reconstructing serve gradients too
def kept_context(layout: TokenLayout, factor: int, device: torch.device) -> Tensor:
    """Tokens that stay keys/values, [K] int64: every special, the patches of each factor-th frame and the reference.

    Frame 0 is always among them. Similar keys/values are so alike (cosine above 0.9) that averaging them would change
    nothing worth its cost; on small models it even harms.
    """
    kept_frames = (torch.arange(layout.frames) + layout.first) % factor == 0
    if layout.reference is not None:
        kept_frames[layout.reference] = True
    return layout.keep_patches_of(kept_frames).nonzero()[:, 0].to(device)
