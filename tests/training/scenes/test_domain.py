"""The wide world: every place has exact truth, paths go anywhere a hand can, original clips stay what they were."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from spark3r.training.scenes import domain, sequences
from spark3r.training.scenes.handheld import depth_along, handheld_path
from spark3r.training.scenes.palette import Rng
from spark3r.training.scenes.paths import clearance
from spark3r.training.scenes.scene import BOXES, ROUNDS, WALLS, SceneBuilder
from spark3r.training.targets import inverse, pixel_rays, targets_of, world_points

HEIGHT, WIDTH = 48, 64


def only(place: Callable[[Rng], SceneBuilder], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain, "PLACES", {place: 1.0})


def signed_distance(scene: SceneBuilder, points: np.ndarray) -> np.ndarray:
    """Of points [P, 3] from the nearest surface, computed without rays: boxes and solids from their equations."""
    half = np.asarray(scene.size) / 2 - [0, 0, 0]
    inside = np.stack(
        [half[0] - abs(points[:, 0]), half[1] - abs(points[:, 1]), points[:, 2], scene.size[2] - points[:, 2]]
    )
    nearest = np.abs(inside).min(0)
    for x, y, z, a, b, c, cos, sin in scene.boxes:
        dx, dy, dz = (points - [x, y, z]).T
        local = np.abs(np.stack([cos * dx + sin * dy, cos * dy - sin * dx, dz])) - np.array([[a], [b], [c]])
        nearest = np.minimum(nearest, np.abs(local.max(0)) + np.maximum(local, 0).sum(0) - np.maximum(local.max(0), 0))
    for x, y, z, q0, q1, q2, half_height, _ in scene.rounds:
        dx, dy, dz = (points - [x, y, z]).T
        radius = np.sqrt(np.maximum(q0 + q1 * dz + q2 * dz * dz, 0))
        off = np.maximum(np.hypot(dx, dy) - radius, np.abs(dz) - half_height)
        nearest = np.minimum(nearest, np.abs(off))
    return nearest


@pytest.mark.parametrize("place", list(domain.PLACES), ids=lambda place: place.__name__)
def test_every_place_has_exact_depth(place: Callable[[Rng], SceneBuilder], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pixel's depth leads to a surface that the scene's equations have there, in any frame."""
    only(place, monkeypatch)
    for seed in (940_002_000, 940_002_001):
        plan = domain.wild_plan(seed, 3)
        assert len(plan.scene.boxes) <= BOXES
        assert len(plan.scene.rounds) <= ROUNDS
        assert len(plan.scene.walls) == WALLS
        clips = sequences.render_clips([plan], seed, HEIGHT, WIDTH, samples=1)
        assert bool((clips.depth > 0).all())
        assert bool(clips.images.isfinite().all())
        rays = pixel_rays(clips.intrinsics, HEIGHT, WIDTH)
        points = world_points(clips.depth, rays, clips.world_from_camera).reshape(-1, 3).double().numpy()
        reach = clips.depth.reshape(-1).numpy()
        off = signed_distance(plan.scene, points) / np.maximum(reach, 1.0)
        assert np.quantile(off, 0.995) < 2e-3
        assert np.median(off) < 1e-5


def test_two_frames_of_the_wide_world_agree() -> None:
    clips = domain.sample(940_002_100, 6, 3, HEIGHT, WIDTH, wild=1.0)
    rays = pixel_rays(clips.intrinsics, HEIGHT, WIDTH)
    points = world_points(clips.depth, rays, clips.world_from_camera)[:, 0].flatten(1, 2)
    back = inverse(clips.world_from_camera[:, 1])
    local = torch.einsum("bij,bpj->bpi", back[:, :3, :3], points) + back[:, None, :3, 3]
    k = clips.intrinsics[:, 1]
    u = k[:, 0, 0, None] * local[..., 0] / local[..., 2] + k[:, 0, 2, None]
    v = k[:, 1, 1, None] * local[..., 1] / local[..., 2] + k[:, 1, 2, None]
    inside = (local[..., 2] > 0.1) & (u > 1) & (u < WIDTH - 2) & (v > 1) & (v < HEIGHT - 2)
    place = (v.round().clamp(0, HEIGHT - 1) * WIDTH + u.round().clamp(0, WIDTH - 1)).long()
    gap = ((local[..., 2] - clips.depth[:, 1].flatten(1).gather(1, place)) / local[..., 2])[inside]
    assert inside.float().mean() > 0.3, "the frames must overlap for this test to say anything"
    assert gap.abs().median() < 0.01
    assert (gap < -0.06).float().mean() < 0.04


def test_a_clip_is_of_one_world_or_the_other_and_original_ones_are_what_they_were() -> None:
    plain = sequences.sample(940_002_200, 2, 3, HEIGHT, WIDTH, breadth=0.7)
    same = domain.sample(940_002_200, 2, 3, HEIGHT, WIDTH, wild=0.0, breadth=0.7)
    assert torch.equal(plain.images, same.images)
    assert torch.equal(plain.depth, same.depth)
    kinds = [domain.plan(seed, 2, wild=0.72).faults is not None for seed in range(940_002_300, 940_002_400)]
    assert 0.6 < np.mean(kinds) < 0.84
    mixed = domain.sample(940_002_300, 6, 2, HEIGHT, WIDTH, wild=0.5)
    assert bool(mixed.images.isfinite().all())
    assert 0 <= float(mixed.images.min()) <= float(mixed.images.max()) <= 1


