"""What colours mean: three palettes, each with numbers at its ends, and points or pixels painted by them."""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

UNKNOWN = (110, 112, 118)  # where there is no number to show

# From calm to alarming, even for eyes that do not tell red from green: lightness rises, then falls into dark red.
_MOVED = ((0.0, "#2b3a55"), (0.2, "#3f7f93"), (0.45, "#f2e6b1"), (0.7, "#f08a3c"), (1.0, "#c4122f"))


def _steps(stops: tuple[tuple[float, str], ...]) -> np.ndarray:  # [256, 3] uint8 RGB
    places = [place for place, _ in stops]
    colours = np.array([[int(code[i : i + 2], 16) for i in (1, 3, 5)] for _, code in stops], dtype=np.float64)
    levels = np.linspace(0, 1, 256)
    return np.stack([np.interp(levels, places, colours[:, i]) for i in range(3)], -1).round().astype(np.uint8)


def _opencv(name: int) -> np.ndarray:  # [256, 3] uint8 RGB
    return cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], name)[:, 0, ::-1].copy()


PALETTES: Mapping[str, np.ndarray] = {
    "depth": _opencv(cv2.COLORMAP_TURBO)[::-1].copy(),  # near is red
    "confidence": _opencv(cv2.COLORMAP_VIRIDIS),  # sure is yellow
    "difference": _steps(_MOVED),
    "error": _steps(_MOVED),
}


@dataclass(frozen=True)
class Scale:
    """The numbers at the two ends of a palette."""

    low: float
    high: float

    @classmethod
    def spread(cls, values: np.ndarray) -> "Scale":
        """From the 2nd to the 98th percentile of what is finite."""
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, [2, 98]) if len(values) else (0.0, 1.0)
        return cls(float(low), float(high))

    def place(self, values: np.ndarray) -> np.ndarray:
        """Where values stand between the ends, 0 to 1; NaN stays NaN."""
        return np.clip((values - self.low) / ((self.high - self.low) or 1.0), 0, 1)


def paint(
    values: np.ndarray,  # [...]
    palette: str,
    scale: Scale,
) -> np.ndarray:  # [..., 3] uint8 RGB
    """The colours of values; grey where there is none."""
    place = scale.place(values)
    is_known = np.isfinite(place)
    colours = PALETTES[palette][np.where(is_known, 255 * np.nan_to_num(place), 0).astype(np.uint8)]
    colours[~is_known] = UNKNOWN
    return colours
