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
        destinations = [
            other
            for other in range(group * group_size, min((group + 1) * group_size, layout.frames))
            if other % group_size % factor == 0
        ]
        last = max(number for number, other in enumerate(destinations) if other < frame)
        candidates = [
            other * layout.per_frame + layout.special + patch
            for other in destinations[last:] + destinations[:last]
            for patch in range(layout.patches)
        ]
        for patch in range(layout.patches):
            token = frame * layout.per_frame + layout.special + patch
            similarity = [
                float(x[token] @ x[other]) / max(float(x[token].norm() * x[other].norm()), 1e-12)
                for other in candidates
            ]
            for number in range(patch, len(candidates), layout.patches):
                similarity[number] *= 1 + 1e-7  # the same place is preferred
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


def cell_slots(x: Tensor, layout: TokenLayout, chosen: Tensor, group_size: int) -> tuple[list[int], list[int]]:
    """As `merge_slots`, into the patches chosen [S, h·w] of the own group and of the reference frame."""
    destination_of = list(range(layout.total))

    def token(frame: int, patch: int) -> int:
        return frame * layout.per_frame + layout.special + patch

    anchors = [token(layout.reference, patch) for patch in range(layout.patches)]  # pyright: ignore[reportArgumentType]
    for frame in range(layout.frames):
        group = frame // group_size
        near = [
            token(other, patch)
            for other in range(group * group_size, min((group + 1) * group_size, layout.frames))
            for patch in range(layout.patches)
            if chosen[other, patch] and other != layout.reference
        ]
        for patch in range(layout.patches):
            if not chosen[frame, patch]:
                one = x[token(frame, patch)]
                similarity = [float(one @ x[other]) / float(x[other].norm()) for other in anchors + near]
                destination_of[token(frame, patch)] = (anchors + near)[similarity.index(max(similarity))]
    return destination_of, sorted(set(destination_of))


def grid_tokens(layout: TokenLayout, tile: tuple[int, int], shifting: bool) -> list[int]:
    """Tokens that remain as keys/values on a grid, which may shift with the frame."""
    kept = []
    for frame in range(layout.frames):
        row_phase, column_phase = (frame // tile[1] % tile[0], frame % tile[1]) if shifting else (0, 0)
        for place in range(layout.per_frame):
            row, column = divmod(place - layout.special, layout.grid[1])
            on_grid = row % tile[0] == row_phase and column % tile[1] == column_phase
            if place < layout.special or frame == layout.reference or on_grid:
                kept.append(frame * layout.per_frame + place)
    return kept


def anchored_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, kept: list[int]) -> Tensor:
    """Each query over the kept keys, its own, and the mean of the dropped ones: q, k, v [N, D] of one head."""
    dropped = [token for token in range(len(k)) if token not in kept]
    rows = []
    for row in range(len(q)):
        seen = kept + ([] if row in kept else [row])
        keys, values = [k[token] for token in seen], [v[token] for token in seen]
        if dropped:
            keys.append(k[dropped].mean(0))
            values.append(v[dropped].mean(0))
        rows.append(attention(q[row : row + 1], torch.stack(keys), torch.stack(values), scale)[0])
    return torch.stack(rows)
