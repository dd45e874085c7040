"""Laws of rotations, similarities and alignment."""

import numpy as np
import pytest
import torch

from spark3r.geometry import (
    Similarity,
    align_cameras,
    matrix_from_quaternion,
    nearest_rotation,
    path_spread,
    quaternion_from_matrix,
    rotation_degrees,
    umeyama,
    unproject,
)
from tests.analytic import HALF_ROOM, room_walk, turned


def random_similarity(seed: int) -> Similarity:
    random = np.random.default_rng(seed)
    rotation = turned(random.normal(size=3), random.uniform(0, 180))
    return Similarity(float(random.uniform(0.1, 9)), rotation, random.normal(size=3) * 5)


def assert_same(a: Similarity, b: Similarity, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(a.scale, b.scale, rtol=tolerance)
    np.testing.assert_allclose(a.rotation, b.rotation, atol=tolerance)
    np.testing.assert_allclose(a.translation, b.translation, atol=10 * tolerance)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_quaternion_and_matrix_are_inverse_up_to_length_and_sign(shape):
    quaternion = torch.randn(*shape, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rotation = matrix_from_quaternion(quaternion)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).double().expand_as(rotation))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(shape, dtype=torch.float64))
    unit = quaternion / quaternion.norm(dim=-1, keepdim=True)
    unit = torch.where(unit[..., 3:] < 0, -unit, unit)
    torch.testing.assert_close(quaternion_from_matrix(rotation), unit)


def test_quaternion_order_is_xyzw_and_turns_right_handed():
    quarter_about_z = torch.tensor([0.0, 0.0, 3.0, 3.0])  # any length
    moved = matrix_from_quaternion(quarter_about_z) @ torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(moved, torch.tensor([0.0, 1.0, 0.0]))


@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, -2, 3]])
@pytest.mark.parametrize("degrees", [0, 1e-4, 90, 179.999, 180])
def test_quaternions_and_their_gradients_are_exact_at_every_angle(axis, degrees):
    rotation = torch.tensor(turned(np.array(axis), degrees), requires_grad=True)
    quaternion = quaternion_from_matrix(rotation)
    torch.testing.assert_close(matrix_from_quaternion(quaternion), rotation, atol=1e-12, rtol=0)
    quaternion.sum().backward()
    assert rotation.grad is not None
    assert rotation.grad.isfinite().all()


def test_zero_quaternion_is_the_identity_with_finite_gradient():
    quaternion = torch.zeros(4, requires_grad=True)
    rotation = matrix_from_quaternion(quaternion)
    rotation.sum().backward()
    assert torch.equal(rotation, torch.eye(3))
    assert quaternion.grad is not None
    assert quaternion.grad.isfinite().all()


@pytest.mark.parametrize("degrees", [0, 1e-3, 30, 179.9, 180])
def test_rotation_degrees(degrees):
    measured = rotation_degrees(turned(np.array([1, 2, -1]), degrees).astype(np.float32))
    assert measured == pytest.approx(degrees, abs=1e-5 if degrees < 100 else 0.03)


def test_similarities_form_a_group():
    a, b, c = (random_similarity(seed) for seed in range(3))
    assert_same((a @ b) @ c, a @ (b @ c))
    assert_same(a @ a.inverse(), Similarity())
    assert_same(a.inverse() @ a, Similarity())
    assert_same(a @ Similarity(), a)
    points = np.random.default_rng(0).normal(size=(4, 5, 3))
    np.testing.assert_allclose((a @ b).apply(points), a.apply(b.apply(points)))


def test_moving_cameras_and_depth_moves_the_points():
    depth, cameras, intrinsics = room_walk(3)
    similarity = random_similarity(1)
    moved = unproject(depth * np.float32(similarity.scale), intrinsics, similarity.apply_to_cameras(cameras))
    np.testing.assert_allclose(moved, similarity.apply(unproject(depth, intrinsics, cameras)), atol=2e-5)


def test_unproject_puts_the_room_on_its_walls():
    depth, cameras, intrinsics = room_walk(5)
    points = unproject(depth, intrinsics, cameras)
    assert np.abs(points / HALF_ROOM).max(-1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_umeyama_recovers_any_similarity(seed):
    similarity = random_similarity(seed)
    points = np.random.default_rng(seed).normal(size=(20, 3))
    assert_same(umeyama(points, similarity.apply(points)), similarity)
    planar = points * [1, 1, 0]
    assert_same(umeyama(planar, similarity.apply(planar)), similarity)


def test_umeyama_never_mirrors():
    points = np.random.default_rng(0).normal(size=(20, 3))
    assert np.linalg.det(umeyama(points, points * [1, 1, -1]).rotation) == pytest.approx(1)


def test_umeyama_minimises_squares():
    random = np.random.default_rng(3)
    source, target, weights = random.normal(size=(9, 3)), random.normal(size=(9, 3)), random.uniform(size=9)
    best = umeyama(source, target, weights)

    def error(similarity: Similarity) -> float:
        return float(weights @ np.square(similarity.apply(source) - target).sum(-1))

    for seed in range(20):
        nudge = Similarity(1 + 1e-3, turned(np.random.default_rng(seed).normal(size=3), 0.1), np.full(3, 1e-3))
        assert error(best) <= error(nudge @ best)


def test_weights_decide_which_points_count():
    points = np.random.default_rng(0).normal(size=(10, 3))
    target = points.copy()
    target[0] += 100
    weights = np.ones(10)
    weights[0] = 0
    assert_same(umeyama(points, target, weights), Similarity())


@pytest.mark.parametrize("count", [1, 3])
def test_umeyama_of_coinciding_points_only_translates(count):
    fitted = umeyama(np.ones((count, 3)), np.full((count, 3), 4.0))
    assert_same(fitted, Similarity(translation=np.full(3, 3.0)))


def path(kind: str) -> np.ndarray:  # [S, 4, 4]
    cameras = room_walk({"one": 1, "two": 2}.get(kind, 6))[1].astype(np.float64)
    if kind == "straight":
        cameras[:, :3, 3] = np.arange(6)[:, None] * np.array([0.1, 0.2, 0.3])
    if kind == "turning on the spot":
        cameras[:, :3, 3] = [5.0, -2, 1]
    return cameras


@pytest.mark.parametrize("kind", ["one", "two", "straight", "turning on the spot", "free"])
def test_align_cameras_recovers_the_similarity_however_poor_the_path(kind):
    cameras, similarity = path(kind), random_similarity(4)
    target = similarity.apply_to_cameras(cameras)
    still = kind in ("one", "turning on the spot")
    fitted = align_cameras(cameras, target, scale=similarity.scale if still else None)
    assert_same(fitted, similarity, tolerance=1e-7)
    assert (path_spread(cameras) < 1e-9) == still


def test_align_cameras_without_a_moving_path_keeps_scale_one():
    cameras = path("turning on the spot")
    assert align_cameras(cameras, random_similarity(4).apply_to_cameras(cameras)).scale == 1


def test_nearest_rotation_is_proper_for_anything():
    for matrix in (
        np.zeros((3, 3)),
        -np.eye(3),
        np.diag([1.0, 0, 0]),
        np.random.default_rng(0).normal(size=(3, 3)),
    ):
        rotation = nearest_rotation(matrix)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1)
