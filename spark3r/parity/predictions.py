"""What each network says of an oracle's input, under the oracle's names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spark3r.models.config import RegisterCamera
from spark3r.models.heads.camera import Cameras
from spark3r.models.heads.dense import Dense
from spark3r.models.heads.dpt import DptHead
from spark3r.models.heads.points import PointHead
from spark3r.models.network import Network, Taps
from spark3r.models.tapped import Tapped
from spark3r.models.trunk import FEWEST_FRAMES_TO_CHOOSE_FROM, balanced_reference

Values = dict[str, Tensor]

# Oracle name → (module, its input or output).
_TRUNK = {
    "mid.tokens_in": ("trunk.blocks.0", "input"),
    "mid.frame0": ("trunk.blocks.0", "output"),
    "mid.encoder": ("encoder", "output"),
    "mid.encoder_block0": ("encoder.blocks.0", "output"),
}
_DPT = {"level4": ("fusions.levels.3", "output"), "fused": ("ending.narrow", "output")}
_PI3 = {
    "mid.point_decoder": ("dense_head.point_decoder.out", "output"),
    "mid.conf_decoder": ("dense_head.confidence_decoder.out", "output"),
    "mid.camera_decoder": ("camera_head.decoder.out", "output"),
    "mid.camera_t": ("camera_head.pose.translation", "output"),
    "mid.camera_rot9": ("camera_head.pose.rotation", "output"),
}
_VIEWS: dict[str, dict[str, tuple[str, str]]] = {
    "vggt": _TRUNK
    | {f"mid.depth_head_{name}": (f"dense_head.{part}", end) for name, (part, end) in _DPT.items()}
    | {f"mid.point_head_{name}": (f"point_head.{part}", end) for name, (part, end) in _DPT.items()},
    "pi3": _TRUNK | _PI3,
    "pi3x": _TRUNK
    | _PI3
    | {
        "mid.point_maps": ("dense_head.point.levels.2", "output"),
        "mid.metric_decoder": ("metric_head.out", "output"),
    },
    "vggt_omega": _TRUNK
    | {
        "mid.camera_raw": ("camera_head.branch", "output"),
        "mid.dense_level4": ("dense_head.fusions.levels.3", "output"),
        "mid.dense_fused": ("dense_head.ending", "input"),
    },
    "da3": {
        "mid.tokens_in": ("encoder.blocks.0", "input"),
        "mid.frame0": ("encoder.blocks.0", "output"),
        "mid.encoder": ("trunk.blocks.0", "output"),
        "mid.alt_in": ("trunk.blocks.1", "input"),
        "mid.head_level4": ("dense_head.fusions.levels.3", "output"),
        "mid.head_fused": ("dense_head.ending.narrow", "output"),
    },
}


@contextmanager
def _watched(network: Network, views: dict[str, tuple[str, str]]) -> Iterator[dict[str, list[Tensor]]]:
    """Collects copies of what enters or leaves the named modules; they may update their input."""
    seen: dict[str, list[Tensor]] = {}

    def note(name: str, value: Any) -> None:
        seen.setdefault(name, []).append((value if isinstance(value, Tensor) else value[0]).clone())

    def watch(module: nn.Module, name: str, end: str) -> RemovableHandle:
        if end == "input":
            return module.register_forward_pre_hook(lambda _, inputs: note(name, inputs[0]))
        return module.register_forward_hook(lambda _, inputs, output: note(name, output))

    with ExitStack() as hooks:
        for name, (path, end) in views.items():
            hooks.callback(watch(network.get_submodule(path), name, end).remove)
        yield seen


def _first(network: Network, scope: str) -> str:
    index = next(i for i, block in enumerate(network.config.blocks) if block.scope == scope)
    return f"trunk.blocks.{index}"


def _views(network: Network, family: str) -> dict[str, tuple[str, str]]:
    views = dict(_VIEWS[family])
    views["mid.global0"] = (_first(network, "global"), "output")
    views["mid.last"] = (f"trunk.blocks.{len(network.config.blocks) - 1}", "output")
    if family == "vggt":
        views["changes"] = ("camera_head.change", "output")
    if family == "vggt_omega":
        views["mid.register0"] = (_first(network, "register"), "output")
        assert isinstance(network.config.camera, RegisterCamera)
        views["mid.camera_trunk"] = (f"camera_head.blocks.{network.config.camera.depth - 1}", "output")
    return views


def predictions_of(network: Network, family: str, given: Values) -> Values:
    """Every number of the oracle, as our network says it."""
    images = given["input.images"]
    size = (images.shape[-2], images.shape[-1])
    if family == "da3":
        network.encoder.normalise = nn.Identity()  # these oracles hold normalised images
    with _watched(network, _views(network, family)) as seen:
        encoded = network.encode(images.flatten(0, 1))
        layout = network.trunk.layout(images.shape[1], network.grid(*size))
        whole = [tap for (tap,) in network.trunk(encoded.patches.clone(), layout)]
        taps = network.aggregate(encoded.patches.clone(), layout)
        cameras = network.cameras(taps, *size)
        prediction = _Prediction(network, images.shape[1], size, encoded.patches, whole, taps, cameras, seen)
        values = _OUTPUTS[family](prediction)
    once = {name: value[0] for name, value in seen.items() if name.startswith("mid.")}
    return once | values


@dataclass(frozen=True)
class _Prediction:
    """A network's run, as far as the outputs need it."""

    network: Network
    frames: int
    size: tuple[int, int]
    encoded: Tensor  # [B·S, P, C]
    whole: list[Tensor]  # the tapped layers, [B, S, P, 2C]
    taps: Taps  # what the heads read of them
    cameras: Cameras
    seen: dict[str, list[Tensor]]

    def tapped(self) -> list[Tapped]:
        grid = self.network.grid(*self.size)
        return [Tapped.of(both, self.network.config.tokens.special, grid) for both in self.whole]

    def framed(self, x: Tensor) -> Tensor:
        return x.unflatten(0, (-1, self.frames))

    def depth(self) -> tuple[Tensor, Tensor]:
        """Depth [B, S, H, W] and the official confidence 1 + exp(logit)."""
        dense = self.network.dense(self.taps, None, slice(None), *self.size)
        return self.framed(dense.depth), 1 + self.framed(dense.confidence_logit).exp()

    def posed(self, depth: Tensor) -> Values:
        """Cameras world → camera, and the points behind each pixel."""
        world_from_camera, intrinsics = self.cameras.world_from_camera, self.cameras.intrinsics
        assert intrinsics is not None
        return {
            "out.pose_enc": self.cameras.pose,
            "out.extrinsics": torch.linalg.inv(world_from_camera.double()).float()[..., :3, :],
            "out.intrinsics": intrinsics,
            "out.world_points_from_depth": _unproject(depth, world_from_camera, intrinsics),
        }


