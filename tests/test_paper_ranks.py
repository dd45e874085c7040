"""Many cards on paper: one rank changes nothing, and what travels is what the seam moves."""

import pytest

from spark3r.benchmark.paper import STAGES, gpu_named
from spark3r.benchmark.paper_ranks import LINKS, shared
from spark3r.errors import InputError
from spark3r.models.registry import named
from spark3r.reduction import ReductionSchedule

CONFIG = named("vggt").config
ROW = {
    "frames": 1000, "height": 392, "width": 518, "peak_bytes": 20 << 30,
    **{f"{stage}_ms": 1000.0 for stage in STAGES}, "aggregator_ms": 3000.0, "total_ms": 1000.0 * len(STAGES),
}  # fmt: skip
AUTO = ReductionSchedule.auto(1000, CONFIG.sensitive_layers)


def test_one_rank_is_one_card() -> None:
    row = shared(ROW, CONFIG, AUTO, gpu_named("h100"), 1, "nvlink")
    assert row["total_ms"] == ROW["total_ms"]
    assert row["link_bytes"] == 0


def test_what_is_kept_travels() -> None:
    """VGGT, 1,000 frames, auto: 40 frames' worth (13 in insensitive layers) and the special tokens of all frames."""
    row = shared(ROW, CONFIG, AUTO, gpu_named("h100"), 4, "nvlink")
    patches, special, width = 28 * 37, 5 * 1000, 1024
    expected = 0
    for layer in range(24):
        frames = 40 if layer in CONFIG.sensitive_layers else 14  # pyright: ignore[reportOperatorIssue]
        expected += (frames * patches + special) * width * 2 * 3 / 4
    assert row["link_bytes"] == pytest.approx(expected, rel=0.01)
    assert ROW["total_ms"] / 4 < row["total_ms"] < ROW["total_ms"] / 3
    slower = shared(ROW, CONFIG, AUTO, gpu_named("h100"), 4, "ethernet100g")
    assert slower["link_ms"] == pytest.approx(row["link_ms"] * LINKS["nvlink"] / LINKS["ethernet100g"])


def test_dense_moves_keys_and_values_of_all() -> None:
    row = shared(ROW, CONFIG, ReductionSchedule.off(), gpu_named("h100"), 2, "pcie")
    assert row["link_bytes"] == pytest.approx(24 * 1000 * 1041 * 1024 * 2 * 2 / 2)


def test_what_means_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="--link carrier: must be one of nvlink"):
        shared(ROW, CONFIG, AUTO, gpu_named("h100"), 2, "carrier")
    with pytest.raises(InputError, match="--ranks 0"):
        shared(ROW, CONFIG, AUTO, gpu_named("h100"), 0, "nvlink")
