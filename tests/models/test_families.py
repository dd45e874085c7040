"""Laws that every family obeys, at the size of its small oracle."""

import copy
import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from spark3r import ReductionSchedule, reconstruct
from spark3r.attention import Reduction
from spark3r.models import blocks
from spark3r.models.checkpoints import fill, skeleton
from spark3r.models.families.mini import mini_config
from spark3r.models.heads import metric
from spark3r.models.heads.points import focal_from_rays
from spark3r.models.network import Network, build
from spark3r.models.registry import ENTRIES
from spark3r.models.trunk import balanced_reference, reference_first
from spark3r.parity.check import read_oracle
from spark3r.parity.sizes import BUILDERS
from spark3r.reduction import SchedulePlanner
from spark3r.tokens import TokenLayout

GOLDEN = Path(__file__).parents[1] / "golden" / "parity"
FAMILIES = ("vggt", "pi3", "pi3x", "da3", "vggt_omega")
RESOLUTION = {"vggt": 42, "pi3": 48, "pi3x": 48, "da3": 56, "vggt_omega": 48}


@cache
def network(family: str) -> Network:
    path = GOLDEN / family / "tiny_s.safetensors"
    facts, _, state = read_oracle(path)
    config, converter = BUILDERS[family](facts)
    built = skeleton(config).eval().requires_grad_(False)
    fill(built, converter.translate(state, config), path.name)
    return built


def clip(frames: int) -> np.ndarray:
    return np.random.default_rng(frames).integers(0, 256, (frames, 48, 64, 3), dtype=np.uint8)


def images_for(family: str, frames: int) -> Tensor:
    side = network(family).config.patch
    return torch.rand(1, frames, 3, 3 * side, 4 * side, generator=torch.Generator().manual_seed(frames))


@pytest.mark.parametrize("family", FAMILIES)
def test_off_is_bit_equal_to_dense(family: str):
    images = images_for(family, 4)
    with torch.inference_mode():
        dense, off = network(family)(images), network(family)(images, SchedulePlanner(ReductionSchedule.off()))
    assert all(torch.equal(a, b) for a, b in zip(dense, off, strict=True))


