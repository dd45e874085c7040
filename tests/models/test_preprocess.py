"""The resize rules of each family, against numbers recorded from the official loaders (tests/golden/parity)."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from spark3r import InputError, frames_for
from spark3r.frames.sampling import fitted_size
from spark3r.models.config import ModelConfig
from spark3r.models.families.da3 import DA3_SMALL
from spark3r.models.families.mini import MINI_CONFIG
from spark3r.models.families.omega import vggt_omega
from spark3r.models.families.pi3 import pi3
from spark3r.models.families.pi3x import pi3x
from spark3r.models.families.vggt import vggt
from spark3r.models.network import Network
from spark3r.models.preprocess import _cropped, fit_set, needed_side, network_size, resize, resize_plan, seen

GOLDEN = Path(__file__).parents[1] / "golden" / "parity"
CONFIGS = {"vggt": vggt(), "pi3": pi3(), "vggt_omega": vggt_omega(), "da3": DA3_SMALL}
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
CASES = [(model, case) for model in CONFIGS for case in json.loads((GOLDEN / model / "preprocess.json").read_text())]


def synthetic(index: int, width: int, height: int, alpha: bool) -> np.ndarray:
    """floor((7x + 5y + 60c + 31k) / 3) mod 256, with alpha 2 (x + y) mod 256."""
    y, x, c = np.ogrid[:height, :width, :3]
    image = ((7 * x + 5 * y + 60 * c + 31 * index) // 3 % 256).astype(np.uint8)
    if not alpha:
        return image
    return np.concatenate((image, (2 * (x + y) % 256).astype(np.uint8)), axis=2)


def name(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return f"{value['mode']}-{'+'.join('x'.join(map(str, size)) for size in value['sizes'])}"


@pytest.mark.parametrize(("model", "case"), CASES, ids=name)
def test_the_official_pixels(model: str, case: dict[str, Any]):
    rule = CONFIGS[model].resize
    if case["mode"] != "default":
        rule = replace(rule, mode=case["mode"])
    resolution = case.get("image_resolution") or case.get("process_res")
    if "pixel_limit" in case:
        rule = replace(rule, pixels=case["pixel_limit"])
    images = [synthetic(k, w, h, case.get("alpha", False)) for k, (w, h) in enumerate(case["sizes"])]
    values = fit_set(images, rule, resolution) / 255.0
    if model == "da3":
        values = (values - MEAN) / STD
    assert [len(values), 3, *values.shape[1:3]] == case["shape"]
    np.testing.assert_allclose(values.mean(axis=(0, 1, 2)), case["mean"], atol=2e-6)
    np.testing.assert_allclose(values.std(axis=(0, 1, 2)), case["std"], atol=2e-5)
    sampled = values[:, case["rows"]][:, :, case["cols"]].transpose(0, 3, 1, 2)
    np.testing.assert_allclose(sampled, np.array(case["samples"]).reshape(sampled.shape), atol=2e-6)


def test_pi3x_is_given_the_pixels_of_pi3():
    """Both official examples load images by the same lines."""
    assert pi3x().resize == pi3().resize


@pytest.mark.parametrize("config", [*CONFIGS.values(), MINI_CONFIG], ids=lambda config: config.name)
@pytest.mark.parametrize("size", [(480, 640), (640, 480), (270, 480), (17, 900)])
@pytest.mark.parametrize("resolution", [None, 224, 500])
def test_the_promised_size_is_the_size_given(config: ModelConfig, size: tuple[int, int], resolution: int | None):
    height, width = network_size(config, *size, resolution)
    assert height % config.patch == 0
    assert width % config.patch == 0
    frames = np.zeros((2, *size, 3), np.uint8)
    assert resize(config, frames, resolution).shape == (2, height, width, 3)


def test_frames_that_fit_are_passed_on_as_they_are():
    frames = np.random.default_rng(0).integers(0, 256, (2, 96, 128, 3), dtype=np.uint8)
    assert resize(MINI_CONFIG, frames) is frames


@pytest.mark.parametrize("resolution", [0, 13, 4096])
def test_an_unusable_resolution_says_what_is_legal(resolution: int):
    with pytest.raises(InputError, match=r"must lie between 14 and 2048 pixels for vggt; 518"):
        network_size(vggt(), 480, 640, resolution)


SHAPES = [(96, 128), (1080, 1920), (1920, 1080), (2000, 300), (300, 2000), (40, 40), (481, 641), (3024, 4032)]


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize("config", [*CONFIGS.values(), MINI_CONFIG], ids=lambda config: config.name)
@pytest.mark.parametrize("resolution", [None, 224])
def test_kept_frames_give_the_size_of_the_originals_and_are_never_enlarged(
    config: ModelConfig, height: int, width: int, resolution: int | None
) -> None:
    side = needed_side(config, height, width, resolution)
    kept = fitted_size(width, height, side)[::-1]
    assert side <= max(height, width)
    assert network_size(config, *kept, resolution) == network_size(config, height, width, resolution)  # pyright: ignore[reportCallIssue]
    if side < max(height, width):
        plan = resize_plan(config.resize, *kept, resolution)  # pyright: ignore[reportCallIssue]
        rows, columns = _cropped(np.empty((*kept, 3)), plan.crop_before).shape[:2]
        # Whole pixels cannot keep every aspect: half a pixel may be missing on the shorter side.
        assert all(rows >= size[0] - 0.5 and columns >= size[1] - 0.5 for size in plan.sizes[:1])


def test_a_portrait_is_kept_as_wide_as_the_network_crops_it(tmp_path: Path) -> None:
    """1080x1920 for VGGT: resized to 518x924, of which the middle 518 rows are seen; never 291x518, enlarged."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((1920, 1080, 3), np.uint8))
    kept = frames_for(tmp_path, Network(replace(MINI_CONFIG, resize=CONFIGS["vggt"].resize))).images
    assert kept.shape == (1, 924, 520, 3)


@pytest.mark.parametrize("size", [(480, 640), (640, 360), (1000, 300), (300, 1000)])
@pytest.mark.parametrize("model", [*CONFIGS, "mini"])
def test_the_part_of_a_frame_that_is_seen(model: str, size: tuple[int, int]) -> None:
    config = MINI_CONFIG if model == "mini" else CONFIGS[model]
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    ramp = np.stack([255 * rows / height, 255 * columns / width, 0 * rows], -1).astype(np.uint8)
    small = resize(config, ramp[None])[0].astype(float) / 255  # each pixel says where in the frame it lay
    top, left, part_height, part_width = seen(config, height, width)
    down, across = (np.arange(side) + 0.5 for side in small.shape[:2])
    middle = slice(2, -2)  # resampling blurs the ramp's ends
    assert np.allclose(small[middle, 5, 0], top + part_height * down[middle] / len(down), atol=0.015)
    assert np.allclose(small[5, middle, 1], left + part_width * across[middle] / len(across), atol=0.015)
    assert (part_height, part_width) == (1, 1) or model in ("vggt", "vggt_omega")
