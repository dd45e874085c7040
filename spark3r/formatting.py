"""Numbers as a person reads them; a dash where there is none. Page, commands and charts write by these alone."""

from __future__ import annotations

import math
from collections.abc import Mapping

NOTHING = "–"


def milliseconds(value: float) -> str:
    """A duration in the unit a person would use: '8.3 ms', '240 ms', '1.52 s', '2 min 5 s'."""
    if value < 1000:
        return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"
    if value < 100_000:
        return f"{value / 1000:.2f} s"
    minutes, seconds = divmod(round(value / 1000), 60)
    return f"{minutes} min {seconds} s"


def byte_count(value: float) -> str:
    """A size in binary units: '131 MiB', '4.6 GiB'."""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def count(value: int) -> str:
    """A whole number with thin spaces between the thousands."""
    return f"{value:,}".replace(",", "\u202f")


def factor(value: float | None) -> str:
    """A speed-up to three digits: '2.81×', '14.3×', '120×'."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:.{_digits(value)}f}×"


def factor_range(low: float, high: float) -> str:
    """The range of a speed-up: '2.6–3.1×'; one number where both ends read the same."""
    digits = max(_digits(high) - 1, 0)
    ends = f"{low:.{digits}f}", f"{high:.{digits}f}"
    return f"{ends[0]}–{ends[1]}×" if ends[0] != ends[1] else f"{ends[0]}×"


def number(value: float | None, digits: int = 4) -> str:
    """A metric."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 2) -> str:
    """A share as '1.25 %'."""
    return NOTHING if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def degrees(value: float | None) -> str:
    """An angle as '1.62°'."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.2f}°"


def waiting(seconds: Mapping[str, float], repeats: Mapping[str, int]) -> str:
    """Where every second went: '9.4 s: reading 0.3, warm-up 1.2, dense 3 × 2.2, reduced 3 × 0.8, scores 0.4'.

    seconds: by name, in order; repeats: how often each of some names was run.
    """
    parts = []
    for name, spent in seconds.items():
        times = repeats.get(name, 1)
        parts.append(f"{name} {times} × {spent / times:.1f}" if times > 1 else f"{name} {spent:.1f}")
    return f"{sum(seconds.values()):.1f} s: {', '.join(parts)}"


def _digits(value: float) -> int:
    return 2 if value < 10 else 1 if value < 100 else 0
