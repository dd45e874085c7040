"""The rivals of the paper's policy: each against plain loops, and the laws that hold for all."""

from functools import partial

import pytest
import torch

from spark3r.attention import Attention, Reduction
from spark3r.errors import InputError
from spark3r.models.blocks import grid_rotation
from spark3r.reduction import ReductionSchedule, SchedulePlanner
from spark3r.reduction.anchor import AmongFrames, Anchored
from spark3r.reduction.grid import kept_on_grid, tile_of
from spark3r.reduction.policies import POLICIES
from spark3r.reduction.uniform import destination_patches, plan_cell_merge
from spark3r.tokens import TokenLayout
from tests import reference
from tests.reduction.test_laws import CPU, LAYOUTS, attention_module, loop_attention, tokens

WORDS = ["2x3", "uniform:4", "grid:2x4", "grid:1x6", "anchor:4", "register"]
WITH_SPECIALS = [layout for layout in LAYOUTS if layout.special]

each_layout = pytest.mark.parametrize("layout", LAYOUTS)
each_word = pytest.mark.parametrize("word", WORDS)


def schedule_of(word: str, layout: TokenLayout, group_size: int = 4) -> ReductionSchedule:
    return ReductionSchedule.parse(word, layout.frames).with_(group_size=group_size)


def run(module: Attention, x: torch.Tensor, layout: TokenLayout, schedule: ReductionSchedule, layer: int = 0):
    rotation = grid_rotation(layout.grid, layout.special, 8, CPU)
    planner = SchedulePlanner(schedule)
    return module(x, rotation, lambda t: planner(t, layout, layer)), rotation


@pytest.mark.parametrize("layout", WITH_SPECIALS)
@each_word
def test_every_token_is_answered_and_specials_keep_their_own_answer(layout: TokenLayout, word: str):
    module, x = attention_module(), tokens(layout, width=16)
    out, _ = run(module, x, layout, schedule_of(word, layout))
    assert out.shape == x.shape
    assert torch.isfinite(out).all()
    again, _ = run(module, x, layout, schedule_of(word, layout))
    assert torch.equal(out, again)
    special, _ = layout.split(out)
    assert len(special[0].flatten(0, 1).unique(dim=0)) == layout.frames * layout.special


@pytest.mark.parametrize("layout", WITH_SPECIALS)
@each_word
def test_counts_foretell_what_attends(layout: TokenLayout, word: str, monkeypatch: pytest.MonkeyPatch):
    """Queries as the kernel gets them; keys as each query sees them."""
    module, x, seen = attention_module(), tokens(layout, batch=1, width=16), []
    attend = Reduction.attend

    def watched(self: Reduction, kernel, q, k, v):
        seen.append((len(q) * q.shape[2], k.shape[2]))
        return attend(self, kernel, q, k, v)

    monkeypatch.setattr(Reduction, "attend", watched)
    schedule = schedule_of(word, layout)
    run(module, x, layout, schedule)
    queries, keys = schedule.token_counts(layout)
    if word == "anchor:4":
        kept = reference.grid_tokens(layout, (2, 2), shifting=False)
        assert (queries, keys) == (layout.total, min(len(kept) + 2, layout.total))
    else:
        assert seen == [(queries, keys)]


@each_layout
@pytest.mark.parametrize("policy", list(POLICIES))
def test_a_policy_that_is_off_is_bit_equal_to_dense(layout: TokenLayout, policy: str):
    schedule = ReductionSchedule(policy=policy)  # pyright: ignore[reportArgumentType]
    if not schedule.is_off:
        assert policy == "register", "which has no factor to be off with"
        return
    module, x = attention_module(), tokens(layout, width=16)
    out, rotation = run(module, x, layout, schedule)
    assert torch.equal(out, module(x, rotation))


@each_layout
@pytest.mark.parametrize("factor", [2, 4, 6, 9])
def test_uniform_destinations_are_one_per_cell_and_the_whole_reference(layout: TokenLayout, factor: int):
    chosen, (rows, columns) = destination_patches(layout, factor), tile_of(factor)
    assert chosen[layout.reference].all()
    for frame in set(range(layout.frames)) - {layout.reference}:
        picture = chosen[frame].reshape(layout.grid)
        cells = [cell for band in picture.split(rows, 0) for cell in band.split(columns, 1)]
        assert all(int(cell.sum()) == 1 for cell in cells)
    counts = ReductionSchedule(factor, policy="uniform").token_counts(layout)
    assert counts == (layout.frames * layout.special + int(chosen.sum()),) * 2


@each_layout
@pytest.mark.parametrize(("factor", "group_size"), [(4, 4), (9, 20), (2, 1)])
def test_uniform_merging_agrees_with_the_loop(layout: TokenLayout, factor: int, group_size: int):
    x = tokens(layout, batch=2)
    plan = plan_cell_merge(x, layout, factor, group_size)
    chosen = destination_patches(layout, factor)
    for clip, slot in zip(x, plan.slot, strict=True):
        destination_of, _ = reference.cell_slots(clip, layout, chosen, group_size)
        assert plan.destination[slot].tolist() == destination_of
    mass = torch.stack([torch.bincount(slot, minlength=len(plan.destination)) for slot in plan.slot])
    torch.testing.assert_close((plan.merge(x) * mass[..., None]).sum(1), x.sum(1), rtol=1e-5, atol=1e-4)


