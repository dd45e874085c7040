"""Laws of the reduction, over odd grids, one frame, factors larger than the clip and incomplete last groups."""

from collections.abc import Callable

import pytest
import torch

from spark3r.attention import Attention, Rotation, dense
from spark3r.models.blocks import grid_rotation
from spark3r.reduction import ReductionSchedule, SchedulePlanner
from spark3r.reduction.merge import plan_query_merge
from spark3r.reduction.prune import kept_context
from spark3r.tokens import TokenLayout
from tests import reference

CPU = torch.device("cpu")

LAYOUTS = [
    TokenLayout(1, 2, (3, 5)),
    TokenLayout(2, 0, (1, 1)),
    TokenLayout(5, 1, (3, 3), reference=2),
    TokenLayout(7, 5, (1, 4)),
    TokenLayout(23, 2, (2, 3), reference=11),
]
FACTORS = [1, 2, 3, 7, 64]
GROUPS = [1, 4, 20]

each_case = pytest.mark.parametrize(
    ("layout", "factor", "group_size"),
    [(layout, factor, group) for layout in LAYOUTS for factor in FACTORS for group in GROUPS],
)


def tokens(layout: TokenLayout, batch: int = 2, width: int = 8) -> torch.Tensor:
    return torch.randn(batch, layout.total, width, generator=torch.Generator().manual_seed(layout.total))


@each_case
def test_every_token_is_counted_exactly_once(layout: TokenLayout, factor: int, group_size: int):
    plan = plan_query_merge(tokens(layout), layout, factor, group_size)
    rows = len(plan.destination)
    for slot in plan.slot:
        mass = torch.bincount(slot, minlength=rows)
        assert int(mass.sum()) == layout.total
        assert int(mass.min()) >= 1
        assert torch.equal(slot[plan.destination], torch.arange(rows)), "a destination belongs to its own row"


@each_case
def test_merging_keeps_the_sum_of_all_tokens(layout: TokenLayout, factor: int, group_size: int):
    x = tokens(layout)
    plan = plan_query_merge(x, layout, factor, group_size)
    mass = torch.stack([torch.bincount(slot, minlength=len(plan.destination)) for slot in plan.slot])
    torch.testing.assert_close((plan.merge(x) * mass[..., None]).sum(1), x.sum(1), rtol=1e-5, atol=1e-4)


@each_case
def test_special_tokens_are_never_touched(layout: TokenLayout, factor: int, group_size: int):
    x = tokens(layout)
    plan = plan_query_merge(x, layout, factor, group_size)
    special = ~layout.is_patch()
    assert torch.equal(plan.unmerge(plan.merge(x))[:, special], x[:, special])
    kept = kept_context(layout, factor, CPU)
    assert set(special.nonzero()[:, 0].tolist()) <= set(kept.tolist())


@each_case
def test_merge_then_unmerge_is_the_identity_on_group_constant_tokens(layout: TokenLayout, factor: int, group_size: int):
    group = torch.arange(layout.frames) // group_size
    value = torch.randn(int(group.max()) + 1, 8, generator=torch.Generator().manual_seed(3))
    constant = value[group].repeat_interleave(layout.per_frame, dim=0)[None]
    plan = plan_query_merge(constant, layout, factor, group_size)
    torch.testing.assert_close(plan.unmerge(plan.merge(constant)), constant, rtol=1e-6, atol=1e-6)


@each_case
def test_tokens_merge_only_inside_their_group(layout: TokenLayout, factor: int, group_size: int):
    plan = plan_query_merge(tokens(layout), layout, factor, group_size)
    group = torch.arange(layout.total) // layout.per_frame // group_size
    for slot in plan.slot:
        assert torch.equal(group[plan.destination[slot]], group)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("factor", "group_size"), [(2, 4), (3, 20), (64, 4)])
