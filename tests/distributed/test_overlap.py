"""Keys and values travel while this rank's queries are matched, merged and projected."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from spark3r.attention import Attention
from spark3r.distributed import FrameShare
from spark3r.ranks import Ranks
from spark3r.reduction import ReductionSchedule, SchedulePlanner, reduce
from spark3r.tokens import TokenLayout

LAYOUT = TokenLayout(frames=4, special=1, grid=(2, 3))


class Alone:
    """One rank that writes down what it is asked."""

    rank, size = 0, 1

    def __init__(self) -> None:
        self.log: list[str] = []

    def start_gather(self, x: Tensor, counts: Sequence[int], dim: int) -> Callable[[], Tensor]:
        self.log.append("set off")

        def finish() -> Tensor:
            self.log.append("arrived")
            return x

        return finish

    def gather(self, x: Tensor, counts: Sequence[int], dim: int = 0) -> Tensor:
        self.log.append("asked")
        return x


def test_the_query_side_works_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Alone()
    match, heads = reduce.plan_query_merge, Attention._heads

    def noted_match(*given: Any) -> Any:
        alone.log.append("matched")
        return match(*given)

    def noted_heads(self: Attention, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        alone.log.append({1: "queries projected", 2: "keys/values projected"}[parts])
        return heads(self, x, parts)

    monkeypatch.setattr(reduce, "plan_query_merge", noted_match)
    monkeypatch.setattr(Attention, "_heads", noted_heads)
    torch.manual_seed(0)
    attention, x = Attention(16, 2), torch.randn(1, LAYOUT.total, 16)
    planner = SchedulePlanner(ReductionSchedule(2, 2, group_size=4, sensitive_layers=(0, 1)))
    shared = FrameShare(cast(Ranks, alone), [slice(0, 4)]).across(planner, LAYOUT)
    for layer in (0, 1):
        answer = attention(x, None, lambda x, layer=layer: shared(x, LAYOUT, layer))
        whole = attention(x, None, lambda x, layer=layer: planner(x, LAYOUT, layer))
        assert torch.equal(answer, whole)
    work = ["set off", "matched", "queries projected", "arrived", "keys/values projected"]
    by_itself = ["matched", "queries projected", "keys/values projected"]
    # which tokens the others keep is the same in layers of the same factors, and asked for once
    assert alone.log == ["asked", "asked", *work, *by_itself, *work, *by_itself]
