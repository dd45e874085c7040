"""The plug-in: nothing changes when off or undone, everything global is reduced when on, misuse is named."""

import copy
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spark3r import InputError, ReductionSchedule, accelerate, plugin
from spark3r.attention import Reduction
from tests import hosts, reference

FAMILIES = [hosts.VGGT, hosts.Pi3, hosts.Pi3X, hosts.DepthAnything3, hosts.DepthAnything3Net, hosts.VGGTOmega]
GLOBAL_LAYERS = {"VGGT": 3, "Pi3": 2, "Pi3X": 2, "DepthAnything3": 2, "DepthAnything3Net": 2, "VGGTOmega": 2}
STRONG = ReductionSchedule(query_factor=3, kv_factor=4, group_size=6)


def clip(frames: int, grid: tuple[int, int] = (2, 3), batch: int = 1) -> Tensor:
    return torch.rand(batch, frames, 3, 2 * grid[0], 2 * grid[1], generator=torch.Generator().manual_seed(frames))


def part(model: nn.Module, path: str) -> Any:
    """A module inside a model, by its path."""
    return model.get_submodule(path)


@pytest.fixture(params=FAMILIES, ids=lambda kind: kind.__name__)
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return request.param().eval().requires_grad_(False)


def test_off_is_bit_equal(model: nn.Module):
    expected = model(clip(7, batch=2))
    with accelerate(model, ReductionSchedule.off()):
        assert torch.equal(model(clip(7, batch=2)), expected)


def test_on_changes_values_but_no_shape_whatever_the_clip(model: nn.Module):
    """Several lengths and grids through one patched model; on a single frame there is nothing to reduce."""
    clips = [clip(1), clip(2), clip(13), clip(7, grid=(3, 2), batch=2), clip(2)]
    dense = [model(images) for images in clips]
    with accelerate(model, STRONG) as acceleration:
        reduced = [model(images) for images in clips]
        assert acceleration.layout is not None
        assert acceleration.layout.frames == 2
    assert [r.shape for r in reduced] == [d.shape for d in dense]
    torch.testing.assert_close(reduced[0], dense[0])
    assert all(not torch.allclose(r, d, atol=1e-4) for r, d in zip(reduced[1:], dense[1:], strict=True))
    assert torch.equal(reduced[1], reduced[4]), "earlier clips leave no trace"


def test_weights_keys_and_outputs_come_back(model: nn.Module):
    images, state = clip(9), copy.deepcopy(model.state_dict())
    attributes = {name: set(module.__dict__) for name, module in model.named_modules()}
    expected = model(images)
    acceleration = accelerate(model, STRONG)
    model(images)
    assert list(model.state_dict()) == list(state)
    acceleration.undo()
    acceleration.undo()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    assert {name: set(module.__dict__) for name, module in model.named_modules()} == attributes
    assert torch.equal(model(images), expected)


