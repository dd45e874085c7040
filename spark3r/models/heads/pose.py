"""Camera heads that say a pose as [translation 3 | quaternion xyzw 4 | fields of view vertical, horizontal 2]."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spark3r.attention import Linear
from spark3r.geometry import matrix_from_quaternion
from spark3r.models.blocks import Block, Mlp
from spark3r.models.config import BlockConfig, ModelConfig, RefiningCamera, RegisterCamera, TokenCamera
from spark3r.models.heads.camera import Cameras, intrinsics_from_fov, inverse_rigid, rigid

_BLOCK = BlockConfig("global", rope=None, qk_norm=False)
_SMALLEST_FOV_OMEGA = 0.01  # radians
_SMALLEST_TAN = 1e-6


class RefiningCameraHead(nn.Module):
    """VGGT: the pose so far modulates the camera tokens, which attend to each other and say how to change the pose."""

    stays_float32 = True

    def __init__(self, config: ModelConfig, camera: RefiningCamera):
        super().__init__()
        width = 2 * config.width
        self.iterations = camera.iterations
        self.token_norm = nn.LayerNorm(width, eps=1e-5)
        self.first_pose = nn.Parameter(torch.zeros(1, 1, 9))
        self.embed_pose = Linear(9, width)
        self.modulation = Linear(width, 3 * width)
        self.blocks = nn.ModuleList(Block(width, camera.heads, _BLOCK) for _ in range(camera.depth))
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.change = Mlp(width, width // 2, 9)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Cameras:  # tokens: [B, S, special, 2C] of the last tap
        token = self.token_norm(tokens[:, :, 0].float())
        plain = F.layer_norm(token, token.shape[-1:], eps=1e-6)
        pose, raw = self.first_pose, torch.zeros_like(token[..., :9])
        for _ in range(self.iterations):
            shift, scale, gate = self.modulation(F.silu(self.embed_pose(pose))).chunk(3, dim=-1)
            x = token + gate * (plain * (1 + scale) + shift)
            for block in self.blocks:
                x = block(x)
            pose = raw = raw + self.change(self.norm(x))
        return cameras_from_world(torch.cat((raw[..., :7], F.relu(raw[..., 7:])), dim=-1), size)


class RegisterCameraHead(nn.Module):
    """VGGT-Ω: the camera and register tokens of all frames attend to each other, once."""

    stays_float32 = True

    def __init__(self, config: ModelConfig, camera: RegisterCamera):
        super().__init__()
        width = 2 * config.width
        self.special = config.tokens.special
        self.token_norm = nn.LayerNorm(width, eps=1e-5)
        self.blocks = nn.ModuleList(Block(width, camera.heads, _BLOCK) for _ in range(camera.depth))
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.branch = Mlp(width, width // 2, 9)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Cameras:  # tokens: [B, S, special, 2C] of the last tap
        x = self.token_norm(tokens.float()).flatten(1, 2)
        for block in self.blocks:
            x = block(x)
        raw = self.branch(self.norm(x[:, :: self.special]))
        fov = F.relu(raw[..., 7:]) + _SMALLEST_FOV_OMEGA
        return cameras_from_world(torch.cat((raw[..., :7], fov), dim=-1), size)


class TokenCameraHead(nn.Module):
    """Depth Anything 3: each camera token through an MLP; the pose stands in the reference frame's world."""

    stays_float32 = True

    def __init__(self, config: ModelConfig, camera: TokenCamera):
        super().__init__()
        width = 2 * config.width
        self.hidden = nn.Sequential(Linear(width, width), nn.ReLU(), Linear(width, width), nn.ReLU())
        self.pose = nn.ModuleDict(
            OrderedDict(translation=Linear(width, 3), quaternion=Linear(width, 4), fov=Linear(width, 2))
        )

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Cameras:  # tokens: [B, S, special, 2C] of the last tap
        x = self.hidden(tokens[:, :, 0].float())
        translation, quaternion, fov = (layer(x) for layer in self.pose.values())
        fov = F.relu(fov)
        world_from_camera = rigid(matrix_from_quaternion(quaternion), translation)
        intrinsics = intrinsics_from_fov(fov, size, _middle(size), _SMALLEST_TAN)
        return Cameras(torch.cat((translation, quaternion, fov), dim=-1), world_from_camera, intrinsics)


def cameras_from_world(pose: Tensor, size: tuple[int, int]) -> Cameras:
    """Cameras of a pose [B, S, 9] that takes world points into the camera."""
    world_from_camera = inverse_rigid(matrix_from_quaternion(pose[..., 3:7]), pose[..., :3])
    fov = pose[..., 7:].clamp_min(2 * _SMALLEST_TAN)
    return Cameras(pose, world_from_camera, intrinsics_from_fov(fov, size, _middle(size)))


def _middle(size: tuple[int, int]) -> tuple[float, float]:
    """The principal point (x, y) of these families: half the width and height, with pixel centres at whole numbers."""
    return size[1] / 2, size[0] / 2
