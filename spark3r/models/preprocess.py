"""From stored frames to the network's input, by the rule of each family, to the pixel.

fit                  longer side to the resolution, both sides rounded to the patch            (mini)
crop                 width to the resolution, rows beyond it cropped around the middle         (VGGT)
pad                  longer side to the resolution, padded with white to a square              (VGGT)
area                 at most so many pixels, all images to the size of the first               (π³)
balanced, max_size   resolution² pixels at any aspect, or longer side; aspect within ½ … 2     (VGGT-Ω)
upper_bound_*        longer side to the resolution, then resized or cropped to the patch       (Depth Anything 3)
lower_bound_*        the same with the shorter side                                            (Depth Anything 3)
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from spark3r.errors import InputError
from spark3r.installation import require
from spark3r.models.config import ModelConfig, ResizeRule

LARGEST_SIDE = 2048
_WHITE = 255
_THREADS = min(8, os.cpu_count() or 1)
_OMEGA_ASPECTS = (0.5, 2.0)  # height / width

Size = tuple[int, int]  # (height, width)
Box = tuple[int, int, int, int]  # top, left, height, width
Method = Literal["opencv", "bicubic", "lanczos"]  # the last two as Pillow does them


@dataclass(frozen=True)
class ResizePlan:
    """How one image becomes the network's input: crop, resize (once or twice), crop, pad with white."""

    sizes: tuple[Size, ...]
    method: Method
    crop_before: Box | None = None
    crop_after: Box | None = None
    padded: Size | None = None

    @property
    def size(self) -> Size:
        """Of the result."""
        if self.padded is not None:
            return self.padded
        return self.sizes[-1] if self.crop_after is None else self.crop_after[2:]

    def seen(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The part of an image of this size that is left, as fractions of its sides: top, left, height, width.

        For whole clips, which are never padded.
        """
        box = np.array(self.crop_before or (0, 0, height, width), dtype=float)
        if self.crop_after is not None:
            resized = np.array(self.sizes[-1], dtype=float)
            top_left, size = np.array(self.crop_after[:2]) / resized, np.array(self.crop_after[2:]) / resized
            box = np.concatenate([box[:2] + top_left * box[2:], size * box[2:]])
        top, left, part_height, part_width = (box / [height, width, height, width]).tolist()
        return top, left, part_height, part_width

    def apply(self, image: np.ndarray) -> np.ndarray:
        """[H, W, 3] uint8 → [*size, 3] uint8."""
        image = _cropped(image, self.crop_before)
        for size in self.sizes:
            image = _resized(image, size, self.method)
        image = _cropped(image, self.crop_after)
        return image if self.padded is None else _padded(image, self.padded)


def resize_plan(rule: ResizeRule, height: int, width: int, resolution: int | None = None) -> ResizePlan:
    """What a rule does to an image of this size; resolution: in place of the family's own (ResizeRule.longer_side)."""
    target = rule.longer_side if resolution is None else resolution
    if rule.mode == "fit":
        scale = target / max(height, width)
        return ResizePlan((_to_multiple((height * scale, width * scale), rule.multiple),), "opencv")
    if rule.mode == "crop":
        return _full_width(height, width, target, rule.multiple)
    if rule.mode == "pad":
        scale = target / max(height, width)
        size = _to_multiple((height * scale, width * scale), rule.multiple)
        return ResizePlan((size,), "bicubic", padded=(target, target))
    if rule.mode == "area":
        pixels = rule.pixels if resolution is None and rule.pixels else target**2
        return ResizePlan((_within_area(height, width, pixels, rule.multiple),), "lanczos")
    if rule.mode in ("balanced", "max_size"):
        return _moderate_aspect(height, width, target, rule)
    return _bounded(height, width, target, rule)


def network_size(config: ModelConfig, height: int, width: int, resolution: int | None = None) -> Size:
    """(H, W) of the network's input for images of this size. Raises InputError for an unusable resolution."""
    rule = config.resize
    if resolution is not None and not rule.multiple <= resolution <= LARGEST_SIDE:
        raise InputError(
            f"resolution={resolution}: must lie between {rule.multiple} and {LARGEST_SIDE} pixels for {config.name}; "
            f"{rule.longer_side} is what it was made for"
        )
    return resize_plan(_whole(rule), height, width, _to_patch(rule, resolution)).size


def needed_side(config: ModelConfig, height: int, width: int, resolution: int | None = None) -> int:
    """Longer side in pixels at which images of this size have to be kept, so that `resize` gives them the size it gives
    the originals and enlarges nothing that was large enough. Never more than the images have."""
    wanted, whole = network_size(config, height, width, resolution), max(height, width)
    plan = resize_plan(_whole(config.resize), height, width, _to_patch(config.resize, resolution))
    rows, columns = (height, width) if plan.crop_before is None else plan.crop_before[2:]
    scale = max(max(size[0] / rows, size[1] / columns) for size in plan.sizes)
    side = min(whole, math.ceil(scale * whole - 1e-6))
    while side < whole and network_size(config, *_kept_size(height, width, side), resolution) != wanted:
        side += 1  # rounding has moved the aspect across the border between two grids of patches
    return side


def _kept_size(height: int, width: int, side: int) -> Size:
    scale = side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def seen(
    config: ModelConfig, height: int, width: int, resolution: int | None = None
) -> tuple[float, float, float, float]:
    """The part of a frame of this size that the network sees, as `ResizePlan.seen`."""
    return resize_plan(_whole(config.resize), height, width, _to_patch(config.resize, resolution)).seen(height, width)


def resize(config: ModelConfig, images: np.ndarray, resolution: int | None = None) -> np.ndarray:
    """Frames of one size [S, H, W, 3] uint8 → the network's size, [S, *network_size, 3] uint8."""
    height, width = images.shape[1:3]
    fit = resize_plan(_whole(config.resize), height, width, _to_patch(config.resize, resolution))
    if fit.crop_before is None and set(fit.sizes) == {(height, width)} == {fit.size}:
        return images
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:  # Pillow and OpenCV let go of the interpreter's lock
        return np.stack(list(pool.map(fit.apply, images)))


def fit_set(images: Sequence[np.ndarray], rule: ResizeRule, resolution: int | None = None) -> np.ndarray:
    """Images of any sizes, [H, W, 3] or with alpha [H, W, 4] uint8, as one network input [S, H, W, 3] uint8.

    Where results differ in size, Depth Anything 3 crops all to the smallest sides, the others pad with white to the
    largest; π³ resizes all to the size of the first.
    """
    opaque = [over_white(image) for image in images]
    fits = [resize_plan(rule, image.shape[0], image.shape[1], resolution) for image in opaque]
    if rule.mode == "area":
        return np.stack([fits[0].apply(image) for image in opaque])
    fitted = [fit.apply(image) for fit, image in zip(fits, opaque, strict=True)]
    sides = np.array([image.shape[:2] for image in fitted])
    if rule.mode.startswith(("upper", "lower")):
        height, width = sides.min(axis=0)
        return np.stack([_cropped(image, _middle_box(image.shape[:2], (height, width))) for image in fitted])
    height, width = sides.max(axis=0)
    return np.stack([_padded(image, (height, width)) for image in fitted])


def over_white(image: np.ndarray) -> np.ndarray:
    """[H, W, 4] uint8 over a white ground → [H, W, 3] uint8, as Pillow composites; other images as they are."""
    if image.shape[2] == 3:
        return image
    pillow = _pillow()
    ground = pillow.new("RGBA", (image.shape[1], image.shape[0]), (_WHITE, _WHITE, _WHITE, _WHITE))
    return np.asarray(pillow.alpha_composite(ground, pillow.fromarray(image)).convert("RGB"))


def to_tensor(images: np.ndarray, device: torch.device) -> Tensor:
    """[S, H, W, 3] uint8 → [S, 3, H, W] float32 in [0, 1] on the device."""
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float() / 255


def _whole(rule: ResizeRule) -> ResizeRule:
    """Padding is for sets of unlike images only: a clip's frames are of one size."""
    return replace(rule, mode="fit") if rule.mode == "pad" else rule


def _to_patch(rule: ResizeRule, resolution: int | None) -> int | None:
    """Where the resolution itself becomes a side, it must be a multiple of the patch."""
    if resolution is None or rule.mode not in ("crop", "pad"):
        return resolution
    return _rounded(resolution, rule.multiple)


def _rounded(side: float, multiple: int) -> int:
    return max(multiple, round(side / multiple) * multiple)


def _to_multiple(size: tuple[float, float], multiple: int) -> Size:
    return _rounded(size[0], multiple), _rounded(size[1], multiple)


def _full_width(height: int, width: int, target: int, multiple: int) -> ResizePlan:
    size = (_rounded(height * (target / width), multiple), target)
    crop = (_middle_start(size[0], target), 0, target, target) if size[0] > target else None
    return ResizePlan((size,), "bicubic", crop_after=crop)


def _within_area(height: int, width: int, pixels: int, multiple: int) -> Size:
    """The largest grid near the aspect with at most this many pixels."""
    scale = math.sqrt(pixels / (width * height))
    exact_width, exact_height = width * scale, height * scale
    columns, rows = round(exact_width / multiple), round(exact_height / multiple)
    while columns * multiple * rows * multiple > pixels:
        if columns / rows > exact_width / exact_height:
            columns -= 1
        else:
            rows -= 1
    return max(1, rows) * multiple, max(1, columns) * multiple


def _moderate_aspect(height: int, width: int, target: int, rule: ResizeRule) -> ResizePlan:
    """Crops extreme aspects, then keeps the number of tokens (balanced) or the longer side (max_size)."""
    flattest, tallest = _OMEGA_ASPECTS
    cropped = (min(height, round(width * tallest)), min(width, round(height / flattest)))
    crop = None if cropped == (height, width) else _middle_box((height, width), cropped)
    aspect = cropped[0] / cropped[1]
    if rule.mode == "max_size":
        longer, shorter = target, max(1, round(target * min(aspect, 1 / aspect) / rule.multiple)) * rule.multiple
        size = (longer, shorter) if aspect > 1 else (shorter, longer)
        return ResizePlan((size,), "bicubic", crop_before=crop)
    tokens = (target // rule.multiple) ** 2
    columns = math.sqrt(tokens / aspect)
    rows = tokens / columns
    size = (max(1, round(rows)) * rule.multiple, max(1, round(columns)) * rule.multiple)
    return ResizePlan((size,), "bicubic", crop_before=crop)


def _bounded(height: int, width: int, target: int, rule: ResizeRule) -> ResizePlan:
    """One side to the target, then both to multiples of the patch: by a second resize (ties up), or by a crop."""
    scale = target / (max if rule.mode.startswith("upper") else min)(height, width)
    bound = (max(1, round(height * scale)), max(1, round(width * scale)))
    if rule.mode.endswith("crop"):
        cropped = (bound[0] // rule.multiple * rule.multiple, bound[1] // rule.multiple * rule.multiple)
        crop = None if cropped == bound else _middle_box(bound, cropped)
        return ResizePlan((bound,), "opencv", crop_after=crop)
    up = (_nearest_up(bound[0], rule.multiple), _nearest_up(bound[1], rule.multiple))
    return ResizePlan((bound, up), "opencv")


def _nearest_up(side: int, multiple: int) -> int:
    """The nearest multiple; ties go up."""
    return max(multiple, (2 * side + multiple) // (2 * multiple) * multiple)


def _middle_start(whole: int, part: int) -> int:
    return (whole - part) // 2


def _middle_box(whole: Size, part: Size) -> Box:
    return _middle_start(whole[0], part[0]), _middle_start(whole[1], part[1]), part[0], part[1]


def _cropped(image: np.ndarray, box: Box | None) -> np.ndarray:
    if box is None:
        return image
    top, left, height, width = box
    return image[top : top + height, left : left + width]


def _padded(image: np.ndarray, size: Size) -> np.ndarray:
    """White on all sides, the smaller half at the top and left."""
    top, left = _middle_start(size[0], image.shape[0]), _middle_start(size[1], image.shape[1])
    bottom, right = size[0] - image.shape[0] - top, size[1] - image.shape[1] - left
    return np.pad(image, ((top, bottom), (left, right), (0, 0)), constant_values=_WHITE)


def _resized(image: np.ndarray, size: Size, method: Method) -> np.ndarray:
    if image.shape[:2] == size:
        return image
    height, width = size
    if method == "opencv":  # area averages when shrinking, bicubic when any side grows
        shrinks = height <= image.shape[0] and width <= image.shape[1]
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    pillow = _pillow()
    kernel = pillow.Resampling.BICUBIC if method == "bicubic" else pillow.Resampling.LANCZOS
    return np.asarray(pillow.fromarray(np.ascontiguousarray(image)).resize((width, height), kernel))


def _pillow():
    require("Resizing as this model was trained with", "PIL")
    from PIL import Image

    return Image
