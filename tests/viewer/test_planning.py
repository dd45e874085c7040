"""What a run would be, said before it is one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from spark3r.errors import InputError
from spark3r.models.checkpoints import list_models
from tests.viewer.conftest import FRAMES, some_file
from viewer.engine import Engine, is_bundled
from viewer.planning import REAL_FOOTAGE, look_at, plan
from viewer.run import Clip, RunRequest

RequestFor = Callable[..., RunRequest]


@pytest.mark.parametrize("name", [card.name for card in list_models()])
def test_every_model_has_a_plan_without_its_weights(name: str, engine: Engine, request_for: RequestFor) -> None:
    request = request_for()
    sampling = replace(request.sampling, model=name, resolution=0)
    told = plan(replace(request, sampling=sampling), engine.models)
    assert told.frames["Frames"] == f"{FRAMES} of {FRAMES}"
    assert set(told.frames) == {"Frames", "Network input", "Memory"}
    assert "→" in told.tokens["Attention, tokens"]
    assert ("fetches" in told.warning) is not is_bundled(name)


def test_the_small_model_says_what_real_footage_needs(engine: Engine, request_for: RequestFor) -> None:
    request = request_for()
    foreign = replace(request, sampling=replace(request.sampling, model="mini"))
    ours = replace(foreign, clip=replace(foreign.clip, bundled=True))
    assert plan(foreign, engine.models).warning == REAL_FOOTAGE
    assert plan(ours, engine.models).warning == ""


def test_the_plan_is_what_the_run_costs(engine: Engine, request_for: RequestFor) -> None:
    request = request_for()
    engine.models.get(request.sampling.model)
    assert "queries 2→1" in plan(request, engine.models).tokens["Schedule"]
    dense = plan(replace(request, reduction=replace(request.reduction, mode="auto")), engine.models)
    before, after = dense.tokens["Attention, tokens"].split(" → ")
    assert before == after


def test_a_factor_out_of_range_is_one_sentence(engine: Engine, request_for: RequestFor) -> None:
    with pytest.raises(InputError, match="kv_factor=0"):
        plan(request_for(0), engine.models)


def test_a_look_shows_a_few_frames(clip: Clip) -> None:
    look = look_at(clip)
    assert look.facts == f"{FRAMES} photos, 128 × 96"
    assert len(look.thumbnails) == FRAMES
    assert all(url.startswith("data:image/jpeg;base64,") for url in look.thumbnails)


def test_a_look_at_something_else_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"notes\.mp4"):
        look_at(Clip("notes.mp4", (some_file(tmp_path, "notes.mp4"),)))