def test_a_tap_keeps_the_frame_and_the_global_output_as_they_were():
    """Blocks update tokens in place; also where a frame block itself is tapped, and two taps share one frame block."""
    config = dataclasses.replace(mini_config(48, 3), taps=(0, 1, 4, 5))
    torch.manual_seed(0)
    trunk = build(config).eval().requires_grad_(False).trunk
    outputs: list[Tensor] = []
    for block in trunk.blocks:
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output.clone()))
    layout = trunk.layout(3, (2, 2))
    with torch.inference_mode():
        taps = trunk(torch.randn(3, 4, 48), layout)
    for (tap,), frame, last in zip(taps, (0, 0, 4, 4), config.taps, strict=True):
        for half, block in zip(tap.chunk(2, dim=-1), (frame, last), strict=True):
            torch.testing.assert_close(half.flatten(), outputs[block].flatten(), rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_auto_gives_a_whole_result(family: str, frames: int):
    scene = reconstruct(clip(frames), network(family), "auto", resolution=RESOLUTION[family])
    assert len(scene) == frames
    for values in (scene.depth, scene.confidence, scene.world_from_camera, scene.intrinsics):
        assert np.isfinite(values).all()
    assert (scene.depth > 0).all()
    assert ((scene.confidence > 0) & (scene.confidence <= 1)).all()
    rotation = scene.world_from_camera[:, :3, :3]
    np.testing.assert_allclose(rotation @ rotation.swapaxes(1, 2) - np.eye(3), np.zeros_like(rotation), atol=1e-4)
    assert scene.cost.kv_tokens <= scene.cost.tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_reduction_acts_in_global_layers_only(family: str):
    """The planner is asked once per global block, in order, about the tokens of the whole clip."""
    asked: list[tuple[int, tuple[int, ...], TokenLayout]] = []

    def plan(x: Tensor, layout: TokenLayout, layer: int) -> Reduction:
        asked.append((layer, tuple(x.shape), layout))
        return SchedulePlanner(ReductionSchedule(2, 4))(x, layout, layer)

    images = images_for(family, 6)
    with torch.inference_mode():
        dense, reduced = network(family)(images), network(family)(images, plan)
    config = network(family).config
    layout = TokenLayout(6, config.tokens.special, (3, 4))
    assert asked == [(layer, (1, layout.total, config.width), layout) for layer in range(len(config.global_blocks))]
    assert not torch.equal(dense.depth, reduced.depth)
    assert torch.isfinite(reduced.depth).all()


@pytest.mark.parametrize("family", [*FAMILIES, "mini"])
def test_of_tapped_layers_only_what_the_heads_read_is_kept(family: str):
    """Far fewer numbers than the layers have; offloaded they are the same numbers."""
    model = build(mini_config(96, 2)).eval().requires_grad_(False) if family == "mini" else network(family)
    config, side = model.config, model.config.patch
    images = torch.rand(5, 3, 3 * side, 4 * side, generator=torch.Generator().manual_seed(5))
    layout = model.trunk.layout(5, (3, 4))
    with torch.inference_mode():
        patches = model.encode(images).patches
        kept, offloaded = (model.aggregate(patches.clone(), layout, offload=each) for each in (False, True))
    whole = layout.total * 2 * config.width * len(config.taps)
    parts, others = ([part for tap in taps.dense for part in tap] for taps in (kept, offloaded))
    assert sum(part.numel() for part in parts) <= whole if family in ("mini", "pi3", "pi3x") else whole / 2
    for a, b in zip([*parts, *kept.camera], [*others, *offloaded.camera], strict=True):
        assert torch.equal(a, b)
    again, once = (model.dense(kept, model.encode(images).skip, slice(None), 3 * side, 4 * side) for _ in range(2))
    assert torch.equal(again.depth, once.depth)  # heads leave what was kept as it is


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_and_chunks_change_nothing(family: str, monkeypatch: pytest.MonkeyPatch):
    whole = reconstruct(clip(5), network(family), None, resolution=RESOLUTION[family])
    monkeypatch.setattr(blocks, "rows_at_once", lambda *_: 1)
    monkeypatch.setattr("spark3r.inference.FRAMES_AT_ONCE", 2)
    monkeypatch.setattr("spark3r.models.trunk._FRAMES_READ_AT_ONCE", 2)
    parts = reconstruct(clip(5), network(family), None, resolution=RESOLUTION[family])
    for name in ("depth", "confidence", "world_from_camera", "intrinsics"):
        a, b = getattr(whole, name), getattr(parts, name)
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(a).max(), err_msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_and_inference_are_the_same_network(family: str):
    """Without gradients blocks update in place and in parts; with them they do not."""
    images = images_for(family, 3)
    with torch.inference_mode():
        lean = network(family)(images)
    plain = network(family)(images)
    for a, b in zip(lean, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


@pytest.mark.parametrize(
    ("family", "order"),
    [("pi3", [3, 1, 4, 0, 2]), ("pi3x", [3, 1, 4, 0, 2]), ("da3", [3, 1, 4, 0, 2]), ("vggt", [0, 3, 1, 4, 2])],
)
def test_frames_may_come_in_another_order(family: str, order: list[int]):
    """π³ knows no first frame, Depth Anything 3 picks its reference by content, VGGT needs only its first frame."""
    images = images_for(family, 5)
    with torch.inference_mode():
        straight, shuffled = network(family)(images), network(family)(images[:, order])
    torch.testing.assert_close(shuffled.depth, straight.depth[:, order], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(shuffled.intrinsics, straight.intrinsics[:, order], rtol=1e-3, atol=1e-2)


def test_pi3x_says_depths_and_poses_in_its_metres(monkeypatch: pytest.MonkeyPatch):
    """Twice as many metres per unit double depths and places and turn nothing; parts say what the whole says."""
    model, images = network("pi3x"), torch.cat((images_for("pi3x", 5), images_for("pi3x", 5).flip(3)))
    with torch.inference_mode():
        before = model(images)
        monkeypatch.setattr(metric, "_FRAMES_AT_ONCE", 2)
        in_parts = model(images)
        doubled = copy.deepcopy(model)
        doubled.get_submodule("metric_head.log_metres").bias += np.log(2)
        after = doubled(images)
    torch.testing.assert_close(in_parts.depth, before.depth, rtol=1e-5, atol=0)
    torch.testing.assert_close(after.depth, 2 * before.depth)
    torch.testing.assert_close(after.intrinsics, before.intrinsics)
    places, twice = (each.world_from_camera[..., :3, 3] for each in (before, after))
    torch.testing.assert_close(twice, 2 * places)
    torch.testing.assert_close(after.world_from_camera[..., :3, :3], before.world_from_camera[..., :3, :3])


def test_the_reference_frame_stands_first_in_the_trunk_and_keeps_its_patches():
    da3 = network("da3")
    images = images_for("da3", 5)
    seen: list[Tensor] = []

    def plan(x: Tensor, layout: TokenLayout, layer: int) -> Reduction:
        assert layout.reference == 0
        return Reduction()

    def keep(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].clone())

    hook = da3.trunk.blocks[0].register_forward_pre_hook(keep)
    with torch.inference_mode():
        encoded = da3.encode(images[0]).patches
        chosen = int(balanced_reference(encoded[None, :, 0]))
        if chosen == 0:  # so that it has to move
            images, chosen = images[:, [1, 0, 2, 3, 4]], 1
            encoded = da3.encode(images[0]).patches
        da3(images, plan)
    hook.remove()
    torch.testing.assert_close(seen[0][0], encoded[chosen])


def test_the_reference_comes_first_and_the_others_keep_their_order():
    assert reference_first(torch.tensor([3, 0]), 5).tolist() == [[3, 0, 1, 2, 4], [0, 1, 2, 3, 4]]


def test_the_focal_length_of_a_pinhole_camera_is_recovered_from_its_rays():
    rows, columns = torch.meshgrid(torch.arange(30.0), torch.arange(40.0), indexing="ij")
    ray = torch.stack(((columns - 19.5) / 55, (rows - 14.5) / 50))[None]
    focal, principal = focal_from_rays(ray, torch.rand(1, 30, 40))
    torch.testing.assert_close(focal, torch.tensor([[55.0, 50.0]]))
    assert principal == (19.5, 14.5)


def test_a_focal_length_stays_finite_where_rays_make_no_sense():
    focal, _ = focal_from_rays(-torch.rand(1, 2, 4, 5), torch.ones(1, 4, 5))
    assert torch.isfinite(focal).all()
    assert (focal > 0).all()


@pytest.mark.parametrize(
    ("name", "layers", "of"),
    [
        ("vggt", range(11, 17), 24),
        ("pi3", range(11, 17), 18),
        ("pi3x", range(11, 17), 18),
        ("da3-giant", range(3, 13), 14),
        ("vggt-omega", (*range(7, 14), 16), 19),
    ],
)
def test_the_papers_sensitive_layers_are_the_default(name: str, layers: tuple[int, ...], of: int):
    """Global layers are counted; the paper names VGGT-Ω's by their inter-frame blocks: 10–13, 15–17, 21."""
    config = ENTRIES[name].config
    assert len(config.global_blocks) == of
    assert config.sensitive_layers == tuple(layers)
