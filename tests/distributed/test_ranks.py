"""A clip that is shared by ranks gives what one process gives: for every family and policy, dense included."""

import json
from pathlib import Path
from typing import Any

import pytest

from spark3r.tokens import split_frames
from tests.distributed.exactness import FAMILIES, SCHEDULES
from tests.distributed.nursery import Nursery

TOLERANCE = 1e-5
SECONDS = 240.0


def found_by(nursery: Nursery, module: str, ranks: int, folder: Path) -> list[Any]:
    """What `main(rank, ranks)` of a module finds on every rank."""
    ended = nursery.run("finding", ranks, SECONDS, ends=True, module=f"tests.distributed.{module}", folder=str(folder))
    assert ended.codes == [0] * ranks, ended.printed
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


@pytest.fixture(scope="module", params=[2, 3, 4])
def differences(
    request: pytest.FixtureRequest, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[float]]:
    return found_by(nursery, "exactness", request.param, tmp_path_factory.mktemp("found"))[0]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_shared_is_alone(family: str, differences: dict[str, list[float]]) -> None:
    found = differences
    for word in SCHEDULES:
        assert max(found[f"{family} {word}"]) <= TOLERANCE, f"{word}: {found[f'{family} {word}']}"


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_collectives(ranks: int, nursery: Nursery, tmp_path: Path) -> None:
    for found in found_by(nursery, "collectives", ranks, tmp_path):
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
