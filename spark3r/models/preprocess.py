"""From stored frames to the network's input, by the rule of each family."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from spark3r.errors import InputError
from spark3r.models.config import ModelConfig

LARGEST_SIDE = 2048


def network_size(config: ModelConfig, height: int, width: int, resolution: int | None = None) -> tuple[int, int]:
    """(H, W) of the network's input: the longer side at `resolution` (default: what the model was trained at), both
    sides rounded to the patch; the aspect changes by less than one patch."""
    rule = config.resize
    longer = rule.longer_side if resolution is None else resolution
    if not rule.multiple <= longer <= LARGEST_SIDE:
        raise InputError(
            f"resolution={longer}: must lie between {rule.multiple} and {LARGEST_SIDE} pixels for {config.name}; "
            f"{rule.longer_side} is what it was made for"
        )
    scale = longer / max(height, width)
    rounded = (max(rule.multiple, round(side * scale / rule.multiple) * rule.multiple) for side in (height, width))
    new_height, new_width = rounded
    return new_height, new_width


def resize(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[S, H, W, 3] uint8 → [S, *size, 3] uint8: area averages when shrinking, bicubic when growing."""
    height, width = size
    if images.shape[1:3] == size:
        return images
    shrinks = height <= images.shape[1] and width <= images.shape[2]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.stack([cv2.resize(image, (width, height), interpolation=method) for image in images])


def to_tensor(images: np.ndarray, device: torch.device) -> Tensor:
    """[S, H, W, 3] uint8 → [S, 3, H, W] float32 in [0, 1] on the device."""
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float() / 255