def _unproject(depth: Tensor, world_from_camera: Tensor, intrinsics: Tensor) -> Tensor:
    """[B, S, H, W] → [B, S, H, W, 3]."""
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in depth.shape[-2:]), indexing="ij")
    k = intrinsics[:, :, None, None]
    x = (columns - k[..., 0, 2]) / k[..., 0, 0] * depth
    y = (rows - k[..., 1, 2]) / k[..., 1, 1] * depth
    return _to_world(torch.stack((x, y, depth), dim=-1), world_from_camera)


def _to_world(points: Tensor, world_from_camera: Tensor) -> Tensor:  # [B, S, H, W, 3]
    rotation, centre = world_from_camera[..., :3, :3], world_from_camera[..., :3, 3]
    return (rotation[:, :, None, None] @ points[..., None])[..., 0] + centre[:, :, None, None]


def _vggt(prediction: _Prediction) -> Values:
    depth, confidence = prediction.depth()
    grid = prediction.network.grid(*prediction.size)
    head = prediction.network.point_head
    read = [head.read(i, tapped)[0].flatten(0, 1) for i, tapped in enumerate(prediction.tapped())]
    raw = prediction.framed(head.raw(read, grid))
    points = raw[:, :, :3].movedim(2, -1)
    poses = torch.stack(prediction.seen["changes"]).cumsum(0)
    return {
        "out.depth": depth[..., None],
        "out.depth_conf": confidence,
        "out.world_points": points.sign() * points.abs().expm1(),
        "out.world_points_conf": 1 + raw[:, :, 3].exp(),
        "out.pose_enc_iters": torch.cat((poses[..., :7], poses[..., 7:].relu()), dim=-1),
        **prediction.posed(depth),
    }


