"""Help from inside: some heads learn to look at the true match, linear readers learn geometry from middle layers.

Nothing of this is part of the shipped model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spark3r.attention import Attention, Kernel
from spark3r.geometry import matrix_from_quaternion
from spark3r.models.network import Network

from .losses import rotation_gap
from .targets import Targets, inverse

MATCHING_HEAD, REFERENCE_HEAD = 0, 1
WATCHED_FRAMES = (
    12  # of longer clips only so many frames' attention is watched: it would cost more than the clip itself
)


class WatchedKernel(Kernel):
    """Stands in for a block's attention kernel while training, and keeps scaled queries and keys if asked.

    On a CPU it works by plain matrix products, which are faster forward and backward than the fused kernel.
    """

    def __init__(self, original: Kernel, keep: bool):
        super().__init__(original.length_gain, original.length_reference)
        self.keep = keep
        self.kept: tuple[Tensor, Tensor] | None = None

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # [B, h, N, D]
        growth = max(0.0, math.log(k.shape[2] / self.length_reference))
        scaled = q * (q.shape[-1] ** -0.5 * (1.0 + self.length_gain * growth))
        if self.keep:
            self.kept = (scaled, k)
        if q.device.type != "cpu":
            return super().forward(q, k, v)
        return torch.softmax(scaled @ k.transpose(-1, -2), dim=-1) @ v


@dataclass(frozen=True)
class Matches:
    """Where the patch centres of every frame are seen in every other frame."""

    place: (
        Tensor  # [B, S, S, P, 2] column and row in patches (0 = centre of the first), of frame i's patches in frame j
    )
    seen: Tensor  # [B, S, S, P] bool
    points: Tensor  # [B, S, P, 3] world points at the patch centres


def matches_of(truth: Targets, patch: int, tolerance: float = 0.05) -> Matches:
    """Project every patch centre into every frame; visible where the depth there agrees within 5 %."""
    half = slice(patch // 2, None, patch)
    points = truth.points[:, :, half, half].flatten(2, 3)
    camera = inverse(truth.world_from_camera)
    local = torch.einsum("bjkl,bipl->bijpk", camera[..., :3, :3], points) + camera[:, None, :, None, :3, 3]
    k = truth.intrinsics[:, None, :, None]
    z = local[..., 2].clamp_min(1e-3)
    u = k[..., 0, 0] * local[..., 0] / z + k[..., 0, 2]
    v = k[..., 1, 1] * local[..., 1] / z + k[..., 1, 2]
    height, width = truth.depth.shape[-2:]
    inside = (u > 0) & (u < width - 1) & (v > 0) & (v < height - 1) & (local[..., 2] > 1e-3)
    pixel = v.round().clamp(0, height - 1).long() * width + u.round().clamp(0, width - 1).long()
    there = truth.depth.flatten(2)[:, None].expand(-1, u.shape[1], -1, -1).gather(3, pixel)
    seen = inside & ((there - z).abs() < tolerance * z)
    return Matches(torch.stack([u, v], -1).sub(patch // 2).div(patch), seen, points)


def gathered(log_share: Tensor, place: Tensor, columns: int, rows: int) -> Tensor:
    """Expected log attention [..., P] at bilinear places [..., P, 2], from log_share [..., P, rows·columns]."""
    x = place[..., 0].clamp(0, columns - 1)
    y = place[..., 1].clamp(0, rows - 1)
    left, top = x.floor().clamp_max(columns - 2), y.floor().clamp_max(rows - 2)
    a, b = x - left, y - top
    first = (top * columns + left).long()
    index = torch.stack([first, first + 1, first + columns, first + columns + 1], -1)
    weight = torch.stack([(1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b], -1)
    return (log_share.gather(-1, index) * weight).sum(-1)


def watched(frames: int, offset: int = 0) -> slice:
    """Evenly spaced frames, WATCHED_FRAMES at most; other offsets, other frames."""
    step = -(-frames // WATCHED_FRAMES)
    return slice(offset % step, None, step)


class Supervision(nn.Module):
    """Watches a network's middle layers during training and says how wrong they are."""

    def __init__(
        self, network: Network, matching: tuple[int, ...], reference: tuple[int, ...], auxiliary: tuple[int, ...]
    ):
        super().__init__()
        self.matching, self.reference, self.auxiliary = matching, reference, auxiliary
        self.patch, self.special = network.config.patch, network.config.tokens.special
        self.kernels: dict[int, WatchedKernel] = {}
        for i, block in enumerate(network.trunk.blocks):
            attention = block.attn
            assert isinstance(attention, Attention)
            self.kernels[i] = WatchedKernel(attention.kernel, keep=i in matching + reference)
            attention.kernel = self.kernels[i]
        self.read: dict[int, Tensor] = {}
        for i in auxiliary:
            network.trunk.blocks[i].register_forward_hook(self._reader(i))
        width = network.config.width
        self.patch_readers = nn.ModuleDict(
            {str(i): nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 5)) for i in auxiliary}
        )
        self.pose_readers = nn.ModuleDict(
            {str(i): nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 7)) for i in auxiliary}
        )

    def _reader(self, index: int) -> Callable[[nn.Module, tuple, Tensor], None]:
        """A forward hook that keeps a block's tokens."""

        def keep(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            self.read[index] = output

        return keep

    def losses(self, truth: Targets) -> dict[str, Tensor]:
        """Losses of the forward pass just made."""
        matches = matches_of(truth, self.patch)
        grid = (truth.depth.shape[-2] // self.patch, truth.depth.shape[-1] // self.patch)
        parts = {
            "matching": [self._matching(i, matches, grid) for i in self.matching],
            "reference": [self._reference(i, matches, grid, truth.reference) for i in self.reference],
            "auxiliary": [self._auxiliary(i, matches, grid, truth) for i in self.auxiliary],
        }
        return {name: torch.stack(values).mean() for name, values in parts.items() if values}

    def _kept(self, index: int, head: int, frames: int) -> tuple[Tensor, Tensor]:
        """Scaled queries and keys [B, S, special + P, D] of one head."""
        kept = self.kernels[index].kept
        assert kept is not None, "losses() needs a forward pass first"
        q, k = (x[:, head].unflatten(1, (frames, -1)) for x in kept)
        return q, k

    def _matching(self, index: int, matches: Matches, grid: tuple[int, int]) -> Tensor:
        """Within each other frame, the head's attention belongs on the matching patch."""
        frames = matches.seen.shape[1]
        some = watched(frames, offset=index)
        q, k = (x[:, some, self.special :] for x in self._kept(index, MATCHING_HEAD, frames))
        scores = torch.einsum("bipd,bjqd->bijpq", q, k).float()
        found = gathered(scores.log_softmax(-1), matches.place[:, some, some], grid[1], grid[0])
        other = ~torch.eye(found.shape[1], dtype=torch.bool, device=found.device)[None, :, :, None]
        seen = matches.seen[:, some, some] & other
        return -(found * seen).sum() / seen.sum().clamp_min(1)

    def _reference(self, index: int, matches: Matches, grid: tuple[int, int], reference: int) -> Tensor:
        """Among all tokens, the head's attention belongs on the match in the reference frame."""
        frames = matches.seen.shape[1]
        some = watched(frames, offset=index)
        q, k = self._kept(index, REFERENCE_HEAD, frames)
        q = q[:, some, self.special :]
        everything = (q.flatten(1, 2) @ k.flatten(1, 2).transpose(1, 2)).float().logsumexp(-1)
        scores = torch.einsum("bipd,bqd->bipq", q, k[:, reference, self.special :]).float()
        share = scores - everything.unflatten(1, (q.shape[1], -1))[..., None]
        found = gathered(share, matches.place[:, some, reference], grid[1], grid[0])
        seen = matches.seen[:, :, reference].clone()
        seen[:, reference] = False
        seen = seen[:, some]
        return -(found * seen).sum() / seen.sum().clamp_min(1)

    def _auxiliary(self, index: int, matches: Matches, grid: tuple[int, int], truth: Targets) -> Tensor:
        """Linear readers: world point and flow to the reference from patches, pose from the camera token."""
        frames = truth.depth.shape[1]
        tokens = self.read[index].float().reshape(len(truth.depth), frames, -1, self.read[index].shape[-1])
        point, flow = self.patch_readers[str(index)](tokens[:, :, self.special :]).float().split((3, 2), -1)
        wanted = matches.points
        lost = (((point - wanted).norm(dim=-1)) / (0.5 + wanted.norm(dim=-1))).mean()
        scale = torch.tensor([grid[1], grid[0]], device=flow.device)
        there = matches.place[:, :, truth.reference] / scale - 0.5
        seen = matches.seen[:, :, truth.reference]
        lost = lost + ((flow - there).norm(dim=-1) * seen).sum() / seen.sum().clamp_min(1)
        centre, quaternion = self.pose_readers[str(index)](tokens[:, :, 0]).float().split((3, 4), -1)
        turn = matrix_of(quaternion)
        lost = lost + rotation_gap(turn, truth.world_from_camera[..., :3, :3]).mean()
        return lost + (centre - truth.world_from_camera[..., :3, 3]).norm(dim=-1).mean()


def matrix_of(quaternion: Tensor) -> Tensor:
    """Rotation [..., 3, 3] of a reading [..., 4] whose zero means no turn."""
    ahead = quaternion.new_tensor([0.0, 0.0, 0.0, 1.0])
    return matrix_from_quaternion(F.pad(quaternion[..., :3], (0, 1)) + ahead + F.pad(quaternion[..., 3:], (3, 0)))
