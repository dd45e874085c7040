"""What the ranks of a shared run moved, waited for and worked: by stage, by block of the trunk, and how evenly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Rank = dict[str, Any]
"""A `RankCost` as reports hold it."""


def sharing(ranks: Sequence[Rank], scopes: Sequence[str]) -> dict[str, Any]:
    """The run of some ranks as one object; `scopes` are those of the trunk's blocks.

    balance       the busiest rank's working time ÷ the mean of all: 1 is even
    stages, blocks  bytes received by all ranks together, and the milliseconds that the rank waited that waited most;
                  blocks in which nothing travels are left out
    """
    working = [working_ms(rank) for rank in ranks]
    stages = dict.fromkeys(stage for rank in ranks for stage in rank["received_bytes"])
    numbers = sorted({int(block) for rank in ranks for block in rank["block_bytes"]})
    blocks = [
        {"block": number, "scope": scopes[number], **_of(ranks, "block_bytes", "block_waited_ms", str(number))}
        for number in numbers
    ]
    return {
        "balance": max(working) * len(working) / (sum(working) or 1.0),
        "received_bytes": sum(sum(rank["received_bytes"].values()) for rank in ranks),
        "waited_ms": max(rank["waited_ms"] for rank in ranks),
        "stages": [
            {"stage": stage, **_of(ranks, "received_bytes", "waited_by_stage_ms", stage)} for stage in stages if stage
        ],
        "blocks": [block for block in blocks if block["received_bytes"]],
    }


def working_ms(rank: Rank) -> float:
    """The time in which a rank did not wait for others."""
    return rank["elapsed_ms"] - rank["waited_ms"]


def _of(ranks: Sequence[Rank], received: str, waited: str, key: str) -> dict[str, Any]:
    return {
        "received_bytes": sum(rank[received].get(key, 0) for rank in ranks),
        "waited_ms": max(rank[waited].get(key, 0.0) for rank in ranks),
    }