def test_fast_merge_agrees_with_the_loop(layout: TokenLayout, factor: int, group_size: int):
    x = tokens(layout, batch=1)
    plan = plan_query_merge(x, layout, factor, group_size)
    destination_of, destinations = reference.merge_slots(x[0], layout, factor, group_size)
    assert plan.destination.tolist() == destinations
    assert plan.destination[plan.slot[0]].tolist() == destination_of
    expected = [x[0][[i for i, to in enumerate(destination_of) if to == d]].mean(0) for d in destinations]
    torch.testing.assert_close(plan.merge(x)[0], torch.stack(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("factor", FACTORS)
def test_pruning_keeps_what_the_loop_keeps(layout: TokenLayout, factor: int):
    assert kept_context(layout, factor, CPU).tolist() == reference.kept_tokens(layout, factor)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("group_size", GROUPS)
def test_token_counts_foretell_what_is_planned(layout: TokenLayout, factor: int, group_size: int):
    schedule = ReductionSchedule(min(factor, 64), factor, group_size)
    plan = plan_query_merge(tokens(layout), layout, factor, group_size)
    kept = kept_context(layout, factor, CPU)
    assert schedule.token_counts(layout) == (len(plan.destination), len(kept))


def test_ties_join_the_same_place_of_the_last_destination_frame_and_the_plan_is_deterministic():
    layout = TokenLayout(6, 1, (2, 2))
    same = torch.ones(1, layout.total, 8)
    plan = plan_query_merge(same, layout, 3, 6)
    patches = layout.patch_tokens()
    for source, destination in ((1, 0), (2, 0), (4, 3), (5, 3)):
        assert torch.equal(plan.destination[plan.slot[0, patches[source]]], patches[destination])
    x = tokens(layout)
    first, second = (plan_query_merge(x, layout, 2, 4) for _ in range(2))
    assert torch.equal(first.slot, second.slot)
    assert torch.equal(first.merge(x), second.merge(x))


@pytest.mark.parametrize("movement", [0.0, 0.01])
def test_a_still_or_slow_scene_merges_in_bfloat16_as_in_float32(movement: float):
    """With eight bits of score nearly all candidates tie; the group's first frame must not take everything."""
    layout, factor = TokenLayout(20, 1, (4, 5)), 4
    generator = torch.Generator().manual_seed(0)
    scene, drift = (torch.randn(1, layout.patches, 64, generator=generator) for _ in range(2))
    common = torch.randn(1, 1, 64, generator=generator) * 4  # patches of one picture are alike
    frames = [scene + common + movement * i * drift for i in range(20)]
    x = torch.stack([torch.cat((common, frame), dim=1) for frame in frames], dim=1).flatten(1, 2)
    x = x + 1e-3 * torch.randn(x.shape, generator=generator)
    sources = layout.patch_tokens()[torch.arange(20) % factor != 0]
    joined = {}
    for dtype in (torch.float32, torch.bfloat16):
        plan = plan_query_merge(x, layout, factor, 20, dtype)
        destination = plan.destination[plan.slot[0, sources]]
        joined[dtype] = (destination - layout.special) % layout.per_frame, destination // layout.per_frame
    place = torch.arange(layout.patches).expand_as(sources)
    assert torch.equal(joined[torch.bfloat16][0], place)
    shares = torch.bincount(joined[torch.bfloat16][1].flatten(), minlength=20) / sources.numel()
    assert shares.max() < 0.3, "a fifth each would be even"
    assert torch.equal(joined[torch.float32][0], place)


def test_matching_in_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    layout = TokenLayout(23, 2, (3, 3))
    x = tokens(layout)
    whole = plan_query_merge(x, layout, 3, 5)
    for limit in (1, 50, 1000):
        monkeypatch.setattr("spark3r.reduction.merge._SCORES_AT_ONCE", limit)
        assert torch.equal(plan_query_merge(x, layout, 3, 5).slot, whole.slot)


def attention_module(width: int = 16) -> Attention:
    torch.manual_seed(0)
    module = Attention(width, heads=2, qk_norm=True).eval()
    return module.requires_grad_(False)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_off_is_bit_equal_to_dense(layout: TokenLayout):
    module, x = attention_module(), tokens(layout, width=16)
    rotation = grid_rotation(layout.grid, layout.special, 8, CPU)
    off = SchedulePlanner(ReductionSchedule.off())
    for layer in (0, 7):
        plain = module(x, rotation)
        assert torch.equal(module(x, rotation, lambda t, n=layer: off(t, layout, n)), plain)
        assert torch.equal(module(x, rotation, lambda t, n=layer: dense(t, layout, n)), plain)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reduced_attention_agrees_with_plain_loops(layout: TokenLayout):
    """The whole seam: merge or prune first, project after, rotate at the destination's place, copy back."""
    schedule = ReductionSchedule(2, 3, group_size=4)
    module, x = attention_module(), tokens(layout, batch=1, width=16)
    rotation = grid_rotation(layout.grid, layout.special, 8, CPU)
    planner = SchedulePlanner(schedule)
    actual = module(x, rotation, lambda t: planner(t, layout, 0))

    destination_of, destinations = reference.merge_slots(x[0], layout, 2, 4)
    merged = torch.stack([x[0][[i for i, to in enumerate(destination_of) if to == d]].mean(0) for d in destinations])
    kept = reference.kept_tokens(layout, 3)
    out = loop_attention(module, merged, x[0, kept], rotation, destinations, kept)
    row_of = {destination: row for row, destination in enumerate(destinations)}
    expected = module.proj(out)[[row_of[to] for to in destination_of]]
    torch.testing.assert_close(actual[0], expected, rtol=1e-4, atol=1e-5)


def loop_attention(
    module: Attention,
    x_q: torch.Tensor,  # [M, C]
    x_kv: torch.Tensor,  # [K, C]
    rotation: Rotation,
    places_q: list[int],
    places_kv: list[int],
    attend: Callable[..., torch.Tensor] = reference.attention,
) -> torch.Tensor:  # [M, C]
    width, head_dim = x_q.shape[1], x_q.shape[1] // module.heads
    outputs = []
    for head in range(module.heads):
        part = slice(head * head_dim, (head + 1) * head_dim)
        q = module.q_norm(module.qkv(x_q)[:, :width][:, part])
        k = module.k_norm(module.qkv(x_kv)[:, width : 2 * width][:, part])
        v = module.qkv(x_kv)[:, 2 * width :][:, part]
        q, k = rotation.rows(torch.tensor(places_q)).apply(q), rotation.rows(torch.tensor(places_kv)).apply(k)
        outputs.append(attend(q, k, v, head_dim**-0.5))
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_factors_of_one_give_what_dense_gives(layout: TokenLayout):
    """The merging and pruning machinery itself, forced to run at factor 1, must be the identity."""
    x = tokens(layout)
    plan = plan_query_merge(x, layout, 1, 20)
    assert torch.equal(plan.merge(x), x)
    assert torch.equal(kept_context(layout, 1, CPU), torch.arange(layout.total))
