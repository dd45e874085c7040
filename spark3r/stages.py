"""The stages of a run: one table for everything that times, sums up, prints or draws them."""

from __future__ import annotations

from typing import NamedTuple


class Stage(NamedTuple):
    """One part of a run that is timed by itself."""

    key: str  # in `Cost.milliseconds` and, with "_ms", in reports
    title: str  # for a person
    is_reduced: bool = False  # whether it belongs to the aggregator, the part that reduction changes
    scopes: tuple[str, ...] = ()  # of the blocks that count here, MLPs and all


TABLE = (
    Stage("decode", "Decode"),
    Stage("preprocess", "Prepare"),
    Stage("encoder", "Encoder"),
    Stage("frame_attention", "Frame attention", True, ("frame",)),
    Stage("global_attention", "Global attention", True, ("global", "register")),
    Stage("matching", "Matching", True),
    Stage("heads", "Heads"),
)

STAGES = tuple(stage.key for stage in TABLE)
COMPUTED = STAGES[STAGES.index("encoder") :]  # by the network; what comes before only prepares the pictures
TITLES = {stage.key: stage.title for stage in TABLE}
AGGREGATOR = tuple(stage.key for stage in TABLE if stage.is_reduced)
STAGE_OF_SCOPE = {scope: stage.key for stage in TABLE for scope in stage.scopes}
