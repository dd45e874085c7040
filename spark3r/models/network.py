"""A whole network: encoder → trunk → heads. It knows no device, no file, no schedule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from spark3r.attention import Linear, Planner, dense
from spark3r.models import config as configs
from spark3r.models import preprocess
from spark3r.models.blocks import initialise
from spark3r.models.config import ModelConfig
from spark3r.models.encoder import Encoded, StemEncoder, VitEncoder
from spark3r.models.heads.camera import CameraHead, Cameras, rigid
from spark3r.models.heads.dense import Dense, DenseHead
from spark3r.models.heads.dpt import DptHead
from spark3r.models.heads.metric import MetricHead
from spark3r.models.heads.points import PatchCameraHead, PointHead
from spark3r.models.heads.pose import RefiningCameraHead, RegisterCameraHead, TokenCameraHead
from spark3r.models.tapped import Tapped
from spark3r.models.trunk import Trunk
from spark3r.tokens import WHOLE_CLIP, TokenLayout, WholeClip

_PARTS: dict[type, type[nn.Module]] = {
    configs.StemConfig: StemEncoder,
    configs.VitConfig: VitEncoder,
    configs.MlpCamera: CameraHead,
    configs.RefiningCamera: RefiningCameraHead,
    configs.RegisterCamera: RegisterCameraHead,
    configs.TokenCamera: TokenCameraHead,
    configs.PatchCamera: PatchCameraHead,
    configs.StemDense: DenseHead,
    configs.Dpt: DptHead,
    configs.PointDense: PointHead,
}
"""Which module each part of a config is built as."""


class Prediction(NamedTuple):
    """What a network says of a clip."""

    depth: Tensor  # [B, S, H, W] z-depth, in the units of the poses
    confidence_logit: Tensor  # [B, S, H, W]; confidence = sigmoid
    pose: Tensor  # [B, S, K], as the family's camera head says it (heads)
    world_from_camera: Tensor  # [B, S, 4, 4]
    intrinsics: Tensor  # [B, S, 3, 3]


class Taps(NamedTuple):
    """What the heads read of the tapped layers."""

    dense: list[tuple[Tensor, ...]]  # for every tap what the dense head reads, [B, S, …] each
    camera: tuple[Tensor, ...]  # what the camera head reads of the last tap: special tokens [B, S, special, 2C] (π³: as
    # the dense head)


class Network(nn.Module):
    """One model family at one size; `encode`, `aggregate`, `cameras` and `dense` are the steps, `forward` runs all."""

    offload = False  # whether a reconstruction keeps what the heads will read in pinned memory of the computer
    compiled = False  # whether, on a CPU, it runs elementwise functions compiled; that needs a C++ compiler

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.encoder = _part(config, config.encoder)
        self.trunk = Trunk(config)
        self.camera_head = _part(config, config.camera)
        self.dense_head = _part(config, config.dense)
        if config.points is not None:
            self.point_head = DptHead(config, config.points, outputs=4)
        if config.metric is not None:
            self.metric_head = MetricHead(config, config.metric)

    def forward(self, images: Tensor, plan: Planner = dense) -> Prediction:
        """images [B, S, 3, H, W] in [0, 1], H and W multiples of the patch."""
        batch, frames, _, height, width = images.shape
        encoded = self.encode(images.flatten(0, 1))
        layout = self.trunk.layout(frames, self.grid(height, width))
        taps = self.aggregate(encoded.patches, layout, plan)
        cameras = self.cameras(taps, height, width)
        predicted = self.dense(taps, encoded.skip, slice(None), height, width, cameras.scale)
        depth, logit, intrinsics = (None if x is None else x.unflatten(0, (batch, frames)) for x in predicted)
        intrinsics = cameras.intrinsics if intrinsics is None else intrinsics
        assert depth is not None
        assert logit is not None
        assert intrinsics is not None
        return Prediction(depth, logit, cameras.pose, cameras.world_from_camera, intrinsics)

    def encode(self, images: Tensor) -> Encoded:  # [S, 3, H, W]
        """Patch tokens of images [B, S, 3, H, W] in 0..1."""
        return self.encoder(images)

    def aggregate(
        self,
        patches: Tensor,
        layout: TokenLayout,
        plan: Planner = dense,
        offload: bool = False,
        clip: WholeClip = WHOLE_CLIP,
    ) -> Taps:
        """Patches as `Trunk.forward` takes them → what the heads need; `offload` keeps it in memory of the CPU."""
        kept = self.trunk(patches, layout, plan, self.read, offload, clip)
        if isinstance(self.config.camera, configs.PatchCamera):
            return Taps(kept, kept[-1])
        *_, special = kept[-1]
        return Taps([*kept[:-1], kept[-1][:-1]], (special.to(self.device),))

    def read(self, tap: int, tapped: Tapped) -> tuple[Tensor, ...]:
        """What the dense head reads of a tapped layer, kept in the type that the network works in; of the last one also
        what the camera head reads, exactly, unless that is the same."""
        head = cast("DenseHead | DptHead | PointHead", self.dense_head)
        seen = tuple(part.to(self.dtype) for part in head.read(tap, tapped))
        if tap < len(self.config.taps) - 1 or isinstance(self.config.camera, configs.PatchCamera):
            return seen
        return *seen, tapped.special

    def cameras(self, taps: Taps, height: int, width: int, clip: WholeClip = WHOLE_CLIP) -> Cameras:
        """Of all frames of the clip, from the special tokens of the last tap (π³: of each frame from its patches)."""
        if not isinstance(self.config.camera, configs.PatchCamera):
            return self.camera_head(clip.gather(taps.camera[0]), (height, width))
        pose, world_from_camera, _, _ = self.camera_head(taps.camera, (height, width))
        pose, world_from_camera = clip.gather(pose), clip.gather(world_from_camera)
        if self.config.metric is None:
            return Cameras(pose, world_from_camera, None)
        scale = self.metric_head(taps.camera, self.grid(height, width), clip)
        rotation, centre = world_from_camera[..., :3, :3], world_from_camera[..., :3, 3]
        return Cameras(pose, rigid(rotation, centre * scale[:, None, None]), None, scale)

    def dense(
        self,
        taps: Taps,
        skip: Tensor | None,
        frames: slice,
        height: int,
        width: int,
        scale: Tensor | None = None,  # [B], as `cameras` says it
    ) -> Dense:
        """Depth and confidence of some frames; skip holds the encoder's fine features of the same frames."""
        chosen = [
            tuple(part.flatten(0, 1)[frames].to(self.device, non_blocking=True) for part in tap) for tap in taps.dense
        ]
        predicted: Dense = self.dense_head(chosen, self.grid(height, width), skip)
        if scale is None:
            return predicted
        of_frames = scale.repeat_interleave(taps.dense[0][0].shape[1])[frames]
        return predicted._replace(depth=predicted.depth * of_frames[:, None, None])

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Patches of a picture (rows, columns)."""
        return height // self.config.patch, width // self.config.patch

    def needed_side(self, height: int, width: int, resolution: int | None = None) -> int:
        """Longer side at which frames of this size have to be kept for this network (`preprocess.needed_side`)."""
        return preprocess.needed_side(self.config, height, width, resolution)

    def set_dtype(self, dtype: torch.dtype) -> Network:
        """Linear and convolution weights in `dtype`; norms, positions, cameras and the last layers of depth stay
        float32, as geometry needs it. Convolutions keep channels last, which matrix units read without reordering."""
        for layer in self._fast_layers():
            layer.to(dtype)
        return self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] torch's stubs lack it

    def _fast_layers(self) -> Iterator[nn.Module]:
        pending: list[nn.Module] = [self]
        while pending:
            part = pending.pop(0)
            if getattr(part, "stays_float32", False):
                continue
            if isinstance(part, Linear | nn.Conv2d):
                yield part
            pending.extend(part.children())

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.trunk.special.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the fast layers' weights."""
        return next(next(self._fast_layers()).parameters()).dtype


def _part(config: ModelConfig, part: object) -> nn.Module:
    return _PARTS[type(part)](config, part)


def build(config: ModelConfig) -> Network:
    """A network with fresh random weights."""
    network = Network(config)
    initialise(network)
    return network
