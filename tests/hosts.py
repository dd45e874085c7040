"""Small stand-ins with the parts, names and call signatures of the official classes, for the plug-in's tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH, HEADS = 16, 2


class Rope(nn.Module):
    """Turns each half of the head by the row or the column of its token."""

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        assert positions.ndim == 3
        assert positions.shape[1] == tokens.shape[2], "one position per token"
        turned = []
        for part, place in zip(tokens.chunk(2, dim=-1), positions.unbind(-1), strict=True):
            a, b = part.chunk(2, dim=-1)
            angle = place[:, None, :, None] * torch.tensor([1.0, 0.1][: a.shape[-1]])
            turned += [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()]
        return torch.cat(turned, dim=-1)


class Attention(nn.Module):
    def __init__(self, rope: nn.Module | None, norm: bool = True):
        super().__init__()
        self.num_heads = HEADS
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.q_norm = nn.LayerNorm(WIDTH // HEADS) if norm else nn.Identity()
        self.k_norm = nn.LayerNorm(WIDTH // HEADS) if norm else nn.Identity()
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.proj_drop = nn.Dropout(0.0)
        self.rope = rope

    def attend(self, x: Tensor, pos: Tensor | None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rope is not None and pos is not None:
            q, k = self.rope(q, pos), self.rope(k, pos)
        out = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))


class PosAttention(Attention):
    def forward(self, x: Tensor, pos: Tensor | None = None) -> Tensor:
        return self.attend(x, pos)


class XposAttention(Attention):
    def forward(self, x: Tensor, attn_bias: Tensor | None = None, xpos: Tensor | None = None) -> Tensor:
        return self.attend(x, xpos)


class MaskAttention(Attention):
    def forward(self, x: Tensor, pos: Tensor | None = None, attn_mask: Tensor | None = None) -> Tensor:
        return self.attend(x, pos)


class MaskedBiasLinear(nn.Linear):
    """A fused projection whose stored mask says which biases count."""

    bias_mask: Tensor

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.register_buffer("bias_mask", torch.arange(outputs) % 2.0)

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.weight, self.bias * self.bias_mask)


class RopeAttention(Attention):
    def __init__(self):
        super().__init__(None)
        self.qkv = MaskedBiasLinear(WIDTH, 3 * WIDTH)

    def forward(self, x: Tensor, attn_bias: Tensor | None = None, rope: Tensor | None = None) -> Tensor:
        return self.attend(x, None)


class Block(nn.Module):
    def __init__(self, attn: nn.Module):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(WIDTH), attn

    def forward(self, x: Tensor, **where: Tensor | None) -> Tensor:
        return x + self.attn(self.norm1(x), **where)


class Tokens(nn.Module):
    """Specials and patches of every frame with their grid positions; patch size 2."""

    def __init__(self, special: int, flat: bool = False):
        super().__init__()
        self.special = nn.Parameter(torch.randn(special, WIDTH))
        self.embed = nn.Conv2d(3, WIDTH, 2, 2)
        self.flat = flat

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # → [B, S, P, C], [B, S, P, 2]
        batch, frames, _, height, width = images.shape
        patches = self.embed(images.flatten(0, 1)).flatten(2).transpose(1, 2).unflatten(0, (batch, frames))
        special = self.special.expand(batch, frames, -1, -1)
        place = torch.cartesian_prod(torch.arange(1, height // 2 + 1), torch.arange(1, width // 2 + 1))
        place = torch.ones_like(place) if self.flat else place
        place = torch.cat((torch.zeros(len(self.special), 2, dtype=torch.int64), place))
        return torch.cat((special, patches), dim=2), place.expand(batch, frames, -1, -1)


class Aggregator(nn.Module):
    def __init__(self, depth: int):
        super().__init__()
        self.patch_start_idx, self.patch_size = 3, 2
        self.tokens, rope = Tokens(3), Rope()
        self.frame_blocks = nn.ModuleList(Block(PosAttention(rope)) for _ in range(depth))
        self.global_blocks = nn.ModuleList(Block(PosAttention(rope)) for _ in range(depth))

    def forward(self, images: Tensor) -> Tensor:
        x, pos = self.tokens(images)
        for frame, every in zip(self.frame_blocks, self.global_blocks, strict=True):
            x = frame(x.flatten(0, 1), pos=pos.flatten(0, 1)).reshape(x.shape)
            x = every(x.flatten(1, 2), pos=pos.flatten(1, 2)).reshape(x.shape)
        return x


class VGGT(nn.Module):
    def __init__(self, depth: int = 3):
        super().__init__()
        self.aggregator = Aggregator(depth)

    def forward(self, images: Tensor) -> Tensor:
        return self.aggregator(images if images.ndim == 5 else images[None])


class Pi3(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_start_idx, self.patch_size = 5, 2
        self.tokens, rope = Tokens(5), Rope()
        self.decoder = nn.ModuleList(Block(XposAttention(rope)) for _ in range(4))

    def forward(self, imgs: Tensor) -> Tensor:
        x, pos = self.tokens(imgs)
        for index, block in enumerate(self.decoder):
            first, last = (0, 1) if index % 2 == 0 else (1, 2)
            x = block(x.flatten(first, last), xpos=pos.flatten(first, last)).reshape(x.shape)
        return x


class Pi3X(Pi3):
    """Its trunk is π³'s; what may condition it stays outside of the global layers."""


