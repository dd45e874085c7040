"""GPUs on paper: the count of bytes, work and memory against numbers that can be worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from spark3r import InputError, ReductionSchedule
from spark3r.__main__ import main
from spark3r.attention import Reduction
from spark3r.benchmark.paper import GPUS, gpu_named, largest_clip, paper_rows, seconds
from spark3r.dryrun import Case, dry_run, peak_bytes
from spark3r.ledger import FusedAttention, Ledger, Work
from spark3r.meta import device_kind, one_kernel, standing_for, watching_kernels
from spark3r.models.families.mini import mini_config
from spark3r.models.registry import named
from spark3r.reduction import SchedulePlanner
from spark3r.tokens import TokenLayout

MINI = mini_config(96, 2)
AUTO = ReductionSchedule.auto(300)
WORDS = ("dense", "auto", "4x25", "uniform:4", "grid:4x25", "anchor:25", "register", "chunked:40+10")


def case(frames: int = 300, schedule: ReductionSchedule = AUTO, **changes: object) -> Case:
    whole = Case(MINI, torch.bfloat16, "cuda", frames, 96, 128, schedule)
    return replace(whole, **changes)  # pyright: ignore[reportArgumentType]


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def test_memory_is_what_lives_at_once():
    with Ledger(held=7) as ledger:
        a = empty(1000)
        b = a + 1  # 8000 bytes live
        view = b.view(10, 100)
        del a, b
        view.add_(1)
        assert ledger.held == 7 + 4000
    assert ledger.peak == 7 + 8000


def test_work_is_counted_by_hand():
    with Ledger() as ledger:
        a, b = empty(32, 64, dtype=torch.bfloat16), empty(64, 16, dtype=torch.bfloat16)
        with ledger.repeated(3):
            c = a @ b
        c.expand(2, 32, 16).float()
    (product, times), (cast, once) = ledger.work.items()
    assert (product.unit, product.flop, product.bytes, times) == ("half", 2 * 32 * 64 * 16, 2 * (2048 + 1024 + 512), 3)
    assert (cast.flop, cast.bytes, once) == (0, 512 * 2 + 1024 * 4, 1)  # what is broadcast is read once


def test_attention_is_the_fused_kernel_of_a_gpu():
    q, k = empty(2, 4, 1000, 64, dtype=torch.bfloat16), empty(2, 4, 300, 64, dtype=torch.bfloat16)
    with FusedAttention(), Ledger() as ledger:
        out = nn.functional.scaled_dot_product_attention(q, k, k)
    assert out.shape == q.shape
    (work,) = ledger.work
    assert (work.unit, work.flop) == ("attention", 4 * 2 * 4 * 1000 * 300 * 64)
    assert work.bytes < 1.1 * 2 * (2 * q.numel() + 2 * k.numel())  # no scores in memory


def test_a_function_is_one_pass_only_where_its_kernel_exists():
    exists = {"kernel": True}

    @one_kernel(exists=lambda: exists["kernel"])
    def twice_cast(x: Tensor) -> Tensor:
        return (x * 2).to(torch.bfloat16)

    x = empty(1000)
    for exists["kernel"], ops, moved in ((True, ["twice_cast"], 6000), (False, ["mul", "_to_copy"], 14000)):
        ledger = Ledger()
        with watching_kernels(ledger.kernel), ledger:
            assert twice_cast(x).dtype == torch.bfloat16
        assert [work.op for work in ledger.work] == ops
        assert sum(work.bytes for work in ledger.work) == moved


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x.sum().item(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.index_put_((x > 0,), torch.zeros((), device=x.device)),
        lambda x: x[torch.tensor([0, 2])],
        lambda x: x.index_select(0, torch.tensor([0, 2])),
        lambda x: x + torch.ones(8),
        lambda x: x.cpu(),
        lambda x: 1 if x[0] > 0 else 0,
    ],
    ids=["item", "nonzero", "mask", "write by mask", "index on the CPU", "select on the CPU", "mixed", "cpu", "if"],
)
def test_what_would_make_a_gpu_wait_is_refused(wrong):
    with pytest.raises((RuntimeError, NotImplementedError)), Ledger():
        wrong(empty(8))


def test_a_planner_that_waits_is_found_in_a_whole_run(monkeypatch: pytest.MonkeyPatch):
    def waits(self: SchedulePlanner, x: Tensor, layout: TokenLayout, layer: int) -> Reduction:
        x.amax().item()
        return Reduction()

    dry_run(case())
    monkeypatch.setattr(SchedulePlanner, "__call__", waits)
    with pytest.raises(RuntimeError, match=r"item|_local_scalar_dense"):
        dry_run(case())


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("family", ["vggt", "pi3", "pi3x", "da3-small", "vggt-omega", "mini"])
def test_no_family_and_no_policy_waits_or_mixes_devices(family: str, word: str):
    config = named(family).config
    size = (6 * config.patch, 8 * config.patch)
    schedule = ReductionSchedule.parse(word, 120, config.sensitive_layers)
    ledger = dry_run(Case(config, torch.bfloat16, "cuda", 120, *size, schedule))
    assert {"encoder", "frame_attention", "global_attention", "heads"} <= {work.stage for work in ledger.work}


@pytest.mark.parametrize("schedule", [ReductionSchedule.off(), ReductionSchedule(4, 8, sensitive_layers=(0,))])
def test_counting_each_kind_of_block_once_loses_nothing(schedule: ReductionSchedule, monkeypatch: pytest.MonkeyPatch):
    short = case(40, schedule, config=named("da3-small").config, height=84, width=112)
    dry_run(short)  # tables that are kept are made
    once = dry_run(short)
    monkeypatch.setattr("spark3r.dryrun._kinds", lambda case: list(range(len(case.config.blocks))))
    each = dry_run(short)

    def sums(ledger: Ledger) -> tuple[int, int]:
        return (
            sum(work.flop * count for work, count in ledger.work.items()),
            sum(work.bytes * count for work, count in ledger.work.items()),
        )

    assert sums(once) == sums(each)
    assert once.peak == each.peak


@pytest.mark.slow
@pytest.mark.parametrize("word", ["dense", "auto", "uniform:4", "grid:4x25"])
@pytest.mark.parametrize("family", ["vggt", "da3-giant"])
def test_the_scaled_peak_covers_the_exact_one(family: str, word: str):
    config = named(family).config
    schedule = ReductionSchedule.parse(word, 400, config.sensitive_layers)
    long = Case(config, torch.bfloat16, "cuda", 400, 28 * config.patch, 37 * config.patch, schedule)
    exact = dry_run(long).peak
    assert exact <= peak_bytes(long) <= 1.05 * exact


def test_offloaded_the_kept_layers_are_not_held():
    long = Case(named("vggt").config, torch.bfloat16, "cuda", 400, 196, 252, AUTO)
    kept = 400 * 14 * 18 * (256 + 512 + 256) * 2  # bytes, while the last layer is still to come
    assert dry_run(long).peak - dry_run(replace(long, offload=True)).peak >= 0.98 * kept


def test_tensors_without_data_stand_for_a_gpu_or_what_is_asked():
    meta = torch.device("meta")
    assert device_kind(meta) == "cuda"
    assert device_kind(torch.device("cpu")) == "cpu"
    with standing_for("cpu"):
        assert device_kind(meta) == "cpu"


def test_time_is_the_longer_of_bytes_and_arithmetic():
    gpu = GPUS["h100"]
    assert seconds(Work("heads", "add", "float32", 10**12, 0), gpu) == pytest.approx(1 / (0.776 * 3.35))
    assert seconds(Work("heads", "mm", "half", 8, 10**15), gpu) == pytest.approx(1000 / (0.708 * 989))


def test_rows_say_that_they_are_computed_and_what_fits():
    schedules = {"dense": lambda frames: ReductionSchedule.off(), "auto": ReductionSchedule.auto}
    rows = paper_rows(MINI, (96, 128), 300, schedules, ["h100", "rtx4090"])
    assert [(row["gpu"], row["schedule"]) for row in rows] == [
        (gpu, word) for word in schedules for gpu in ("h100", "rtx4090")
    ]
    assert all(row["computed"] for row in rows)
    dense, _, auto, small = rows
    assert auto["speedup_total"] == pytest.approx(dense["total_ms"] / auto["total_ms"])
    assert small["largest_frames"] < auto["largest_frames"]


@pytest.mark.slow
def test_the_largest_clip_fits_and_one_more_does_not():
    gpu, schedule_of = replace(GPUS["h100"], memory=0.5), ReductionSchedule.auto
    longest = largest_clip(case(), schedule_of, gpu)
    fits = [peak_bytes(case(n, schedule_of(n))) <= 0.5 * 2**30 for n in (longest, longest + 1)]
    assert fits == [True, False]


def test_an_unknown_card_is_refused():
    with pytest.raises(InputError, match="h100"):
        gpu_named("voodoo2")


def test_the_command_computes_and_says_so(capsys: pytest.CaptureFixture[str]):
    words = [
        "benchmark",
        "--paper",
        "h100",
        "l40s",
        "--model",
        "mini",
        "--frames",
        "300",
        "--schedule",
        "auto",
        "dense",
    ]
    assert main([*words, "--quiet"]) == 0
    assert "COMPUTED, NOT MEASURED" in capsys.readouterr().out
    assert main([*words, "--json", "-"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["machine"]["computed"]
    assert {row["schedule"]: row["speedup_total"] is not None for row in content["rows"]} == {
        "auto": True,
        "dense": True,
    }
