"""reconstruct(): the service around the network, with a small random one."""

import itertools
import sys

import numpy as np
import pytest
import torch

from spark3r import (
    Cancelled,
    DoesNotFit,
    InputError,
    Progress,
    ReductionSchedule,
    estimate,
    network_size,
    reconstruct,
)
from spark3r.models.families.mini import MINI_CONFIG
from spark3r.models.network import Network, build
from spark3r.models.preprocess import to_tensor
from spark3r.reduction import SchedulePlanner
from spark3r.stages import STAGES


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return build(MINI_CONFIG).eval().requires_grad_(False)


def clip(frames: int, height: int = 96, width: int = 128) -> np.ndarray:
    return np.random.default_rng(frames).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def test_the_result_is_what_the_network_says(network: Network):
    """Chunks, hooks and copies change nothing: 20 frames cross a chunk border."""
    images = clip(20)
    scene = reconstruct(images, network, None)
    with torch.inference_mode():
        raw = network(to_tensor(images, network.device)[None])
    np.testing.assert_allclose(scene.depth, raw.depth[0].numpy(), rtol=1e-4)
    np.testing.assert_allclose(scene.confidence, torch.sigmoid(raw.confidence_logit[0]).numpy(), rtol=1e-4)
    np.testing.assert_allclose(scene.world_from_camera, raw.world_from_camera[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(scene.intrinsics, raw.intrinsics[0].numpy(), rtol=1e-5)
    np.testing.assert_array_equal(scene.images, images)


@pytest.mark.parametrize("schedule", [None, "auto", ReductionSchedule(2, 4), ReductionSchedule(64, 1024)])
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_any_length_and_schedule_gives_a_whole_result(network: Network, frames: int, schedule: ReductionSchedule):
    scene = reconstruct(clip(frames), network, schedule)
    assert len(scene) == frames
    assert np.isfinite(scene.depth).all()
    assert (scene.depth > 0).all()
    assert (scene.confidence > 0).all()
    assert (scene.confidence <= 1).all()


def test_off_is_bit_equal_to_dense(network: Network):
    images = clip(5)
    dense, off = reconstruct(images, network, None), reconstruct(images, network, ReductionSchedule.off())
    np.testing.assert_array_equal(dense.depth, off.depth)
    np.testing.assert_array_equal(dense.world_from_camera, off.world_from_camera)


def test_reduction_changes_the_result_and_the_counts(network: Network):
    images = clip(12)
    dense, reduced = reconstruct(images, network, None), reconstruct(images, network, ReductionSchedule(2, 4))
    assert not np.array_equal(dense.depth, reduced.depth)
    assert dense.cost.tokens == dense.cost.query_tokens == dense.cost.kv_tokens == 12 * 50
    assert (reduced.cost.query_tokens, reduced.cost.kv_tokens) == (12 * 2 + 6 * 48, 12 * 2 + 4 * 48)


def test_cost_adds_up(network: Network):
    cost = reconstruct(clip(8), network, ReductionSchedule(2, 2)).cost
    assert set(cost.milliseconds) == {*STAGES, "total"}
    assert all(value >= 0 for value in cost.milliseconds.values())
    stages = sum(cost.milliseconds[stage] for stage in STAGES)
    assert 0 < stages <= cost.total_ms
    assert cost.milliseconds["matching"] > 0
    assert cost.peak_bytes > 0


def test_progress_climbs_to_the_end_and_names_its_stages(network: Network):
    seen: list[Progress] = []
    reconstruct(clip(20), network, None, progress=seen.append)
    assert all(a.fraction <= b.fraction for a, b in itertools.pairwise(seen))
    assert seen[0].fraction == 0
    assert 0.5 < seen[-1].fraction < 1
    assert {step.stage for step in seen} == {"encoder", "frame_attention", "global_attention", "heads"}


@pytest.mark.parametrize("stop_at", ["encoder", "frame_attention", "global_attention", "heads"])
def test_cancel_takes_effect_before_the_next_block(network: Network, stop_at: str):
    seen: list[str] = []

    def cancel() -> bool:
        return bool(seen) and seen[-1] == stop_at

    with pytest.raises(Cancelled):
        reconstruct(clip(20), network, None, progress=lambda step: seen.append(step.stage), cancel=cancel)
    assert seen.count(stop_at) == 1
    again = reconstruct(clip(2), network, None)  # hooks are gone, the network is usable
    assert len(again) == 2
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in network.trunk.blocks)


def test_a_clip_that_does_not_fit_says_what_to_lower_before_any_work(network: Network, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules["spark3r.estimate"], "available_bytes", lambda device: 150 << 20)
    seen: list[Progress] = []
    with pytest.raises(DoesNotFit, match=r"take at most \d+ frames, or lower the resolution"):
        reconstruct(np.zeros((2000, 96, 128, 3), np.uint8), network, "auto", progress=seen.append)
    assert not seen


def test_the_longest_clip_that_is_promised_does_fit(network: Network, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules["spark3r.estimate"], "available_bytes", lambda device: 150 << 20)
    with pytest.raises(DoesNotFit) as caught:
        reconstruct(np.zeros((500, 96, 128, 3), np.uint8), network, None)
    promised = int(str(caught.value).split("at most ")[1].split()[0])
    assert estimate(network, promised, 96, 128).fits
    assert not estimate(network, promised + 1, 96, 128).fits


@pytest.mark.slow
def test_estimate_covers_what_a_run_takes(network: Network):
    images = clip(60)
    reconstruct(images, network, None)
    assert reconstruct(images, network, None).cost.peak_bytes < 1.1 * estimate(network, 60, 96, 128).needed_bytes


@pytest.mark.parametrize(
    ("size", "resolution", "expected"),
    [
        ((480, 640), None, (96, 128)),
        ((640, 480), None, (128, 96)),
        ((1080, 1920), None, (64, 128)),
        ((100, 4000), None, (16, 128)),
        ((480, 640), 256, (192, 256)),
        ((48, 64), None, (96, 128)),
    ],
)
def test_network_size_keeps_the_aspect(network: Network, size: tuple[int, int], resolution: int, expected: tuple):
    assert network_size(network, *size, resolution) == expected
    scene = reconstruct(clip(1, *size), network, None, resolution=resolution)
    assert scene.depth.shape[1:] == expected


@pytest.mark.parametrize("resolution", [0, -5, 8, 10_000])
def test_a_resolution_out_of_range_is_refused(network: Network, resolution: int):
    with pytest.raises(InputError, match="resolution="):
        reconstruct(clip(1), network, None, resolution=resolution)


@pytest.mark.parametrize(
    "wrong", [np.zeros((0, 96, 128, 3), np.uint8), np.zeros((96, 128, 3), np.uint8), np.zeros((1, 96, 128, 3))]
)
def test_an_array_that_is_no_clip_is_refused(network: Network, wrong: np.ndarray):
    with pytest.raises(InputError):
        reconstruct(wrong, network, None)


def test_an_unknown_schedule_is_refused(network: Network):
    with pytest.raises(InputError, match="schedule 'fast'"):
        reconstruct(clip(1), network, "fast")  # pyright: ignore[reportArgumentType]


def test_bfloat16_stays_close_to_float32():
    torch.manual_seed(0)
    network = build(MINI_CONFIG).eval().requires_grad_(False)
    images = clip(4)
    exact = reconstruct(images, network, ReductionSchedule(2, 2))
    network.set_dtype(torch.bfloat16)
    coarse = reconstruct(images, network, ReductionSchedule(2, 2))
    assert coarse.dtype == "bfloat16"
    assert float(np.median(np.abs(coarse.depth / exact.depth - 1))) < 0.02


def test_a_clip_is_reduced_alike_alone_and_in_a_batch(network: Network):
    images = torch.stack([to_tensor(clip(6)[order], network.device) for order in (slice(None), slice(None, None, -1))])
    plan = SchedulePlanner(ReductionSchedule(2, 3, group_size=4))
    with torch.inference_mode():
        both = network(images, plan)
        for row in range(2):
            alone = network(images[row : row + 1], plan)
            torch.testing.assert_close(both.depth[row], alone.depth[0], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [None, ReductionSchedule(2, 3)])
def test_an_offloaded_run_says_the_same(network: Network, schedule: ReductionSchedule | None):
    kept = reconstruct(clip(20), network, schedule)
    network.offload = True
    try:
        offloaded = reconstruct(clip(20), network, schedule)
    finally:
        network.offload = False
    assert np.array_equal(kept.depth, offloaded.depth)
    assert np.array_equal(kept.world_from_camera, offloaded.world_from_camera)
