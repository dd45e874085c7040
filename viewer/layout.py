"""What stands on the page, and nothing else: components in, one `Components` dataclass out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from spark3r.reduction.schedule import ReductionSchedule
from viewer import charts, readout
from viewer.dials import KV_STOPS, QUERY_STOPS
from viewer.panes import Panes, build_panes
from viewer.parts import Group, block, clickable, dial, slider, told_of_refusals
from viewer.state import FRAMES, GROUP_SIZES, KV_BOOSTS, POLICIES, ExampleClip, RunReport

RESOLUTIONS = (0, 128, 224, 336, 392, 448, 518, 640)  # 0: the model's own
FRAME_RATES = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0)  # 0: every frame
DEFAULT_MAX_FRAMES = 300
DEFAULT_QUERY_FACTOR, DEFAULT_KV_FACTOR = 2, 8

# What every setting is before anybody touches it, by field; the model is the one the app was started with.
USUAL: dict[str, Any] = {
    "max_frames": DEFAULT_MAX_FRAMES, "fps": 0.0, "resolution": 0, "model": "mini", "mode": "manual",
    "query_factor": DEFAULT_QUERY_FACTOR, "kv_factor": DEFAULT_KV_FACTOR, "policy": "spark3r", "file": None,
    "group_size": ReductionSchedule.group_size, "kv_boost": ReductionSchedule.kv_boost,
}  # fmt: skip


@dataclass(frozen=True)
class Choices:
    """What the page offers, found out before it is laid out."""

    clips: Sequence[ExampleClip]
    models: Sequence[tuple[str, str]]  # (shown, name)
    model: str  # the one chosen at first


@dataclass(frozen=True)
class SamplingInputs(Group):
    """The inputs that choose frames and resolution."""

    max_frames: gr.Slider
    fps: gr.Dropdown
    model: gr.Dropdown
    resolution: gr.Dropdown


@dataclass(frozen=True)
class ReductionInputs(Group):
    """The inputs that choose the schedule."""

    mode: gr.Radio
    query_factor: gr.HTML
    kv_factor: gr.HTML
    group_size: gr.Slider
    kv_boost: gr.Slider
    policy: gr.Dropdown
    file: gr.File


@dataclass(frozen=True)
class Components:
    """Every component a handler reads or writes."""

    examples: gr.HTML
    files: gr.File
    clip: gr.HTML
    sampling: SamplingInputs
    model_line: gr.Accordion
    model_note: gr.HTML
    all_models: gr.Accordion
    model_table: gr.HTML
    frames_line: gr.Accordion
    frames_plan: gr.HTML
    panes: Panes
    reduction: ReductionInputs
    run: gr.Button
    stop: gr.Button
    progress: gr.HTML
    readout: gr.HTML
    curve: gr.HTML
    runs: gr.HTML
    downloads: gr.HTML
    quality: gr.HTML
    footage: gr.HTML
    tab: gr.Textbox
    address: gr.HTML

    @property
    def settings(self) -> dict[str, Any]:
        """{field name: component} of everything a run depends on beside the clip."""
        return self.sampling.members() | self.reduction.members()


def build(choices: Choices) -> Components:
    """Lay out the page inside the open `gr.Blocks`."""
    with gr.Row(elem_classes="page"):
        with gr.Column(elem_classes="rail", min_width=0):
            parts = _rail(choices)
        with gr.Column(elem_classes="centre", min_width=0):
            with gr.Column(elem_classes="first-screen", min_width=0):
                parts["footage"] = clickable(elem_id="footage")
                parts["panes"] = build_panes()
                parts |= _dial_bar() | _bottom()
            parts["quality"] = block(readout.quality(None, None), elem_id="quality")
    tab, address = gr.Textbox(visible="hidden", elem_id="tab"), block(elem_id="address-block")
    return Components(**parts, tab=tab, address=address)


def _rail(choices: Choices) -> dict[str, Any]:
    block(charts.static_page("header.html"))
    examples = clickable(charts.examples(choices.clips, ""), elem_id="examples")
    # Every type: browsers know none for .mkv or .mts, and of what is no clip the page says so, gradio "Error".
    files = gr.File(
        label="Your video, photos or a zip of photos", show_label=False, file_count="multiple", height=58,
        elem_classes="drop", elem_id="upload",
    )  # fmt: skip
    clip = told_of_refusals(elem_id="clip")
    with gr.Accordion("Model", open=False, elem_classes="line", elem_id="model-line") as model_line:
        model = gr.Dropdown(list(choices.models), value=choices.model, label="Model", elem_id="model")
        model_note = block(elem_id="model-note")
        with gr.Accordion("All models side by side", open=False, elem_classes="all-models") as all_models:
            model_table = block(elem_id="model-table")
    with gr.Accordion("Frames", open=False, elem_classes="line", elem_id="frames-line") as frames_line:
        max_frames = slider(*FRAMES, DEFAULT_MAX_FRAMES, step=1, label="Max. frames", elem_classes="slim")
        fps = gr.Dropdown([(_rate_name(rate), rate) for rate in FRAME_RATES], value=0.0, label="Sample")
        resolution = gr.Dropdown([(_size_name(size), size) for size in RESOLUTIONS], value=0, label="Resolution")
    frames_plan = block(elem_id="frames-plan")
    return {
        "examples": examples, "files": files, "clip": clip,
        "sampling": SamplingInputs(max_frames, fps, model, resolution),
        "model_line": model_line, "model_note": model_note,
        "all_models": all_models, "model_table": model_table,
        "frames_line": frames_line, "frames_plan": frames_plan,
    }  # fmt: skip


def _dial_bar() -> dict[str, Any]:
    with gr.Row(elem_classes="dial-bar", elem_id="dial-bar"):
        with gr.Column(elem_classes="dial-mode", min_width=0):
            mode = gr.Radio(
                [("Auto", "auto"), ("By hand", "manual"), ("From file", "file")], value="manual", label="Reduction",
                show_label=False, container=False, elem_classes="segmented",
            )  # fmt: skip
            policy, group_size, kv_boost = _finer()
        query_factor = dial("query_factor", "Query factor", DEFAULT_QUERY_FACTOR, QUERY_STOPS)
        kv_factor = dial("kv_factor", "Key/value factor", DEFAULT_KV_FACTOR, KV_STOPS)
        file = gr.File(
            label="Schedule, as probe writes it", show_label=False, file_types=[".json"], height=58, visible=False,
            elem_classes="drop schedule",
        )  # fmt: skip
        with gr.Column(elem_classes="actions", min_width=0), gr.Row(elem_classes="buttons"):
            run = gr.Button("Run", variant="primary", elem_id="run", min_width=0)
            stop = gr.Button("Stop", interactive=False, elem_id="stop", min_width=0)
        progress = block(elem_id="progress")
    reduction = ReductionInputs(mode, query_factor, kv_factor, group_size, kv_boost, policy, file)
    return {"reduction": reduction, "run": run, "stop": stop, "progress": progress}


def _finer() -> tuple[gr.Dropdown, gr.Slider, gr.Slider]:
    """Policy, group size and boost, folded."""
    start = ReductionSchedule()
    with gr.Accordion("Policy and finer settings", open=False, elem_classes="finer"):
        policy = gr.Dropdown(list(POLICIES), value=start.policy, label="Policy", elem_id="policy")
        group_size = slider(
            *GROUP_SIZES, start.group_size, step=1, label="Group size, frames", elem_classes="slim"
        )  # fmt: skip
        kv_boost = slider(*KV_BOOSTS, start.kv_boost, step=1, label="Boost in other layers", elem_classes="slim")
    return policy, group_size, kv_boost


def _bottom() -> dict[str, Any]:
    with gr.Row(elem_classes="bottom"):
        numbers = block(readout.readout(None, None, RunReport()), elem_id="readout")
        curve = clickable(elem_id="curve")
        with gr.Column(elem_classes="card take", min_width=0):
            runs = clickable(elem_id="runs")
            downloads = block(charts.downloads((), ""), elem_id="downloads")
    return {"readout": numbers, "curve": curve, "runs": runs, "downloads": downloads}


def _rate_name(rate: float) -> str:
    return f"{rate:g} per second" if rate else "Every frame"


def _size_name(size: int) -> str:
    return f"{size} px" if size else "Model's own"
