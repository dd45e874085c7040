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
from spark3r.training.batches import Stream, disguised, pieces_of
from spark3r.training.config import TrainingConfig
from spark3r.training.loop import learner_of, train, train_step
from spark3r.training.losses import Answer, depth_losses, point_loss, pose_losses
from spark3r.training.muon import orthogonal
from spark3r.training.scenes import sequences
from spark3r.training.supervise import matches_of
from spark3r.training.targets import Targets, targets_of, world_points
from spark3r.training.workers import StepPlan, WorkerPool

BLOCKS = (BlockConfig("frame", layer_scale=False), BlockConfig("global", layer_scale=False)) * 2
SMALL = replace(MINI_CONFIG, width=48, heads=2, blocks=BLOCKS, taps=(1, 3))
TINY = TrainingConfig(
    folder=Path("unused"), matching_layers=(1,), reference_layers=(3,), auxiliary_layers=(1,), steps=4,
    height=32, width=48, frames_per_step=4, samples_per_pixel=1, autocast=False, compile_renderer=False, reuse=1,
    pieces_per_step=2, validation_clips=1, validation_frames=2, warmup_steps=1, validate_every_minutes=1e9,
    save_every_minutes=1e9,
)  # fmt: skip


@pytest.fixture(scope="module")
def truth() -> Targets:
    return targets_of(sequences.sample(940_001_000, 2, 3, 32, 48, samples=1))


def perfect(truth: Targets) -> Answer:
    from spark3r.geometry import quaternion_from_matrix

    turn = quaternion_from_matrix(truth.world_from_camera[..., :3, :3])
    pose = torch.cat([truth.world_from_camera[..., :3, 3], turn, truth.field_of_view()], -1)
    return Answer(truth.depth, torch.zeros_like(truth.depth), pose, truth.world_from_camera)


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


def test_a_disguised_clip_is_a_true_clip() -> None:
    clips = sequences.sample(940_001_100, 1, 3, 32, 48, samples=1)
    plain = targets_of(clips)
    for seed in range(4):
        other = targets_of(disguised(clips, np.random.default_rng(seed)))
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
    config = replace(TINY, frames_per_step=48, pieces_per_step=4)
    for frames in (2, 3, 4, 6, 8, 12):
        sizes = pieces_of(config, frames)
        assert sum(sizes) == 48 // frames
        assert max(sizes) - min(sizes) <= 1
    stream = Stream(TINY)
    shares = [stream.piece(0, 2, piece)[1] for piece in range(2)]
    assert sum(shares) == pytest.approx(1.0)


def test_steps_on_one_batch_lower_its_loss() -> None:
    config = replace(TINY, reuse=100, rate=4e-3)
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
