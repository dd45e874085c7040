"""What a run would be, said before it is one."""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import pytest

from spark3r import dryrun
from spark3r.errors import InputError
from spark3r.examples import footage_note, list_clips
from spark3r.models.checkpoints import list_models
from tests.viewer.conftest import FRAMES, some_file
from viewer import charts, planning
from viewer.engine import Engine, is_bundled
from viewer.planning import card, look_at, overview, plan
from viewer.request import Clip, RunRequest

RequestFor = Callable[..., RunRequest]


@pytest.mark.slow
@pytest.mark.parametrize("name", [card.name for card in list_models()])
def test_every_model_has_a_plan_without_its_weights(name: str, engine: Engine, request_for: RequestFor) -> None:
    request = request_for()
    sampling = replace(request.sampling, model=name, resolution=0)
    told = plan(replace(request, sampling=sampling), engine.models)
    assert told.frames["Frames"] == f"{FRAMES} of {FRAMES}"
    assert set(told.frames) == {"Frames", "Network input", "Memory"}
    query, kv = told.dials
    assert (query.value, kv.value) == (told.schedule.query_factor, told.schedule.kv_factor)
    assert "queries" in query.said
    assert "keys/values" in kv.said
    assert ("fetches" in told.warning) is not is_bundled(name)


def test_the_small_model_says_what_real_footage_needs(engine: Engine, request_for: RequestFor) -> None:
    request = request_for()
    foreign = replace(request, sampling=replace(request.sampling, model="mini"))
    ours = replace(foreign, clip=Clip("ours", (list_clips()[0].video,), list_clips()[0].name))
    assert plan(foreign, engine.models).warning == footage_note("mini", foreign.clip.source) != ""
    assert plan(ours, engine.models).warning == ""


@pytest.mark.slow
def test_what_does_not_fit_is_told_before_a_download(
    engine: Engine, request_for: RequestFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "free_memory", lambda: 6 * 2**30)
    request = request_for(max_frames=1000)
    sampling = replace(request.sampling, model="vggt", resolution=0)
    long = replace(request, sampling=sampling, info=replace(request.info, frame_count=1000))
    warning = plan(long, engine.models).warning
    most = int(re.search(r"at most (\d+) frames", warning)[1])  # pyright: ignore[reportOptionalSubscript]
    assert 1 <= most < 1000
    for frames, fits in ((most, True), (most + 1, False)):
        told = plan(replace(long, sampling=replace(sampling, max_frames=frames)), engine.models)
        assert told.fits is fits
        assert ("not fit" in told.warning) is not fits


@pytest.mark.slow
def test_all_models_side_by_side(request_for: RequestFor) -> None:
    request = request_for()
    rows = overview(replace(request, sampling=replace(request.sampling, model="vggt")))
    assert [row.card.name for row in rows] == [each.name for each in list_models()]
    assert [row.card.name for row in rows if row.is_chosen] == ["vggt"]
    longer = overview(replace(request_for(max_frames=60), info=replace(request.info, frame_count=60)))
    assert all(more.needed_bytes > row.needed_bytes for row, more in zip(rows, longer, strict=True))


@pytest.mark.parametrize("name", [each.name for each in list_models()])
def test_the_picker_tells_size_licences_and_device(name: str) -> None:
    known = card(name)
    assert known is not None
    note = unescape(charts.model_note(known))
    for fact in (known.note, known.code_licence, known.weights_licence, "Parameters", "Download", "Runs well on"):
        assert fact in note
    assert ("restricted" in note) is ("non-commercial" in charts.model_label(known)) is known.is_non_commercial
    assert ("CPU, recommended" in charts.model_label(known)) is (name in ("da3-small", "da3-base"))


def test_the_plan_is_what_the_run_costs(engine: Engine, request_for: RequestFor) -> None:
    request = request_for()
    engine.models.get(request.sampling.model)
    assert "queries 2→1" in str(plan(request, engine.models).schedule)
    dense = plan(replace(request, reduction=replace(request.reduction, mode="auto")), engine.models)
    assert [dial.said.split()[1] for dial in dense.dials] == ["all", "all"]


def test_a_factor_out_of_range_is_one_sentence(engine: Engine, request_for: RequestFor) -> None:
    request = request_for(0)
    engine.models.get(request.sampling.model)
    with pytest.raises(InputError, match="kv_factor=0"):
        plan(request, engine.models)


def test_a_look_shows_a_few_frames(clip: Clip) -> None:
    look = look_at(clip)
    assert look.facts == f"{FRAMES} photos, 128 × 96"
    assert len(look.thumbnails) == FRAMES
    assert all(url.startswith("data:image/jpeg;base64,") for url in look.thumbnails)


def test_a_look_at_something_else_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"notes\.mp4"):
        look_at(Clip("notes.mp4", (some_file(tmp_path, "notes.mp4"),)))


def test_visitors_who_plan_at_once_do_not_meet_in_one_skeleton(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is changed while memory is counted."""
    inside, most = Counter(), []

    def dry(case: object) -> SimpleNamespace:
        inside["now"] += 1
        most.append(inside["now"])
        time.sleep(0.02)
        inside["now"] -= 1
        return SimpleNamespace(peaks={"all": 1})

    monkeypatch.setattr(dryrun, "dry_run", dry)
    dryrun._peaks.cache_clear()
    threads = [threading.Thread(target=dryrun._peaks, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    dryrun._peaks.cache_clear()
    assert most == [1, 1, 1, 1]
