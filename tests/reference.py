"""Slow twins: the method as plain loops over tokens, for the fast paths to be held against."""

import math

import torch
from torch import Tensor

from spark3r.tokens import TokenLayout


def merge_slots(x: Tensor, layout: TokenLayout, factor: int, group_size: int) -> tuple[list[int], list[int]]:
    """(destination token of every token, destinations in order) for x [N, C], one token at a time."""
    destination_of = list(range(layout.total))
    for frame in range(layout.frames):
        group = frame // group_size
        if frame % group_size % factor == 0:
            continue
        candidates = [
            other * layout.per_frame + layout.special + patch
            for other in range(group * group_size, min((group + 1) * group_size, layout.frames))
            if other % group_size % factor == 0
            for patch in range(layout.patches)
        ]
        for patch in range(layout.patches):
            token = frame * layout.per_frame + layout.special + patch
            similarity = [
                float(x[token] @ x[other]) / max(float(x[token].norm() * x[other].norm()), 1e-12)
                for other in candidates
            ]
            destination_of[token] = candidates[similarity.index(max(similarity))]
    return destination_of, sorted(set(destination_of))


def kept_tokens(layout: TokenLayout, factor: int) -> list[int]:
    """Tokens that remain as keys/values."""
    kept = []
    for frame in range(layout.frames):
        for place in range(layout.per_frame):
            is_special = place < layout.special
            if is_special or frame % factor == 0 or frame == layout.reference:
                kept.append(frame * layout.per_frame + place)
    return kept


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(q kᵀ · scale) v for one head: q [M, D], k and v [K, D]."""
    out = torch.zeros(len(q), v.shape[1], dtype=v.dtype)
    for row in range(len(q)):
        weights = [math.exp(float(q[row] @ k[column]) * scale) for column in range(len(k))]
        for column, weight in enumerate(weights):
            out[row] += weight / sum(weights) * v[column]
    return out