class Backbone(nn.Module):
    """Puts the last frame first from block `alt_start` on, as reference selection would."""

    def __init__(self, alt_start: int):
        super().__init__()
        self.alt_start, self.num_register_tokens, self.patch_size = alt_start, 0, 2
        self.tokens, self.norm, rope = Tokens(1, flat=True), nn.LayerNorm(WIDTH), Rope()
        self.blocks = nn.ModuleList(Block(MaskAttention(rope)) for _ in range(6))

    def run(self, images: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        x, pos = self.tokens(images)
        for index, block in enumerate(self.blocks):
            if index == self.alt_start - 1:
                x = x.roll(1, dims=1)
            everywhere = self.alt_start != -1 and index >= self.alt_start and index % 2 == 1
            first, last = (1, 2) if everywhere else (0, 1)
            mask = attn_mask if everywhere else None
            x = block(x.flatten(first, last), pos=pos.flatten(first, last), attn_mask=mask).reshape(x.shape)
        return x.roll(-1, dims=1)


class DinoV2(nn.Module):
    def __init__(self, alt_start: int):
        super().__init__()
        self.pretrained = Backbone(alt_start)

    def forward(self, x: Tensor, **kwargs: Tensor | None) -> Tensor:
        return self.pretrained.run(x, **kwargs)  # a method, not the module's own call


class DepthAnything3Net(nn.Module):
    def __init__(self, alt_start: int = 2):
        super().__init__()
        self.backbone = DinoV2(alt_start)

    def forward(self, x: Tensor, **kwargs: Tensor | None) -> Tensor:
        return self.backbone(x, **kwargs)


class DepthAnything3(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = DepthAnything3Net()

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image)


class OmegaAggregator(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_token_start, self.patch_size = 4, 2
        self.inter_frame_attention_types = ["global", "register", "global"]
        self.tokens = Tokens(4)
        self.inter_frame_blocks = nn.ModuleList(Block(RopeAttention()) for _ in range(3))

    def forward(self, images: Tensor) -> Tensor:
        x, _ = self.tokens(images)
        for block, kind in zip(self.inter_frame_blocks, self.inter_frame_attention_types, strict=True):
            if kind == "global":
                x = block(x.flatten(1, 2), rope=None).reshape(x.shape)
            else:
                special = x[:, :, : self.patch_token_start]
                special = block(special.flatten(1, 2), rope=None).reshape(special.shape)
                x = torch.cat((special, x[:, :, self.patch_token_start :]), dim=2)
        return x


class VGGTOmega(nn.Module):
    def __init__(self):
        super().__init__()
        self.aggregator = OmegaAggregator()

    def forward(self, images: Tensor) -> Tensor:
        return self.aggregator(images)
