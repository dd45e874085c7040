"""Rendered scenes keep the laws of pinhole cameras, and a seed means one scene."""

import numpy as np
import pytest
import torch

from spark3r.training.scenes import rooms, sequences
from spark3r.training.scenes.render import Cameras, develop, render, render_depth
from spark3r.training.scenes.scene import Placement, SceneBuilder, Scenes
from spark3r.training.targets import inverse, pixel_rays, world_points

HEIGHT, WIDTH = 48, 64


@pytest.fixture(scope="module")
def clips() -> sequences.Clips:
    return sequences.sample(940_000_000, 4, 3, HEIGHT, WIDTH)


def test_a_seed_gives_the_same_bytes() -> None:
    first, again = (sequences.sample(940_000_100, 1, 2, HEIGHT, WIDTH) for _ in range(2))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.depth, again.depth)
    assert torch.equal(first.world_from_camera, again.world_from_camera)


def test_seeds_differ() -> None:
    clips = sequences.sample(940_000_200, 2, 1, HEIGHT, WIDTH)
    assert (clips.images[0] - clips.images[1]).abs().mean() > 0.02


def test_cameras_are_rigid(clips: sequences.Clips) -> None:
    turn = clips.world_from_camera[..., :3, :3].double()
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(turn @ turn.transpose(-1, -2), eye.expand_as(turn), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        torch.linalg.det(turn), torch.ones(turn.shape[:2], dtype=torch.float64), atol=1e-5, rtol=0
    )
    assert torch.equal(clips.world_from_camera[..., 3, :], torch.tensor([0.0, 0, 0, 1]).expand(4, 3, 4))


def test_two_frames_agree_on_the_world(clips: sequences.Clips) -> None:
    """A point seen by one camera lies on the surface that another camera sees there, or behind it, never in front."""
    rays = pixel_rays(clips.intrinsics, HEIGHT, WIDTH)
    points = world_points(clips.depth, rays, clips.world_from_camera)[:, 0].flatten(1, 2)
    back = inverse(clips.world_from_camera[:, 1])
    local = torch.einsum("bij,bpj->bpi", back[:, :3, :3], points) + back[:, None, :3, 3]
    k = clips.intrinsics[:, 1]
    u = k[:, 0, 0, None] * local[..., 0] / local[..., 2] + k[:, 0, 2, None]
    v = k[:, 1, 1, None] * local[..., 1] / local[..., 2] + k[:, 1, 2, None]
    inside = (local[..., 2] > 0.1) & (u > 1) & (u < WIDTH - 2) & (v > 1) & (v < HEIGHT - 2)
    place = (v.round().clamp(0, HEIGHT - 1) * WIDTH + u.round().clamp(0, WIDTH - 1)).long()
    there = clips.depth[:, 1].flatten(1).gather(1, place)
    gap = ((local[..., 2] - there) / there)[inside]
    assert inside.float().mean() > 0.3, "the frames must overlap for this test to say anything"
    assert gap.abs().median() < 0.01
    assert (gap < -0.06).float().mean() < 0.03


def corner_scene() -> tuple[SceneBuilder, Scenes]:
    builder = rooms.empty_room(np.random.default_rng(3), (4.0, 4.0, 2.6))
    builder.lights = [(0.0, 0.0, 2.3, 1, 1, 1)] * 2
    builder.box(Placement(1.0, 0.0), (0, 0, 1.0), (0.2, 0.4, 0.4), builder.walls[0])
    return builder, Scenes.stack([builder])


