"""A whole network: encoder → trunk → heads. It knows no device, no file, no schedule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from spark3r.attention import Linear, Planner, dense
from spark3r.models.blocks import initialise
from spark3r.models.config import ModelConfig
from spark3r.models.encoder import Encoded, StemEncoder
from spark3r.models.heads.camera import CameraHead, intrinsics_from_fov, world_from_camera
from spark3r.models.heads.dense import DenseHead
from spark3r.models.trunk import Trunk


class Cameras(NamedTuple):
    """Poses and intrinsics of every frame."""

    pose: Tensor  # [B, S, 9] raw: centre | quaternion xyzw | fov vertical, horizontal (radians)
    world_from_camera: Tensor  # [B, S, 4, 4]
    intrinsics: Tensor  # [B, S, 3, 3] pixels


class Prediction(NamedTuple):
    """What a network says of a clip."""

    depth: Tensor  # [B, S, H, W] z-depth, in the units of the poses
    confidence_logit: Tensor  # [B, S, H, W]; confidence = sigmoid
    pose: Tensor  # [B, S, 9]
    world_from_camera: Tensor  # [B, S, 4, 4]
    intrinsics: Tensor  # [B, S, 3, 3]


class Network(nn.Module):
    """One model family at one size; `encode`, `trunk`, `cameras` and `dense` are the steps, `forward` runs them all."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.encoder = StemEncoder(config)
        self.trunk = Trunk(config)
        self.camera_head = CameraHead(config.width)
        self.dense_head = DenseHead(config.width, config.stem_width, config.head_width, taps=len(config.taps))

    def forward(self, images: Tensor, plan: Planner = dense) -> Prediction:
        """images [B, S, 3, H, W] in [0, 1], H and W multiples of the patch."""
        batch, frames, _, height, width = images.shape
        flat = images.flatten(0, 1)
        encoded = self.encoder(flat)
        layout = self.trunk.layout(frames, self.grid(height, width))
        taps = self.trunk(encoded.patches, layout, plan)
        cameras = self.cameras(taps, height, width)
        depth, confidence = self.dense(taps, encoded.skip, slice(None))
        return Prediction(
            depth.unflatten(0, (batch, frames)), confidence.unflatten(0, (batch, frames)), *cameras
        )

    def encode(self, images: Tensor) -> Encoded:  # [S, 3, H, W]
        return self.encoder(images)

    def cameras(self, taps: list[Tensor], height: int, width: int) -> Cameras:
        """From the camera token of the last tap."""
        pose = self.camera_head(taps[-1][:, :, 0])
        return Cameras(pose, world_from_camera(pose), intrinsics_from_fov(pose[..., 7:], height, width))

    def dense(self, taps: list[Tensor], skip: Tensor, frames: slice) -> tuple[Tensor, Tensor]:
        """Depth and confidence logit [F, H, W] of some frames; skip holds the stem's features of the same frames."""
        special = self.config.tokens.special
        tokens = torch.cat([tap.flatten(0, 1)[frames, special:] for tap in taps], dim=-1)
        grid = (skip.shape[-2] * 4 // self.config.patch, skip.shape[-1] * 4 // self.config.patch)
        return self.dense_head(tokens, grid, skip)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return height // self.config.patch, width // self.config.patch

    def set_dtype(self, dtype: torch.dtype) -> Network:
        """Linear and convolution weights in `dtype`; norms, positions, cameras and the last layer of depth stay
        float32, as geometry needs it."""
        for layer in self._fast_layers():
            layer.to(dtype)
        return self

    def _fast_layers(self) -> Iterator[nn.Module]:
        for part in (self.encoder, self.trunk, self.dense_head):
            for layer in part.modules():
                if isinstance(layer, Linear | nn.Conv2d) and layer is not self.dense_head.out:
                    yield layer

    @property
    def device(self) -> torch.device:
        return self.trunk.special.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the fast layers' weights."""
        return next(self._fast_layers()).weight.dtype


def build(config: ModelConfig) -> Network:
    """A network with fresh random weights."""
    network = Network(config)
    initialise(network)
    return network