@each_layout
def test_uniform_attention_agrees_with_plain_loops(layout: TokenLayout):
    module, x = attention_module(), tokens(layout, batch=1, width=16)
    actual, rotation = run(module, x, layout, schedule_of("uniform:4", layout))
    chosen = layout.keep_patches(destination_patches(layout, 4)).nonzero()[:, 0].tolist()
    of, _ = reference.cell_slots(x[0], layout, destination_patches(layout, 4), 4)
    merged = torch.stack([x[0][[i for i, to in enumerate(of) if to == d]].mean(0) for d in chosen])
    out = module.proj(loop_attention(module, merged, merged, rotation, chosen, chosen))
    torch.testing.assert_close(actual[0], out[[chosen.index(to) for to in of]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("factor", "tile"), [(1, (1, 1)), (3, (1, 3)), (4, (2, 2)), (8, (2, 4)), (25, (5, 5))])
def test_tiles_are_nearly_square(factor: int, tile: tuple[int, int]):
    assert tile_of(factor) == tile


@each_layout
@pytest.mark.parametrize("factor", [1, 2, 6, 25])
@pytest.mark.parametrize("shifting", [True, False])
def test_the_grid_keeps_what_the_loop_keeps(layout: TokenLayout, factor: int, shifting: bool):
    expected = reference.grid_tokens(layout, tile_of(factor), shifting)
    assert kept_on_grid(layout, factor, shifting, CPU).tolist() == expected


def test_a_shifting_grid_covers_every_place_once_in_a_row_of_frames():
    layout = TokenLayout(13, 1, (5, 7), reference=12)
    mask = torch.zeros(layout.total, dtype=torch.int64)
    mask[kept_on_grid(layout, 6, True, CPU)] = 1
    patches = layout.split(mask[None, :, None])[1][0, :12, :, 0]
    assert torch.equal(patches[:6].sum(0), torch.ones(35, dtype=torch.int64))
    assert torch.equal(patches[6:12].sum(0), torch.ones(35, dtype=torch.int64))


@each_layout
def test_grid_attention_agrees_with_plain_loops(layout: TokenLayout):
    module, x = attention_module(), tokens(layout, batch=1, width=16)
    actual, rotation = run(module, x, layout, schedule_of("grid:2x4", layout))
    of, destinations = reference.merge_slots(x[0], layout, 2, 4)
    merged = torch.stack([x[0][[i for i, to in enumerate(of) if to == d]].mean(0) for d in destinations])
    kept = reference.grid_tokens(layout, (2, 2), shifting=True)
    out = module.proj(loop_attention(module, merged, x[0, kept], rotation, destinations, kept))
    torch.testing.assert_close(actual[0], out[[destinations.index(to) for to in of]], rtol=1e-4, atol=1e-5)


@each_layout
def test_anchored_attention_agrees_with_plain_loops(layout: TokenLayout):
    module, x = attention_module(), tokens(layout, batch=1, width=16)
    actual, rotation = run(module, x, layout, schedule_of("anchor:4", layout))
    every, kept = list(range(layout.total)), reference.grid_tokens(layout, (2, 2), shifting=False)
    attend = partial(reference.anchored_attention, kept=kept)
    out = module.proj(loop_attention(module, x[0], x[0], rotation, every, every, attend))
    torch.testing.assert_close(actual[0], out, rtol=1e-4, atol=1e-5)


def test_anchored_attention_in_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    layout, module = LAYOUTS[-1], attention_module()
    x = tokens(layout, width=16)
    whole, _ = run(module, x, layout, schedule_of("anchor:4", layout))
    monkeypatch.setattr("spark3r.reduction.anchor._ROWS_AT_ONCE", 7)
    torch.testing.assert_close(run(module, x, layout, schedule_of("anchor:4", layout))[0], whole, rtol=1e-5, atol=1e-6)


@each_layout
def test_layers_before_the_first_sensitive_one_become_frame_attention(layout: TokenLayout):
    schedule = ReductionSchedule(1, 4, sensitive_layers=(2, 3), policy="anchor")
    module, x = attention_module(), tokens(layout, width=16)
    planner = SchedulePlanner(schedule)
    kinds = [type(planner(x, layout, layer)) for layer in range(4)]
    assert kinds == [AmongFrames, AmongFrames, Anchored, Anchored]
    actual, _ = run(module, x, layout, schedule, layer=0)
    one = grid_rotation(layout.grid, layout.special, 8, CPU)
    expected = layout.joined(module(layout.framed(x), one))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    assert schedule.token_counts(layout, 0) == (layout.total, layout.per_frame)


@pytest.mark.parametrize("layout", WITH_SPECIALS)
def test_register_attention_agrees_with_plain_loops_and_leaves_patches_alone(layout: TokenLayout):
    module, x = attention_module(), tokens(layout, batch=1, width=16)
    actual, rotation = run(module, x, layout, schedule_of("register", layout))
    special = (~layout.is_patch()).nonzero()[:, 0].tolist()
    out = module.proj(loop_attention(module, x[0, special], x[0, special], rotation, special, special))
    torch.testing.assert_close(actual[0, special], out, rtol=1e-4, atol=1e-5)
    assert not actual[0, layout.is_patch()].any()


def test_register_needs_special_tokens():
    layout = TokenLayout(2, 0, (2, 2))
    with pytest.raises(InputError, match="no special tokens"):
        run(attention_module(), tokens(layout, width=16), layout, schedule_of("register", layout))


def test_tables_made_while_reconstructing_serve_training_too():
    layout, module = TokenLayout(6, 1, (3, 4)), attention_module().requires_grad_(True)
    for word in ("uniform:4", "grid:1x4", "anchor:4", "register"):
        x = tokens(layout, width=16)
        with torch.inference_mode():
            run(module, x, layout, schedule_of(word, layout))
        run(module, x.requires_grad_(), layout, schedule_of(word, layout))[0].sum().backward()
        assert torch.isfinite(x.grad).all()  # pyright: ignore[reportArgumentType]
