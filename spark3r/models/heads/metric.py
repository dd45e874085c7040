"""How many metres a unit of a model's own scale is, said of the whole clip."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spark3r.attention import Linear, Rotation
from spark3r.models.blocks import Mlp, grid_rotation
from spark3r.models.config import DecoderConfig, ModelConfig
from spark3r.models.heads.points import ExactLinear, joined
from spark3r.tokens import WholeClip

_FRAMES_AT_ONCE = 8


class MetricHead(nn.Module):
    """Pi3X: one learned token attends to every token of the clip, several times over.

    Where frames are spread over ranks only scores and sums of each frame travel.
    """

    def __init__(self, config: ModelConfig, metric: DecoderConfig):
        super().__init__()
        self.special, self.head_dim = config.tokens.special, metric.width // metric.heads
        self.token = nn.Parameter(torch.zeros(1, 1, 2 * config.width))
        self.project_token = Linear(2 * config.width, metric.width)
        self.project = Linear(2 * config.width, metric.width)
        self.blocks = nn.ModuleList(_CrossBlock(metric.width, metric.heads) for _ in range(metric.depth))
        self.out = Linear(metric.width, metric.width)
        self.log_metres = ExactLinear(metric.width, 1)

    def forward(self, parts: tuple[Tensor, ...], grid: tuple[int, int], clip: WholeClip) -> Tensor:
        """Parts [B, S, …] of the tap, as the point head reads it, of the frames held here → metres per unit [B], of the
        whole clip."""
        device = self.token.device
        rotation = grid_rotation(grid, self.special, self.head_dim, device)
        chunks = zip(*(part.split(_FRAMES_AT_ONCE, dim=1) for part in parts), strict=True)
        tokens = (joined([part.to(device, non_blocking=True) for part in chunk]) for chunk in chunks)
        context = torch.cat([self.project(some) for some in tokens], dim=1)
        x = self.project_token(self.token[:, 0]).float().expand(len(context), -1)
        for block in self.blocks:
            x = block(x, context, rotation, clip)
        return self.log_metres(self.out(x).float())[:, 0].exp()


class _CrossBlock(nn.Module):
    """Pre-norm: attention of one token to a context, then an MLP. The token stands where special tokens do, so that
    its query is not rotated."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm, self.context_norm, self.mlp_norm = (nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.query, self.key, self.value, self.proj = (Linear(width, width) for _ in range(4))
        self.mlp = Mlp(width, 4 * width)

    def forward(
        self,
        x: Tensor,  # [B, C]
        context: Tensor,  # [B, S, P, C] of the frames held here
        rotation: Rotation,  # [P, D]
        clip: WholeClip,
    ) -> Tensor:  # [B, C]
        frames = [self.context_norm(some.float()) for some in context.split(_FRAMES_AT_ONCE, dim=1)]
        query = self.query(self.norm(x)).float().unflatten(-1, (self.heads, 1, -1))[:, None]  # [B, 1, h, 1, D]
        query = query * query.shape[-1] ** -0.5
        scores = torch.cat(
            [query @ rotation.apply(self._framed(self.key(some))).mT for some in frames], dim=1
        )  # [B, S, h, 1, P]
        total = clip.gather(scores).logsumexp(dim=(1, 4), keepdim=True)
        weights = (scores - total).exp().split(_FRAMES_AT_ONCE, dim=1)
        sums = [weight @ self._framed(self.value(some)) for weight, some in zip(weights, frames, strict=True)]
        attended = clip.gather(torch.cat(sums, dim=1)).sum(1).flatten(1)
        x = x + self.proj(attended)
        return x + self.mlp(self.mlp_norm(x))

    def _framed(self, x: Tensor) -> Tensor:  # [B, F, P, C] → [B, F, h, P, D] float32
        return x.float().unflatten(-1, (self.heads, -1)).transpose(2, 3)