def test_hands_hold_cameras_at_any_height_roll_and_pitch_and_may_turn_away_from_the_middle() -> None:
    heights, rolls, pitches, sweeps, lenses = [], [], [], [], []
    for seed in range(940_002_400, 940_002_480):
        plan = domain.wild_plan(seed, 24)
        path = plan.path
        assert (path.position[:, 2] > 0.15).all()
        assert (np.abs(path.position[:, :2]) < np.asarray(plan.scene.size[:2]) / 2).all()
        heights.append(path.position[:, 2].mean())
        rolls.append(np.degrees(path.roll.mean()))
        pitches.append(np.degrees(path.pitch.mean()))
        sweeps.append(np.degrees(np.ptp(np.unwrap(path.yaw))))
        lenses.append(np.degrees(plan.field_of_view))
    assert min(heights) < 0.8 < 1.8 < max(heights)
    assert max(np.abs(rolls)) > 25
    assert 5 < np.std(rolls) < 25
    assert min(pitches) < -30
    assert max(pitches) > 5
    assert max(sweeps) > 130
    assert 45 <= min(lenses) < 52 < 70 < max(lenses) <= 80


def test_hands_keep_clear_of_most_things() -> None:
    free = []
    for seed in range(940_002_500, 940_002_530):
        scene = domain.wild_plan(seed, 2).scene
        path = handheld_path(np.random.default_rng(seed), scene, 8, 1.0)
        free.append(clearance(scene, path.position).min() > 0.02)
    assert np.mean(free) > 0.9


def test_views_are_judged_by_the_depth_that_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    only(domain.jumble, monkeypatch)
    plan = domain.wild_plan(940_002_550, 1)
    plan.scene.rounds.clear()  # of which only the hulls are met
    plan.scene.round_materials.clear()
    clips = sequences.render_clips([plan], 1, HEIGHT, WIDTH, samples=1)
    camera = plan.path.world_from_camera()[0]
    rays = pixel_rays(clips.intrinsics, HEIGHT, WIDTH)[0, 0].reshape(-1, 3).double().numpy()
    depth, wall = depth_along(plan.scene, camera[:3, 3], rays @ camera[:3, :3].T)
    shown = clips.depth[0, 0].flatten().double().numpy()
    assert np.mean(np.abs(depth - shown) < 1e-3 * shown) > 0.99
    assert 0.02 < np.mean(depth < 0.99 * wall) < 1.0


def test_most_views_show_things_at_different_distances() -> None:
    """A photograph of a kitchen spreads the logarithm of its depth by .25 and more; a bare wall by .1."""
    spreads = []
    for first in range(940_002_560, 940_002_584, 8):
        clips = domain.sample(first, 8, 1, 24, 32, wild=1.0, samples=1)
        spreads.extend(clips.depth[:, 0].flatten(1).log().std(1).tolist())
    assert np.median(spreads) > 0.25
    assert np.quantile(spreads, 0.1) > 0.1


def test_portrait_clips_show_the_same_world_upright() -> None:
    """Turning pictures and cameras by a quarter leaves every point where it was."""
    clips = domain.sample(940_002_600, 1, 2, HEIGHT, WIDTH, wild=1.0)
    turned = domain.upright(clips)
    assert turned.images.shape[-2:] == (WIDTH, HEIGHT)
    before = world_points(clips.depth, pixel_rays(clips.intrinsics, HEIGHT, WIDTH), clips.world_from_camera)
    after = world_points(turned.depth, pixel_rays(turned.intrinsics, WIDTH, HEIGHT), turned.world_from_camera)
    torch.testing.assert_close(after, before.rot90(1, (2, 3)), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.linalg.det(turned.world_from_camera[..., :3, :3]), torch.ones(1, 2))
    portrait = domain.sample(940_002_600, 1, 2, HEIGHT, WIDTH, wild=1.0, portrait=True)
    landscape_down, portrait_down = clips.world_from_camera[..., 2, 1], portrait.world_from_camera[..., 2, 1]
    torch.testing.assert_close(portrait_down, landscape_down, atol=1e-4, rtol=0)  # as upright as it was held


def test_a_crop_keeps_its_points() -> None:
    clips = domain.sample(940_002_700, 1, 2, HEIGHT, WIDTH, wild=1.0)
    part = domain.cropped(clips, 40, 48)
    whole, cut = targets_of(clips), pixel_rays(part.intrinsics, 40, 48)
    torch.testing.assert_close(cut, whole.rays[:, :, 4:44, 8:56])
    assert torch.equal(part.depth, clips.depth[..., 4:44, 8:56])
    assert torch.equal(part.images, clips.images[..., 4:44, 8:56])
