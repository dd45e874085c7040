"""What stands on the page, and nothing else: components in, one `Components` dataclass out."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from spark3r.reduction.schedule import ReductionSchedule
from viewer import charts
from viewer.state import (
    FRAMES,
    GROUP_SIZES,
    HIDDEN_PERCENT,
    KV_BOOSTS,
    KV_FACTORS,
    POINT_SIZES,
    QUERY_FACTORS,
    THOUSAND_POINTS,
    RunReport,
    ViewSettings,
)  # fmt: skip

FILE_TYPES = ["video", "image", ".zip", ".heic", ".heif"]
RESOLUTIONS = (0, 128, 224, 336, 392, 448, 518, 640)  # 0: the model's own
FRAME_RATES = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0)  # 0: every frame
DEFAULT_MAX_FRAMES = 300


@dataclass(frozen=True)
class Choices:
    """What the page offers, found out before it is laid out."""

    clips: Sequence[tuple[str, str]]  # (thumbnail path, caption)
    models: Sequence[tuple[str, str]]  # (shown, name)
    model: str  # the one chosen at first


@dataclass(frozen=True)
class Group:
    """Components that are read together; field names are those of the settings they make."""

    def members(self) -> dict[str, Any]:
        """{field name: component}."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True)
class SamplingInputs(Group):
    max_frames: gr.Slider
    fps: gr.Dropdown
    model: gr.Dropdown
    resolution: gr.Dropdown


@dataclass(frozen=True)
class ReductionInputs(Group):
    mode: gr.Radio
    query_factor: gr.Slider
    kv_factor: gr.Slider
    group_size: gr.Slider
    kv_boost: gr.Slider
    policy: gr.Radio
    file: gr.File


@dataclass(frozen=True)
class ViewInputs(Group):
    min_confidence_percentile: gr.Slider
    thousand_points: gr.Slider
    point_size: gr.Slider
    colour: gr.Radio
    cameras: gr.Checkbox


@dataclass(frozen=True)
class Pane:
    heading: gr.HTML
    frame: gr.HTML


@dataclass(frozen=True)
class Components:
    """Every component a handler reads or writes."""

    files: gr.File
    gallery: gr.Gallery
    clip: gr.HTML
    sampling: SamplingInputs
    model_note: gr.HTML
    model_table: gr.HTML
    frames_plan: gr.HTML
    reduction: ReductionInputs
    by_hand: gr.Group
    tokens_plan: gr.HTML
    rerun: gr.Checkbox
    run: gr.Button
    stop: gr.Button
    progress: gr.HTML
    dense: Pane
    reduced: Pane
    linked: gr.Checkbox
    reset: gr.Button
    view: ViewInputs
    readout: gr.HTML
    differences: gr.HTML
    downloads: gr.HTML


def build(choices: Choices) -> Components:
    """Lay out the page inside the open `gr.Blocks`."""
    _html(charts.static_page("header.html"))
    with gr.Row(elem_classes="page"):
        with gr.Column(scale=0, min_width=350, elem_classes="controls"):
            parts = _inputs(choices) | _actions()
        with gr.Column(scale=1, min_width=600, elem_classes="results"):
            parts |= _panes() | _view() | _numbers()
    return Components(**parts)


def _inputs(choices: Choices) -> dict[str, Any]:
    _html("<h2><i>1</i>Clip</h2>", elem_classes="step")
    gallery = gr.Gallery(
        list(choices.clips), label="Bundled clips", show_label=False, columns=3, height="auto", allow_preview=False,
        interactive=False, object_fit="cover", buttons=[], elem_classes="gallery", container=False,
    )  # fmt: skip
    files = gr.File(
        label="Your video, photos or a zip of photos", show_label=False, file_count="multiple", file_types=FILE_TYPES,
        height=58, elem_classes="drop",
    )  # fmt: skip
    clip = _html()
    _html("<h2><i>2</i>Frames and model</h2>", elem_classes="step")
    with gr.Row(elem_classes="pair single"):
        max_frames = _slider(*FRAMES, DEFAULT_MAX_FRAMES, step=1, label="Max. frames", elem_classes="slim")
    with gr.Row(elem_classes="pair"):
        fps = gr.Dropdown([(_rate_name(rate), rate) for rate in FRAME_RATES], value=0.0, label="Sample")
        resolution = gr.Dropdown([(_size_name(size), size) for size in RESOLUTIONS], value=0, label="Resolution")
    with gr.Row(elem_classes="pair single"):
        model = gr.Dropdown(list(choices.models), value=choices.model, label="Model")
    model_note, frames_plan = _html(), _html(elem_id="frames-plan")
    with gr.Accordion("All models side by side", open=False, elem_classes="all-models"):
        model_table = _html(elem_id="model-table")
    sampling = SamplingInputs(max_frames, fps, model, resolution)
    clip_parts = {"files": files, "gallery": gallery, "clip": clip, "sampling": sampling}
    told = {"model_note": model_note, "model_table": model_table, "frames_plan": frames_plan}
    return clip_parts | told | _reduction()


