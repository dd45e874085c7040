"""Camera faults change pictures as lenses and sensors do, and leave the truth alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from spark3r.training.scenes import domain, faults, sequences
from spark3r.training.scenes.faults import Faults

FRAMES, SIDE = 3, 32


def flawless(frames: int = FRAMES) -> Faults:
    return Faults(
        np.ones(frames), np.ones((frames, 3)), metering=0.0, blur=np.zeros((frames, 3)), vignette=0.0, gamma=1.0,
        contrast=1.0, haze=0.0, colour=1.0, noise=0.0, quality=None, seed=1,
    )  # fmt: skip


@pytest.fixture
def picture() -> torch.Tensor:
    return torch.rand(FRAMES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


def test_a_flawless_camera_changes_nothing(picture: torch.Tensor) -> None:
    assert torch.equal(faults.on_light(picture, flawless()), picture)
    torch.testing.assert_close(faults.on_picture(picture, flawless()), picture)
    torch.testing.assert_close(faults.metered(picture, flawless()), torch.ones(FRAMES))


def test_faults_leave_depth_and_cameras_alone() -> None:
    plan = domain.wild_plan(940_003_000, 4)
    assert plan.faults is not None
    seen, perfect = (
        sequences.render_clips([p], 1, 24, 32, samples=1) for p in (plan, replace(plan, faults=flawless(4)))
    )
    assert torch.equal(seen.depth, perfect.depth)
    assert torch.equal(seen.world_from_camera, perfect.world_from_camera)
    assert torch.equal(seen.intrinsics, perfect.intrinsics)
    assert (seen.images - perfect.images).abs().mean() > 0.005


def test_a_point_is_spread_along_the_motion_and_nothing_is_lost() -> None:
    point = torch.zeros(2, 1, SIDE, SIDE)
    point[:, :, 16, 16] = 1.0
    pixels = SIDE**2
    along_x = torch.tensor([[2.0 / pixels, 0.0, 0.0], [0.0, 0.0, 0.0]])
    spread = faults.blurred(point, along_x)
    torch.testing.assert_close(spread.sum((1, 2, 3)), torch.ones(2), atol=1e-4, rtol=0)
    columns = torch.arange(SIDE) - 16.0
    width = (spread[0, 0].sum(0) * columns**2).sum()
    height = (spread[0, 0].sum(1) * columns**2).sum()
    assert float(width) == pytest.approx(2.03, abs=0.15)
    assert float(height) < 0.05
    assert float(spread[1, 0, 16, 16]) > 0.99


def test_diagonal_motion_blurs_along_the_diagonal() -> None:
    point = torch.zeros(1, 1, SIDE, SIDE)
    point[..., 16, 16] = 1.0
    spread = faults.blurred(point, torch.tensor([[2.0, 1.9, 2.0]]) / SIDE**2)[0, 0]
    assert float(spread[18, 18]) > 5 * float(spread[14, 18])


def test_corners_are_darker_than_the_middle(picture: torch.Tensor) -> None:
    shaded = faults.on_light(torch.ones_like(picture), replace(flawless(), vignette=0.4))
    assert float(shaded[0, 0, 0, 0]) == pytest.approx(0.6)
    assert float(shaded[0, 0, SIDE // 2, SIDE // 2]) > 0.99


def test_metering_evens_out_the_light(picture: torch.Tensor) -> None:
    light = picture * torch.tensor([0.3, 1.0, 2.0])[:, None, None, None]
    gain = faults.metered(light, replace(flawless(), metering=1.0))
    even = (light * gain[:, None, None, None]).mean((1, 2, 3))
    torch.testing.assert_close(even, even[:1].expand(FRAMES), atol=1e-3, rtol=0)


def test_grey_haze_noise_and_jpeg(picture: torch.Tensor) -> None:
    grey = faults.on_picture(picture, replace(flawless(), colour=0.0))
    torch.testing.assert_close(grey[:, 0], grey[:, 2])
    assert float(faults.on_picture(picture, replace(flawless(), haze=0.1)).min()) >= 0.1
    noisy = [faults.on_picture(picture, replace(flawless(), noise=0.02, seed=seed)) for seed in (4, 4, 5)]
    assert torch.equal(noisy[0], noisy[1])
    assert not torch.equal(noisy[0], noisy[2])
    assert float((noisy[0] - picture).std()) == pytest.approx(0.02, rel=0.35)
    smooth = torch.linspace(0, 1, SIDE).expand(FRAMES, 3, SIDE, SIDE)
    for quality, worst in ((95, 0.03), (30, 0.1)):
        assert float((faults.on_picture(smooth, replace(flawless(), quality=quality)) - smooth).abs().max()) < worst


def test_contrast_parts_lights_from_darks_about_middle_grey(picture: torch.Tensor) -> None:
    hard = faults.on_picture(picture, replace(flawless(), contrast=1.8))
    assert float(hard.std()) > 1.3 * float(picture.std())
    assert bool((hard[picture > 0.5] >= picture[picture > 0.5]).all())
    assert bool((hard[picture < 0.4] <= picture[picture < 0.4]).all())


def test_drifts_go_with_the_path_when_it_is_resampled() -> None:
    plan = domain.wild_plan(940_003_100, 5)
    assert plan.faults is not None
    dense = plan.resampled(9)
    assert dense.faults is not None
    np.testing.assert_allclose(dense.faults.exposure[::2], plan.faults.exposure)
    np.testing.assert_allclose(dense.faults.blur[::2], plan.faults.blur)
    assert dense.faults.seed == plan.faults.seed
