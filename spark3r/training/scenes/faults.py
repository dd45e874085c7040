"""What cheap cameras do to a picture: exposure and colours that drift, blur, vignette, noise, compression.

None of it moves a surface in the picture, so the truth of a clip stays true.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .paths import CameraPath, resampled, tremor

KERNEL = 9  # pixels of the blur kernel


@dataclass(frozen=True)
class Faults:
    """The faults of one clip of S frames. Lengths as shares of the picture's width, so that they suit every size."""

    exposure: np.ndarray  # [S] factor
    balance: np.ndarray  # [S, 3] factor of red, green, blue
    metering: float  # 0: fixed exposure, 1: every frame equally bright
    blur: np.ndarray  # [S, 3] covariance xx, xy, yy of an anisotropic Gaussian
    vignette: float  # light lost in the corners
    gamma: float  # of the tone curve on top of the usual one
    contrast: float  # of the tone curve about middle grey, with lights and darks clipped
    haze: float  # how far black is lifted
    colour: float  # saturation, 1 as it is
    noise: float  # standard deviation at middle grey
    quality: int | None  # of JPEG, or not compressed
    seed: int  # of the noise

    def resampled(self, frames: int) -> Faults:
        """The same faults over so many frames."""
        courses = {name: resampled(getattr(self, name), frames) for name in ("exposure", "balance", "blur")}
        return replace(self, **courses)


def draw(rng: np.random.Generator, path: CameraPath, field_of_view: float) -> Faults:
    """Faults as they come: half of all clips nearly free of each."""
    frames = len(path.yaw)
    drift = tremor(rng, np.linspace(0, 0.15 * frames, frames), 4)
    exposure = 1.0 * 2.0 ** (rng.uniform(-0.6, 0.6) + rng.uniform(0, 0.35) * drift[:, 0])
    balance = 1 + rng.uniform(-0.14, 0.14, 3) * rng.uniform(0, 1) + rng.uniform(0, 0.05) * drift[:, 1:]
    return Faults(
        exposure,
        balance,
        metering=rng.uniform(0.2, 0.9),
        blur=_blur(rng, path, field_of_view),
        vignette=rng.uniform(0.0, 0.5) * (rng.random() < 0.6),
        gamma=float(np.exp(rng.uniform(-0.25, 0.3))),
        contrast=float(np.exp(rng.uniform(-0.1, 0.55))),
        haze=rng.uniform(0.0, 0.12) * (rng.random() < 0.4),
        colour=float(rng.choice((0.0, rng.uniform(0.4, 1.0), rng.uniform(0.9, 1.6)), p=(0.05, 0.3, 0.65))),
        noise=float(np.exp(rng.uniform(np.log(0.002), np.log(0.03)))),
        quality=int(rng.integers(25, 95)) if rng.random() < 0.5 else None,
        seed=int(rng.integers(1 << 31)),
    )


def _blur(rng: np.random.Generator, path: CameraPath, field_of_view: float) -> np.ndarray:
    """Covariances [S, 3]: defocus that drifts, and motion along the turn of the camera and the shake of the hand."""
    frames = len(path.yaw)
    focal = 0.5 / np.tan(field_of_view / 2)  # in widths
    turn = np.stack([np.gradient(path.yaw) * np.cos(path.pitch), np.gradient(path.pitch)], -1) if frames > 1 else 0.0
    shutter = rng.uniform(0.0, 0.12) if rng.random() < 0.6 else 0.0  # share of the time between frames
    shake = rng.standard_normal((frames, 2)) * rng.exponential(1.0, (frames, 1)) * rng.uniform(0, 0.006)
    streak = np.clip(focal * shutter * turn + shake * (rng.random() < 0.6), -0.05, 0.05)
    soft = rng.uniform(0.0, 0.009) * (rng.random() < 0.6)
    focus = (soft * np.clip(1 + 0.6 * tremor(rng, np.linspace(0, 0.2 * frames, frames), 1)[:, 0], 0, 2)) ** 2
    cross = streak[:, 0] * streak[:, 1] / 12
    return np.stack([focus + streak[:, 0] ** 2 / 12, cross, focus + streak[:, 1] ** 2 / 12], -1)


def on_light(
    linear: Tensor,  # [S, 3, H, W]
    faults: Faults,
) -> Tensor:
    """Blur and vignette, which happen in the lens."""
    return blurred(linear, torch.from_numpy(faults.blur).to(linear)) * _falloff(linear, faults.vignette)


def blurred(
    images: Tensor,  # [S, 3, H, W]
    covariance: Tensor,  # [S, 3] in squared widths
) -> Tensor:
    """Each picture through its own Gaussian (of KERNEL pixels at most); sharp ones come back as they are."""
    xx, xy, yy = (covariance * images.shape[-1] ** 2).unbind(-1)
    if float(torch.maximum(xx, yy).max()) < 0.02:
        return images
    xx, yy = xx + 0.03, yy + 0.03  # never narrower than a fifth of a pixel
    places = torch.arange(KERNEL, device=images.device) - KERNEL // 2
    y, x = torch.meshgrid(places, places, indexing="ij")
    area = (xx * yy - xy * xy)[:, None, None]
    form = yy[:, None, None] * x * x - 2 * xy[:, None, None] * x * y + xx[:, None, None] * y * y
    kernel = (-0.5 * form / area).exp()
    kernel = (kernel / kernel.sum((1, 2), keepdim=True)).repeat_interleave(images.shape[1], 0)[:, None]
    margin = KERNEL // 2
    padded = F.pad(images, (margin,) * 4, mode="replicate").flatten(0, 1)[None]
    return F.conv2d(padded, kernel, groups=len(kernel))[0].unflatten(0, images.shape[:2])


def _falloff(images: Tensor, vignette: float) -> Tensor:
    """[H, W] light that is left: all in the middle, 1 - vignette in the corners."""
    height, width = images.shape[-2:]
    y = torch.linspace(-1, 1, height, device=images.device)[:, None]
    x = torch.linspace(-1, 1, width, device=images.device)
    return 1 - vignette * 0.5 * (x * x + y * y)


def metered(linear: Tensor, faults: Faults) -> Tensor:  # [S]
    """Exposure of every frame, with what automatic metering adds."""
    bright = linear.mean((1, 2, 3)).clamp_min(0.02)
    return torch.from_numpy(faults.exposure).to(linear) * (0.18 / bright) ** faults.metering


def on_picture(
    images: Tensor,  # [S, 3, H, W] in 0..1
    faults: Faults,
) -> Tensor:
    """Tone, colour, noise and compression, which happen behind the lens."""
    grey = (images * images.new_tensor([0.3, 0.6, 0.1])[:, None, None]).sum(1, keepdim=True)
    images = torch.lerp(grey, images, faults.colour).clamp(0, 1) ** faults.gamma
    images = (0.45 + (images - 0.45) * faults.contrast).clamp(0, 1)
    images = faults.haze + (1 - faults.haze) * images
    noise = np.random.default_rng(faults.seed).standard_normal(tuple(images.shape), dtype=np.float32)
    images = (images + faults.noise * (0.5 + images) * torch.from_numpy(noise).to(images.device)).clamp(0, 1)
    return images if faults.quality is None else compressed(images, faults.quality)


def compressed(images: Tensor, quality: int) -> Tensor:
    """Each picture through JPEG."""
    out = []
    for picture in (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().contiguous().numpy():
        _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None
        out.append(decoded[..., ::-1])
    back = torch.from_numpy(np.stack(out)).to(images.device)
    return (back.permute(0, 3, 1, 2).float() / 255).contiguous()