def _reduction() -> dict[str, Any]:
    start = ReductionSchedule(query_factor=2, kv_factor=8)
    _html("<h2><i>3</i>Reduction</h2>", elem_classes="step")
    mode = gr.Radio(
        [("Automatic", "auto"), ("By hand", "manual"), ("From a file", "file")], value="manual", show_label=False,
        container=False, elem_classes="segmented",
    )  # fmt: skip
    with gr.Group(elem_classes="by-hand") as by_hand:
        query_factor = _slider(
            *QUERY_FACTORS, start.query_factor, step=1, label="Query factor", elem_classes="slim",
            info="so many frames share one set of queries",
        )  # fmt: skip
        kv_factor = _slider(
            *KV_FACTORS, start.kv_factor, step=1, label="Key/value factor", elem_classes="slim",
            info="one frame in so many keeps keys and values",
        )  # fmt: skip
        with gr.Accordion("Finer settings", open=False):
            group_size = _slider(
                *GROUP_SIZES, start.group_size, step=1, label="Group size, frames", elem_classes="slim"
            )  # fmt: skip
            kv_boost = _slider(*KV_BOOSTS, start.kv_boost, step=1, label="Boost in other layers", elem_classes="slim")
            policy = gr.Radio(
                [("Spark3R: merge queries, prune keys/values", "spark3r"), ("Uniform: merge all alike", "uniform")],
                value=start.policy, label="Policy",
            )  # fmt: skip
    file = gr.File(
        label="Schedule, as probe writes it", show_label=False, file_types=[".json"], height=58, visible=False,
        elem_classes="drop schedule",
    )  # fmt: skip
    tokens_plan = _html(elem_id="tokens-plan")
    rerun = gr.Checkbox(
        True, label="Run again when a slider here is released", container=False, elem_classes="quiet"
    )  # fmt: skip
    reduction = ReductionInputs(mode, query_factor, kv_factor, group_size, kv_boost, policy, file)
    return {"reduction": reduction, "by_hand": by_hand, "tokens_plan": tokens_plan, "rerun": rerun}


def _actions() -> dict[str, Any]:
    with gr.Column(elem_classes="actions"):
        with gr.Row(elem_classes="buttons"):
            run = gr.Button("Reconstruct", variant="primary", scale=3, elem_id="run")
            stop = gr.Button("Stop", interactive=False, scale=1, min_width=80, elem_id="stop")
        progress = _html(elem_id="progress")
    return {"run": run, "stop": stop, "progress": progress}


def _panes() -> dict[str, Any]:
    idle = RunReport()
    panes = {}
    with gr.Row(elem_classes="panes"):
        for side in ("dense", "reduced"):
            with gr.Column(elem_classes="pane", min_width=320):
                heading = _html(charts.pane_heading(side, idle), elem_classes="pane-top")
                _html(charts.static_page("colour_scale.html"), elem_classes="pane-scale")
                panes[side] = Pane(heading, _html(elem_classes="pane-view", elem_id=f"pane-{side}"))
    return panes


def _view() -> dict[str, Any]:
    start = ViewSettings()
    with gr.Row(elem_classes="toolbar"):
        confidence = _slider(
            *HIDDEN_PERCENT, start.min_confidence_percentile, step=1, label="Hide unsure, %", elem_classes="slim"
        )
        points = _slider(
            *THOUSAND_POINTS, start.thousand_points, step=10, label="Points, thousands", elem_classes="slim"
        )
        point_size = _slider(*POINT_SIZES, start.point_size, step=1, label="Point size", elem_classes="slim")
        colour = gr.Radio(
            [("RGB", "image"), ("Depth", "depth"), ("Confidence", "confidence")], value=start.colour, label="Colour by",
            elem_classes="segmented",
        )  # fmt: skip
        cameras = gr.Checkbox(start.cameras, label="Cameras", elem_classes="switch")
        linked = gr.Checkbox(True, label="Link views", elem_id="linked", elem_classes="switch")
        reset = gr.Button("Reset view", size="sm", elem_classes="reset")
    view = ViewInputs(confidence, points, point_size, colour, cameras)
    return {"view": view, "linked": linked, "reset": reset}


def _numbers() -> dict[str, Any]:
    readout = _html(charts.readout(RunReport()), elem_id="readout")
    with gr.Row(elem_classes="lower"):
        with gr.Column(scale=2, min_width=380):
            differences = _html(charts.differences(None), elem_id="differences")
        with gr.Column(scale=1, min_width=260):
            downloads = _html(charts.downloads(()), elem_id="downloads")
    return {"readout": readout, "differences": differences, "downloads": downloads}


def _slider(minimum: float, maximum: float, value: float, *, label: str, **options: Any) -> gr.Slider:
    """A slider that passes on what was typed into its number box: the settings say what is out of range.

    Gradio would raise before any handler, log a traceback, and lose the event that follows when the box snaps back.
    """
    slider = gr.Slider(minimum, maximum, value, label=label, **options)
    # A subclass would make gradio write a stub file beside this one.
    slider.preprocess = _as_typed  # pyright: ignore[reportAttributeAccessIssue]
    return slider


def _as_typed(payload: float | None) -> float | None:
    return payload


def _html(value: str = "", **options: Any) -> gr.HTML:
    """HTML that looks as our style sheet says, not as prose."""
    return gr.HTML(value, apply_default_css=False, **options)


def _rate_name(rate: float) -> str:
    return f"{rate:g} per second" if rate else "Every frame"


def _size_name(size: int) -> str:
    return f"{size} px" if size else "Model's own"