def looking_along_x() -> torch.Tensor:
    pose = torch.eye(4)
    pose[:3, :3] = torch.tensor([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    pose[:3, 3] = torch.tensor([-1.0, 0.0, 1.0])
    return pose[None]


def test_intrinsics_project_a_known_box() -> None:
    """The front of a box 0.9 m … of known size covers the pixels that the pinhole formula says."""
    _, scenes = corner_scene()
    k = torch.tensor(sequences.pinhole(np.radians(60), HEIGHT, WIDTH), dtype=torch.float32)[None]
    cameras = Cameras(torch.zeros(1, dtype=torch.int64), looking_along_x(), k)
    depth = render_depth(scenes, cameras, HEIGHT, WIDTH)[0]
    front = 1.9  # the box begins at x = 0.9, the camera stands at x = -1
    columns = np.arange(WIDTH)
    y = (columns - (WIDTH - 1) / 2) / float(k[0, 0, 0]) * front
    hit = (depth[HEIGHT // 2] - front).abs().numpy() < 1e-4
    assert np.array_equal(hit, np.abs(y) < 0.2)
    assert abs(float(depth[HEIGHT // 2, 2]) - 3.0) < 1e-4, "beside the box: the wall at x = 2"


def test_depth_is_measured_along_the_axis_not_along_the_ray() -> None:
    _, scenes = corner_scene()
    k = torch.tensor(sequences.pinhole(np.radians(60), HEIGHT, WIDTH), dtype=torch.float32)[None]
    cameras = Cameras(torch.zeros(1, dtype=torch.int64), looking_along_x(), k)
    row = render_depth(scenes, cameras, HEIGHT, WIDTH)[0, HEIGHT // 2]
    wall = row[(row - 3.0).abs() < 0.5]
    torch.testing.assert_close(wall, torch.full_like(wall, 3.0))


def test_small_renders_look_like_shrunken_large_ones() -> None:
    """Antialiasing: rendering at network size is nearly the same as averaging a render four times as large."""
    builder = rooms.scene(940_000_004, "table")
    scenes = Scenes.stack([builder])
    pose = looking_along_x()
    pose[0, :3, 3] = torch.tensor([-1.1, 0.2, 1.3])

    def shot(scale: int, samples: int) -> torch.Tensor:
        k = torch.tensor(sequences.pinhole(np.radians(60), HEIGHT * scale, WIDTH * scale), dtype=torch.float32)[None]
        cameras = Cameras(torch.zeros(1, dtype=torch.int64), pose, k)
        linear, _ = render(scenes, cameras, HEIGHT * scale, WIDTH * scale, samples)
        image = develop(linear, torch.ones(1), torch.ones(1, 3))
        return torch.nn.functional.avg_pool2d(image, scale)

    large = shot(4, 2)
    assert (shot(1, 4) - large).abs().mean() < 0.02
    assert (shot(1, 4) - large).abs().mean() < (shot(1, 1) - large).abs().mean()


def test_every_kind_of_scene_stays_within_capacity_and_lets_a_camera_stand() -> None:
    from spark3r.training.scenes import paths

    for seed in range(940_000_300, 940_000_312):
        for kind in sequences.KINDS:
            builder = rooms.scene(seed, kind)
            path = paths.training_path(np.random.default_rng(seed), builder, kind, 6, 1.0)
            assert paths.clearance(builder, path.position).min() > -0.2
            turn = np.abs(np.diff(np.unwrap(path.yaw)))
            assert turn.max() < 1.9 * paths.MAX_STEP
            assert np.ptp(np.unwrap(path.yaw)) < paths.MAX_SWEEP + 0.2


def test_long_clips_lead_through_the_door_and_short_ones_do_not() -> None:
    from spark3r.training.scenes import paths

    crossed = {24: 0, 8: 0}
    for frames in crossed:
        for seed in range(940_000_320, 940_000_336):
            builder = rooms.scene(seed, "flat")
            x, y, z = paths.training_path(np.random.default_rng(seed), builder, "flat", frames, 1.0).position.T
            crossed[frames] += bool(x.min() < -1 and x.max() > 1)
            if x.min() < 0 < x.max():
                assert abs(np.interp(0, np.sort(x), y[np.argsort(x)])) < 0.45  # the opening is a metre wide
            assert (z >= 0.2).all()
            assert (np.abs(x) < builder.size[0] / 2).all()
    assert crossed[24] >= 8
    assert crossed[8] == 0


def test_a_clip_to_roam_in_is_drawn_from_other_shares_with_the_same_seed() -> None:
    plans = [sequences.plan(seed, 12, 1.0, (0.0, 0.0, 1.0)) for seed in range(940_000_340, 940_000_343)]
    assert all(plan.scene.size[0] > 8 for plan in plans)
