"""Dense head of the small model: patch tokens and fine stem features → depth and confidence for every pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spark3r.attention import Linear
from spark3r.models.encoder import Residual


class DenseHead(nn.Module):
    """Tokens are spread over a map of half their spacing, enlarged to a quarter of the resolution, joined with the
    stem's features and refined by convolutions; the last one, in float32, writes 4 × 4 pixels at a time."""

    def __init__(self, width: int, stem_width: int, head_width: int, taps: int):
        super().__init__()
        self.norm = nn.LayerNorm(2 * width * taps)
        self.spread = Linear(2 * width * taps, head_width * 4)
        self.coarse = Residual(head_width)
        self.join = nn.Conv2d(head_width + stem_width, head_width, 1)
        self.refine = nn.Sequential(Residual(head_width), Residual(head_width))
        self.out = nn.Conv2d(head_width, 2 * 4 * 4, 3, padding=1)

    def forward(
        self,
        tokens: Tensor,  # [S, h·w, 2C · taps]
        grid: tuple[int, int],
        skip: Tensor,  # [S, stem, H/4, W/4]
    ) -> tuple[Tensor, Tensor]:  # depth [S, H, W] > 0, confidence logit [S, H, W]
        x = self.spread(self.norm(tokens)).transpose(1, 2).unflatten(2, grid)
        x = self.coarse(F.pixel_shuffle(x, 2))  # [S, head, 2h, 2w]
        x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
        x = self.refine(self.join(torch.cat((x, skip.to(x.dtype)), dim=1)))
        log_depth, confidence = F.pixel_shuffle(self.out(F.gelu(x).float()), 4).unbind(1)
        return log_depth.clamp(-8, 8).exp(), confidence