def test_every_global_layer_is_reduced_and_no_other(model: nn.Module, monkeypatch: pytest.MonkeyPatch):
    projected: list[tuple[int, int]] = []
    project = plugin._project

    def watched(attn: nn.Module, x_q: Tensor, x_kv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        projected.append((x_q.shape[1], x_kv.shape[1]))
        return project(attn, x_q, x_kv)

    monkeypatch.setattr(plugin, "_project", watched)
    with accelerate(model, STRONG) as acceleration:
        model(clip(12))
        assert acceleration.layout is not None
        expected = STRONG.token_counts(acceleration.layout)
    assert projected == [expected] * GLOBAL_LAYERS[type(model).__name__]
    assert expected[1] < expected[0] < acceleration.layout.total


def test_reduced_attention_agrees_with_plain_loops():
    """One VGGT layer under the plug-in against merging, pruning and attention written out token by token."""
    torch.manual_seed(1)
    model = hosts.VGGT(depth=1).eval().requires_grad_(False)
    images, attn = clip(8), part(model, "aggregator.global_blocks.0.attn")
    seen: list[tuple[Tensor, Tensor]] = []
    with accelerate(model, STRONG) as acceleration:
        watch = attn.register_forward_hook(lambda m, a, k, y: seen.append((a[0], y)), with_kwargs=True)
        model(images)
        watch.remove()
        layout = acceleration.layout
    (x, actual), (_, pos) = seen[0], model.aggregator.tokens(images)
    assert layout is not None
    destination_of, destinations = reference.merge_slots(x[0], layout, STRONG.query_factor, STRONG.group_size)
    merged = torch.stack([x[0][[i for i, to in enumerate(destination_of) if to == d]].mean(0) for d in destinations])
    kept = reference.kept_tokens(layout, STRONG.kv_factor)
    expected = _attend(attn, merged[None], x[:, kept], pos.flatten(1, 2), destinations, kept)
    rows = [destinations.index(to) for to in destination_of]
    torch.testing.assert_close(actual, expected[:, rows], rtol=1e-4, atol=1e-5)


def _attend(
    attn: hosts.Attention, x_q: Tensor, x_kv: Tensor, pos: Tensor, places_q: list[int], places_kv: list[int]
) -> Tensor:
    """Projects whole rows with the module's own layers, then keeps what each side needs."""
    assert attn.rope is not None

    def heads(x: Tensor, part: int) -> Tensor:
        return attn.qkv(x).unflatten(-1, (3, hosts.HEADS, -1))[:, :, part].transpose(1, 2)

    q = attn.rope(attn.q_norm(heads(x_q, 0)), pos[:, places_q])
    k = attn.rope(attn.k_norm(heads(x_kv, 1)), pos[:, places_kv])
    weight = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return attn.proj((weight @ heads(x_kv, 2)).transpose(1, 2).flatten(2))


def test_auto_follows_the_length_of_each_call():
    model = hosts.VGGT(depth=24).eval().requires_grad_(False)
    with accelerate(model) as acceleration:
        assert acceleration.schedule_for(80).at(11) == (1, 1)
        assert acceleration.schedule_for(80).at(0) == (1, 3)
        assert acceleration.schedule_for(1000).at(16) == (4, 25)
        assert acceleration.schedule_for(1000).at(17) == (4, 75)
        assert "auto" in str(acceleration)


def test_auto_treats_every_layer_of_an_unknown_depth_alike():
    """Layers 11 to 16 were found sensitive in the released 24; in a model of 30 their numbers mean nothing."""
    with accelerate(hosts.VGGT(depth=30)) as acceleration:
        schedule = acceleration.schedule_for(1000)
        assert {schedule.at(layer) for layer in range(30)} == {schedule.at(0)}


@pytest.mark.parametrize("word", ["3x4", "uniform:4", "grid:2x4", "anchor:4", "register"])
def test_words_choose_policies(model: nn.Module, word: str):
    images = clip(9, batch=2)
    dense = model(images)
    with accelerate(model, word) as acceleration:
        reduced = model(images)
        assert word in str(acceleration)
        assert not torch.allclose(reduced, dense, atol=1e-4)
        first = model(images[:1])
    torch.testing.assert_close(first, reduced[:1], rtol=1e-4, atol=1e-5)
    assert torch.equal(model(images), dense)


def test_words_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="must be dense, auto"):
        accelerate(hosts.VGGT(), "fast")
    with pytest.raises(InputError, match="windows"):
        accelerate(hosts.VGGT(), "chunked:12+4")


def test_omega_counts_global_layers_only():
    """The paper's sensitive layers 10–13, 15–17, 21 are block numbers; register-only blocks are no layers of ours."""
    model = hosts.VGGTOmega()
    kinds = ["register" if index in (2, 6, 9, 14, 20) else "global" for index in range(24)]
    model.aggregator.inter_frame_attention_types = kinds
    model.aggregator.inter_frame_blocks = nn.ModuleList(hosts.Block(hosts.RopeAttention()) for _ in kinds)
    acceleration = accelerate(model)
    assert acceleration.num_layers == 19
    assert acceleration.schedule_for(200).sensitive_layers == (7, 8, 9, 10, 11, 12, 13, 16)