def _pi3(prediction: _Prediction) -> Values:
    ray, dense = _rays(prediction)
    local = prediction.framed(torch.cat((ray, torch.ones_like(ray[:, :1])), dim=1) * dense.depth[:, None]).movedim(
        2, -1
    )
    return {
        "out.local_points": local,
        "out.points": _to_world(local, prediction.cameras.world_from_camera),
        "out.conf": prediction.framed(dense.confidence_logit)[..., None],
        "out.camera_poses": prediction.cameras.world_from_camera,
    }


def _pi3x(prediction: _Prediction) -> Values:
    ray, _ = _rays(prediction)
    assert prediction.cameras.scale is not None
    direction = torch.cat((ray, torch.ones_like(ray[:, :1])), dim=1)
    rays = prediction.framed(torch.nn.functional.normalize(direction, dim=1)).movedim(2, -1)
    return {**_pi3(prediction), "out.metric": prediction.cameras.scale, "out.rays": rays}


def _rays(prediction: _Prediction) -> tuple[Tensor, Dense]:
    """x/z and y/z of every pixel's point, [B·S, 2, H, W], and what the dense head says."""
    head, size = prediction.network.dense_head, prediction.size
    assert isinstance(head, PointHead)
    ray, _ = head.rays(prediction.whole[-1].flatten(0, 1), prediction.network.grid(*size))
    return ray, prediction.network.dense(prediction.taps, None, slice(None), *size, prediction.cameras.scale)


def _vggt_omega(prediction: _Prediction) -> Values:
    depth, confidence = prediction.depth()
    config = prediction.network.config
    aggregated = {f"mid.agg{(tap - 1) // 2}": x for tap, x in zip(config.taps, prediction.whole, strict=True)}
    return {
        "out.depth": depth[..., None],
        "out.depth_conf": confidence,
        "out.camera_and_register_tokens": prediction.whole[-1][:, :, : config.tokens.special],
        **prediction.posed(depth),
        **aggregated,
    }


def _da3(prediction: _Prediction) -> Values:
    depth, confidence = prediction.depth()
    head = prediction.network.dense_head
    assert isinstance(head, DptHead)
    grid = prediction.network.grid(*prediction.size)
    rays, ray_logit = head.rays(head.pyramid([tap.flatten(0, 1) for (tap,) in prediction.taps.dense], grid), grid)
    class_tokens = prediction.framed(prediction.encoded)[:, :, 0]
    chosen = balanced_reference(class_tokens)
    reference = chosen if prediction.frames >= FEWEST_FRAMES_TO_CHOOSE_FROM else torch.full_like(chosen, -1)
    halves = (head.pyramid.features(tapped.local, tapped.whole) for tapped in prediction.tapped())
    features = {f"mid.feat{i}": torch.cat(both, dim=-1) for i, both in enumerate(halves)}
    return {
        "out.depth": depth,
        "out.depth_conf": confidence,
        "out.ray": prediction.framed(rays),
        "out.ray_conf": 1 + prediction.framed(ray_logit).exp(),
        "mid.ref_index": reference,
        "mid.cam_token": prediction.whole[-1][:, :, 0],
        **prediction.posed(depth),
        **features,
    }


_OUTPUTS: dict[str, Callable[[_Prediction], Values]] = {
    "vggt": _vggt,
    "pi3": _pi3,
    "pi3x": _pi3x,
    "vggt_omega": _vggt_omega,
    "da3": _da3,
}
