"""The training loop learns, can be interrupted, and its targets obey geometry."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spark3r.errors import InputError
from spark3r.models.checkpoints import load_model
from spark3r.models.config import BlockConfig
from spark3r.models.families.mini import MINI_CONFIG, mini_config
from spark3r.training.batches import Stream, augmented, frames_at, micro_batches_of, nearly_16_to_9
from spark3r.training.config import TrainingConfig
from spark3r.training.loop import learner_of, train, train_step
from spark3r.training.losses import Predicted, depth_losses, point_loss, pose_losses
from spark3r.training.muon import orthogonal
from spark3r.training.scenes import sequences
from spark3r.training.supervise import WATCHED_FRAMES, matches_of, watched
from spark3r.training.targets import Targets, targets_of, world_points
from spark3r.training.workers import StepPlan, WorkerPool, losses_of

BLOCKS = (BlockConfig("frame", layer_scale=False), BlockConfig("global", layer_scale=False)) * 2
SMALL = replace(MINI_CONFIG, width=48, heads=2, blocks=BLOCKS, taps=(1, 3))
TINY = TrainingConfig(
    folder=Path("unused"), matching_layers=(1,), reference_layers=(3,), auxiliary_layers=(1,), steps=4,
    height=32, width=48, frames_per_step=4, samples_per_pixel=1, autocast=False, compile_renderer=False, reuse=1,
    micro_batches_per_step=2, validation_clips=1, validation_frames=2, warmup_steps=1, validate_every_minutes=1e9,
    save_every_minutes=1e9,
)  # fmt: skip


@pytest.fixture(scope="module")
def truth() -> Targets:
    return targets_of(sequences.sample(940_001_000, 2, 3, 32, 48, samples=1))


def perfect(truth: Targets) -> Predicted:
    from spark3r.geometry import quaternion_from_matrix

    turn = quaternion_from_matrix(truth.world_from_camera[..., :3, :3])
    pose = torch.cat([truth.world_from_camera[..., :3, 3], turn, truth.field_of_view()], -1)
    return Predicted(truth.depth, torch.zeros_like(truth.depth), pose, truth.world_from_camera)


def test_the_world_is_the_middle_camera_and_has_unit_size(truth: Targets) -> None:
    middle = truth.world_from_camera[:, truth.reference]
    torch.testing.assert_close(middle, torch.eye(4).expand_as(middle), atol=1e-5, rtol=0)
    torch.testing.assert_close(truth.points.norm(dim=-1).mean((1, 2, 3)), torch.ones(2))
    again = world_points(truth.depth, truth.rays, truth.world_from_camera)
    torch.testing.assert_close(again, truth.points, atol=1e-4, rtol=1e-4)


def test_the_truth_has_no_loss(truth: Targets) -> None:
    answer = perfect(truth)
    parts = depth_losses(answer, truth) | pose_losses(answer, truth) | {"point": point_loss(answer, truth)}
    for name in ("depth", "gradient", "translation", "rotation", "pair", "fov", "point"):
        assert float(parts[name]) < 5e-3, name


def test_confidence_alone_feels_the_laplace_term(truth: Targets) -> None:
    depth = (truth.depth * 1.2).requires_grad_()
    logit = torch.zeros_like(depth).requires_grad_()
    depth_losses(perfect(truth)._replace(depth=depth, confidence_logit=logit), truth)["confidence"].backward()
    assert depth.grad is None
    best = -np.log(np.log(1.2))  # logit = -log b, with b the error itself
    sharper = depth_losses(perfect(truth)._replace(depth=depth, confidence_logit=torch.full_like(depth, best)), truth)
    for other in (best - 0.3, best + 0.3):
        answer = perfect(truth)._replace(depth=depth, confidence_logit=torch.full_like(depth, other))
        assert sharper["confidence"] < depth_losses(answer, truth)["confidence"]


def test_an_augmented_clip_is_a_true_clip() -> None:
    clips = sequences.sample(940_001_100, 1, 3, 32, 48, samples=1)
    plain = targets_of(clips)
    for seed in range(4):
        other = targets_of(augmented(clips, np.random.default_rng(seed)))
        matches = matches_of(other, 16)
        assert matches.seen.float().mean() == pytest.approx(float(matches_of(plain, 16).seen.float().mean()), abs=0.2)
        turn = other.world_from_camera[..., :3, :3]
        torch.testing.assert_close(torch.linalg.det(turn), torch.ones(turn.shape[:2]), atol=1e-4, rtol=0)


def test_a_patch_matches_itself(truth: Targets) -> None:
    matches = matches_of(truth, 16)
    own = matches.place[:, torch.arange(3), torch.arange(3)].round()
    grid = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(3), indexing="ij")[::-1], -1).flatten(0, 1).float()
    torch.testing.assert_close(own, grid.expand_as(own))
    assert bool(matches.seen[:, torch.arange(3), torch.arange(3)].all())


def test_orthogonal_updates_have_even_singular_values() -> None:
    values = torch.linalg.svdvals(orthogonal(torch.randn(2, 24, 48, generator=torch.Generator().manual_seed(0))))
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.4


def test_pieces_hold_every_clip_once() -> None:
    config = replace(TINY, frames_per_step=48, micro_batches_per_step=4)
    for frames in (2, 3, 4, 6, 8, 12):
        sizes = micro_batches_of(config, frames)
        assert sum(sizes) == 48 // frames
        assert max(sizes) - min(sizes) <= 1
    stream = Stream(TINY)
    shares = [stream.micro_batch(0, 2, micro_batch)[1] for micro_batch in range(2)]
    assert sum(shares) == pytest.approx(1.0)


def test_steps_on_one_batch_lower_its_loss() -> None:
    config = replace(TINY, reuse=100, learning_rate=4e-3)
    learner = learner_of(config, SMALL)
    pool = WorkerPool(config, learner.network, learner.supervision)
    losses = [train_step(learner, pool, config, 0.5)["loss"] for _ in range(12)]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    assert pool.gradients_of(StepPlan(0, learner.frames, None)).keys() >= {"loss", "matching", "reference", "auxiliary"}


def test_a_resumed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = train(replace(TINY, folder=tmp_path / "whole", steps=3), SMALL)
    train(replace(TINY, folder=tmp_path / "parts", steps=3, stop_after=2), SMALL)
    resumed = train(replace(TINY, folder=tmp_path / "parts", steps=3), SMALL)
    assert resumed.step == whole.step == 3
    for a, b in zip(whole.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(whole.average.parameters(), resumed.average.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_two_processes_find_the_gradients_of_one() -> None:
    plan = StepPlan(0, 2, None)
    gradients = []
    for workers in (1, 2):
        config = replace(TINY, workers=workers)
        learner = learner_of(config, SMALL)
        pool = WorkerPool(config, learner.network, learner.supervision)
        pool.gradients_of(plan)
        gradients.append(pool.worker.gradient.clone())
        pool.close()
    assert float(gradients[0].norm()) > 0.1
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-4, rtol=1e-3)


def test_a_larger_model_is_trained_and_loads_by_its_file(tmp_path: Path) -> None:
    config = replace(TINY, folder=tmp_path, steps=1)
    train(config, mini_config(channels=96, pairs=3))
    loaded = load_model(str(tmp_path / "best.safetensors"), "cpu", "float32")
    assert (loaded.config.width, loaded.config.heads, len(loaded.config.blocks), loaded.config.taps) == (
        96,
        2,
        6,
        (1, 5),
    )
    grown = learner_of(replace(config, resume_weights=tmp_path / "best.safetensors"), SMALL)
    assert grown.network.config == loaded.config


@pytest.mark.parametrize(("layers", "sentence"), [((2,), "sees one frame only"), ((5,), "the model has 4")])
def test_supervised_blocks_must_exist_and_see_all_frames(layers: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        learner_of(replace(TINY, matching_layers=layers), SMALL)


def test_processes_share_a_cpu_only() -> None:
    with pytest.raises(InputError, match="must be 1"):
        train(replace(TINY, workers=2, device="cuda"), SMALL)


def test_depth_of_every_second_frame_has_the_losses_of_those_frames(truth: Targets) -> None:
    learner = learner_of(TINY, SMALL)
    clips = sequences.sample(940_001_300, 2, 4, 32, 48, samples=1)
    four = targets_of(clips)
    with torch.no_grad():
        prediction = learner.network(four.images)
        every, second = (losses_of(learner.network, learner.supervision, four, False, step, 1) for step in (1, 2))
    half = slice(1, None, 2)
    some = Predicted(*(getattr(prediction, name)[:, half] for name in Predicted._fields))
    expected = depth_losses(some, four.some(half)) | {"point": point_loss(some, four.some(half))}
    for name, value in expected.items():
        torch.testing.assert_close(second[name], value, msg=name)
    for name in ("translation", "rotation", "pair", "fov", "matching", "reference", "auxiliary"):
        torch.testing.assert_close(second[name], every[name], msg=name)


def test_frames_of_odd_clips_are_all_supervised(truth: Targets) -> None:
    learner = learner_of(TINY, SMALL)
    with torch.no_grad():
        every, second = (losses_of(learner.network, learner.supervision, truth, False, step) for step in (1, 2))
    torch.testing.assert_close(second["depth"], every["depth"])


def test_long_clips_have_some_frames_watched_and_short_ones_all() -> None:
    for frames in (2, 12, 13, 24, 32, 48):
        for offset in (3, 5, 7):
            some = range(frames)[watched(frames, offset)]
            assert 1 <= len(some) <= WATCHED_FRAMES
            assert frames > WATCHED_FRAMES or len(some) == frames


def test_clips_grow_longer_as_training_goes_on() -> None:
    config = replace(TINY, frames_per_step=48, short_until=0.1, long_from=0.3, longest_from=0.6)
    longest = [max(frames_at(config, p, np.random.default_rng(i)) for i in range(60)) for p in (0.05, 0.2, 0.4, 0.7)]
    assert longest == [4, 8, 24, 48]
    assert micro_batches_of(config, 48) == [1, 1]


@pytest.mark.parametrize(("portrait", "cropped", "shape"), [(1, 0, (48, 32)), (0, 1, (32, 48)), (1, 1, (48, 32))])
def test_a_step_has_clips_of_one_shape(portrait: float, cropped: float, shape: tuple[int, int]) -> None:
    stream = Stream(replace(TINY, portrait=portrait, cropped=cropped))
    for micro_batch in range(2):
        assert stream.micro_batch(0, 2, micro_batch)[0].images.shape[-2:] == shape


def test_crops_are_nearly_16_to_9_in_whole_patches() -> None:
    for (height, width), patch, wanted in [
        ((96, 128), 16, (80, 128)),
        ((128, 96), 16, (128, 80)),
        ((96, 128), 8, (72, 128)),
    ]:
        images = torch.zeros(1, 1, 3, height, width)
        clips = sequences.Clips(images, images[:, :, 0], torch.eye(4)[None, None], torch.eye(3)[None, None])
        assert nearly_16_to_9(clips, patch).images.shape[-2:] == wanted


def test_finer_tokens_start_from_what_fits_of_other_weights(tmp_path: Path) -> None:
    train(replace(TINY, folder=tmp_path, steps=1), mini_config(96, 2, 16, (32, 48)))
    source = load_model(str(tmp_path / "best.safetensors"), "cpu", "float32")
    finer = mini_config(96, 2, 8, (32, 48))
    network = learner_of(replace(TINY, start_from=tmp_path / "best.safetensors"), finer).network
    assert network.grid(32, 48) == (4, 6)
    torch.testing.assert_close(network.trunk.blocks[0].attn.qkv.weight, source.trunk.blocks[0].attn.qkv.weight)  # pyright: ignore[reportAttributeAccessIssue]
    assert network.encoder.gather.weight.shape != source.encoder.gather.weight.shape  # pyright: ignore[reportAttributeAccessIssue]
    with torch.no_grad():
        assert network(torch.rand(1, 2, 3, 32, 48)).depth.shape == (1, 2, 32, 48)


@pytest.mark.parametrize("patch", [6, 20])
def test_a_patch_must_divide_the_image(patch: int) -> None:
    with pytest.raises(InputError, match="patch"):
        mini_config(patch=patch)