def test_the_first_frame_of_the_reordered_clip_is_kept(monkeypatch: pytest.MonkeyPatch):
    """Depth Anything 3 puts its reference first: pruning to a single frame keeps that one's patches."""
    model = hosts.DepthAnything3Net().eval().requires_grad_(False)
    contexts: list[Tensor] = []
    project = plugin._project

    def watched(attn: nn.Module, x_q: Tensor, x_kv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        contexts.append(x_kv)
        return project(attn, x_q, x_kv)

    monkeypatch.setattr(plugin, "_project", watched)
    inputs: list[Tensor] = []
    first = part(model, "backbone.pretrained.blocks.3")
    watch = first.norm1.register_forward_hook(lambda m, a, y: inputs.append(y))
    with accelerate(model, ReductionSchedule(kv_factor=64)):
        model(clip(5))
    watch.remove()
    per_frame = 1 + 6
    assert torch.equal(contexts[0][:, :per_frame], inputs[0][:, :per_frame])
    assert contexts[0].shape[1] == per_frame + 4


def test_a_second_application_is_refused_also_through_the_wrapper(model: nn.Module):
    with accelerate(model, STRONG), pytest.raises(InputError, match="accelerated already"):
        accelerate(model, STRONG)
    wrapper = hosts.DepthAnything3()
    with accelerate(wrapper), pytest.raises(InputError, match="undo"):
        accelerate(wrapper.model)
    accelerate(wrapper.model).undo()


@pytest.mark.parametrize("stranger", [nn.Linear(2, 2), nn.DataParallel(hosts.VGGT())], ids=["linear", "wrapped"])
def test_an_unknown_class_is_told_what_is_supported(stranger: nn.Module):
    with pytest.raises(InputError, match=r"classes .*VGGT, .*Pi3, .*VGGTOmega, not (Linear|Data)"):
        accelerate(stranger)


def test_what_cannot_be_reduced_says_why():
    with pytest.raises(InputError, match="no global attention"):
        accelerate(hosts.DepthAnything3Net(alt_start=-1))
    with pytest.raises(InputError, match="schedule 'fast'"):
        accelerate(hosts.VGGT(), "fast")  # pyright: ignore[reportArgumentType]
    hollow = hosts.VGGT()
    del hollow.aggregator.global_blocks
    with pytest.raises(InputError, match=r"no aggregator\.global_blocks"):
        accelerate(hollow)
    adapted = hosts.VGGT()
    part(adapted, "aggregator.global_blocks.1.attn").qkv = nn.Sequential(nn.Linear(16, 48))
    with pytest.raises(InputError, match="Sequential"):
        accelerate(adapted)


def test_misuse_of_a_patched_model_is_named():
    model = hosts.DepthAnything3Net().eval().requires_grad_(False)
    with accelerate(model, STRONG):
        with pytest.raises(InputError, match="attn_mask"):
            model(clip(4), attn_mask=torch.ones(1))
        with pytest.raises(InputError, match="outside a call"):
            part(model, "backbone.pretrained.blocks.3")(torch.zeros(1, 5, hosts.WIDTH), pos=None, attn_mask=None)
    acceleration = accelerate(model, STRONG)
    module = part(model, "backbone.pretrained.blocks.5.attn")
    ours, module.forward = module.forward, lambda x, **k: x
    with pytest.raises(InputError, match="another tool"):
        acceleration.undo()
    module.forward = ours
    acceleration.undo()


def saved_and_read_back(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, saved_and_read_back], ids=["copied", "saved"])
def test_a_copy_of_a_patched_model_is_the_official_one(model: nn.Module, copied: Callable[[nn.Module], nn.Module]):
    dense = model(clip(6))
    acceleration = accelerate(model, STRONG)
    reduced = model(clip(6))
    twin = copied(model)
    assert torch.equal(twin(clip(6)), dense)
    with accelerate(twin, STRONG):
        assert torch.equal(twin(clip(6)), reduced)
    acceleration.undo()
    assert torch.equal(model(clip(6)), dense)
    assert torch.equal(twin(clip(6)), dense)


def test_a_saved_model_needs_nothing_of_ours_to_be_read(model: nn.Module):
    with accelerate(model, STRONG):
        file = io.BytesIO()
        torch.save(model, file)
    assert b"spark3r" not in file.getvalue()


def test_threads_on_one_model_do_not_mix(model: nn.Module):
    """Clips of other lengths run to their end between any two layers of this one."""
    clips = [clip(5), clip(13), clip(9, grid=(3, 2))]
    with accelerate(model, STRONG) as acceleration:
        alone = [model(images) for images in clips]
        plan = acceleration.plan

        def interrupted(x: Tensor, layer: int) -> Reduction:
            if threading.current_thread() is threading.main_thread():
                with ThreadPoolExecutor(2) as others:
                    between = list(others.map(model, clips[1:]))
                assert all(torch.equal(a, b) for a, b in zip(between, alone[1:], strict=True))
            return plan(x, layer)

        acceleration.plan = interrupted
        assert torch.equal(model(clips[0]), alone[0])


def test_an_earlier_patch_is_put_back():
    model = hosts.VGGT().eval()
    attn = part(model, "aggregator.global_blocks.0.attn")
    attn.forward = earlier = lambda x, pos=None: x
    accelerate(model, STRONG).undo()
    assert attn.forward is earlier


@pytest.mark.parametrize("word", ["3x4", "uniform:4", "grid:2x4", "anchor:4", "register"])
def test_gradients_flow_through_reduced_layers_also_after_an_inference_run(word: str):
    model = hosts.VGGT()
    with accelerate(model, word):
        with torch.inference_mode():
            model(clip(6))
        model(clip(6)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.aggregator.global_blocks.parameters())


def test_bfloat16_autocast_matches_in_bfloat16(monkeypatch: pytest.MonkeyPatch):
    seen: list[torch.dtype] = []
    planner = plugin.SchedulePlanner

    def watched(schedule: ReductionSchedule, match_dtype: torch.dtype) -> Reduction:
        seen.append(match_dtype)
        return planner(schedule, match_dtype)  # pyright: ignore[reportReturnType]

    monkeypatch.setattr(plugin, "SchedulePlanner", watched)
    model = hosts.VGGT().eval().requires_grad_(False)
    with accelerate(model, STRONG), torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(clip(6)).isfinite().all()
    assert set(seen) == {torch.bfloat16}
