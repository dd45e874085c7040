"""What a dense head predicts; the dense head of the small model."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spark3r.attention import Linear
from spark3r.models.config import ModelConfig, StemConfig, StemDense
from spark3r.models.encoder import Residual
from spark3r.models.tapped import Tapped


class Dense(NamedTuple):
    """Depth and confidence of some frames."""

    depth: Tensor  # [F, H, W] z-depth > 0
    confidence_logit: Tensor  # [F, H, W]; confidence = sigmoid(logit), in (0, 1)
    intrinsics: Tensor | None = None  # [F, 3, 3] pixels, where the camera head does not give them


class ExactConv(nn.Conv2d):
    """A convolution that stays in float32."""

    stays_float32 = True


class DenseHead(nn.Module):
    """Tokens are spread over a map of half their spacing, enlarged to a quarter of the resolution, joined with the
    stem's features and refined by convolutions; the last one, in float32, writes 4 × 4 pixels at a time."""

    def __init__(self, config: ModelConfig, dense: StemDense):
        super().__init__()
        assert isinstance(config.encoder, StemConfig)
        tapped, width = 2 * config.width * len(config.taps), dense.width
        self.special = config.tokens.special
        self.norm = nn.LayerNorm(tapped)
        self.spread = Linear(tapped, width * 4)
        self.coarse = Residual(width)
        self.join = nn.Conv2d(width + config.encoder.width, width, 1)
        self.refine = nn.Sequential(Residual(width), Residual(width))
        self.out = ExactConv(width, 2 * 4 * 4, 3, padding=1)

    def read(self, tap: int, tapped: Tapped) -> tuple[Tensor, ...]:
        """All of the patches, [B, F, h·w, C] twice: the norm that follows sees every tap."""
        return tapped.local, tapped.whole

    def forward(
        self,
        taps: list[tuple[Tensor, ...]],  # [F, h·w, C] twice each, as read
        grid: tuple[int, int],
        skip: Tensor,  # [F, stem, H/4, W/4]
    ) -> Dense:
        tokens = torch.cat([half for tap in taps for half in tap], dim=-1).float()
        x = self.spread(self.norm(tokens)).transpose(1, 2).unflatten(2, grid)
        x = self.coarse(F.pixel_shuffle(x, 2))  # [F, head, 2h, 2w]
        x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
        x = self.refine(self.join(torch.cat((x, skip.to(x.dtype)), dim=1)))
        log_depth, confidence = F.pixel_shuffle(self.out(F.gelu(x).float()), 4).unbind(1)
        return Dense(log_depth.clamp(-8, 8).exp(), confidence)
