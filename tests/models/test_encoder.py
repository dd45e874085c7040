"""What mini sees of a picture: in dark frames as much as in bright ones."""

from dataclasses import replace

import torch

from spark3r.models.config import StemConfig
from spark3r.models.encoder import StemEncoder, brightened
from spark3r.models.families.mini import BRIGHTNESS, MINI_CONFIG


def frames() -> torch.Tensor:
    """A dark, a middling and a bright frame [3, 3, 32, 48]."""
    return (
        torch.rand(3, 3, 32, 48, generator=torch.Generator().manual_seed(3))
        * torch.tensor([0.5, 0.9, 0.2])[:, None, None, None]
        + torch.tensor([0.05, 0.05, 0.78])[:, None, None, None]
    )


def test_dark_frames_are_brightened_in_order_and_bright_ones_stay() -> None:
    before = frames()
    after = brightened(before, BRIGHTNESS)
    torch.testing.assert_close(after[2], before[2])
    means = after.mean((1, 2, 3))
    assert bool((means[:2] - BRIGHTNESS).abs().max() < 0.05)
    order = before[0].flatten().argsort()
    assert bool((after[0].flatten()[order].diff() >= 0).all())
    black_and_white = torch.tensor([0.0, 1.0]).expand(1, 3, 4, 2)
    torch.testing.assert_close(brightened(black_and_white, BRIGHTNESS), black_and_white, atol=0.03, rtol=0)
    assert bool(brightened(torch.zeros(1, 3, 4, 4), BRIGHTNESS).isfinite().all())


def test_each_frame_is_brightened_by_itself() -> None:
    together = brightened(frames(), BRIGHTNESS)
    torch.testing.assert_close(together[:1], brightened(frames()[:1], BRIGHTNESS))


def test_an_encoder_that_brightens_sees_dark_and_darker_alike() -> None:
    torch.manual_seed(1)
    dark, stem = frames()[1:2], MINI_CONFIG.encoder
    darker = dark**1.3
    assert isinstance(stem, StemConfig)
    encoder, plain = StemEncoder(MINI_CONFIG, stem), StemEncoder(MINI_CONFIG, replace(stem, brightness=None))
    plain.load_state_dict(encoder.state_dict())
    with torch.inference_mode():
        gap = (encoder(dark).patches - encoder(darker).patches).abs().mean()
        assert gap < 0.5 * (plain(dark).patches - plain(darker).patches).abs().mean()
