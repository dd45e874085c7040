"""A clip that is shared by ranks gives what one process gives: for every family and policy, dense included."""

from functools import cache

import pytest

from spark3r.tokens import split_frames
from tests.distributed.exactness import FAMILIES, SCHEDULES
from tests.distributed.on_ranks import on_ranks

TOLERANCE = 1e-5
SECONDS = 240.0


@cache
def differences(ranks: int) -> list[dict[str, list[float]]]:
    return on_ranks("tests.distributed.exactness", ranks, SECONDS)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_shared_is_alone(family: str, ranks: int) -> None:
    found = differences(ranks)[0]
    for word in SCHEDULES:
        assert max(found[f"{family} {word}"]) <= TOLERANCE, f"{word}: {found[f'{family} {word}']}"


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_collectives(ranks: int) -> None:
    for found in on_ranks("tests.distributed.collectives", ranks, SECONDS):
        assert all(found.values()), [what for what, right in found.items() if not right]


@pytest.mark.parametrize("frames", [1, 2, 19, 20, 21, 100, 1001])
@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_every_frame_has_one_rank_and_groups_stay_whole(frames: int, ranks: int) -> None:
    parts = split_frames(frames, ranks, 20)
    assert len(parts) == ranks
    assert [frame for part in parts for frame in range(frames)[part]] == list(range(frames))
    assert all(part.start % 20 == 0 for part in parts if part.start < part.stop)
    sizes = [part.stop - part.start for part in parts if part.start < part.stop]
    assert max(sizes) - min(sizes) < 40  # at most one group more, and the last group may be short
    assert all(part.start == part.stop for part in parts[len(sizes) :])
