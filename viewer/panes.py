"""The two 3-D panes as they stand on the page: headings, the tools laid over them, the frame strip beneath."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from viewer import charts
from viewer.parts import Group, block, slider
from viewer.state import (
    HIDDEN_PERCENT,
    POINT_SIZES,
    SIDES,
    THOUSAND_POINTS,
    ViewSettings,
)  # fmt: skip


@dataclass(frozen=True)
class ViewInputs(Group):
    """The inputs that decide how clouds are drawn."""

    min_confidence_percentile: gr.Slider
    thousand_points: gr.Slider
    point_size: gr.Slider
    colour: gr.Radio
    moved_percent: gr.Number
    cameras: gr.Checkbox


@dataclass(frozen=True)
class Pane:
    """One 3-D view with its heading."""

    heading: gr.HTML
    frame: gr.HTML


@dataclass(frozen=True)
class Panes:
    """Both panes, left and right, and what controls their view."""

    left: Pane
    right: Pane
    linked: gr.Checkbox
    view: ViewInputs
    strip: gr.HTML  # the frames of the clip with their depths


def build_panes() -> Panes:
    """Lay out the panes, the tools over them and the frame strip beneath, inside the open column."""
    panes = {}
    with gr.Row(elem_classes="panes", elem_id="panes"):
        for side in SIDES:
            with gr.Column(elem_classes="pane", elem_id=f"side-{side}", min_width=0):
                heading = block(elem_classes="pane-top")
                panes[side] = Pane(heading, block(elem_classes="pane-view", elem_id=f"pane-{side}"))
        with gr.Column(elem_classes="pane-tools", elem_id="pane-tools", min_width=0):
            tools = _tools()
    strip = block(elem_id="frame-strip")
    return Panes(**panes, **tools, strip=strip)


def _tools() -> dict[str, Any]:
    """Two groups, one over each pane: of colours, and of views."""
    with gr.Row(elem_classes="tool-group"):
        colour, moved_percent = _colours()
    with gr.Row(elem_classes="tool-group"):
        block(charts.static_page("view_buttons.html"))
        view, linked = _view_settings(colour, moved_percent)
    return {"view": view, "linked": linked}


def _colours() -> tuple[gr.Radio, gr.Number]:
    start = ViewSettings()
    colour = gr.Radio(
        [
            ("RGB", "image"), ("Depth", "depth"), ("Confidence", "confidence"), ("Difference", "difference"),
            ("Error", "error"),
        ],
        value=start.colour, label="Colour by", show_label=False, container=False, elem_classes="segmented",
        elem_id="colour-by",
    )  # fmt: skip
    moved_percent = gr.Number(
        start.moved_percent, label="Scale, %", step=0.5, elem_id="moved-percent", min_width=0,
    )  # fmt: skip
    return colour, moved_percent


def _view_settings(colour: gr.Radio, moved_percent: gr.Number) -> tuple[ViewInputs, gr.Checkbox]:
    """All that decides how clouds are drawn, and whether the views are linked; what is rarely wanted is folded."""
    start = ViewSettings()
    with gr.Accordion("View", open=False, elem_classes="view-settings"):
        confidence = slider(
            *HIDDEN_PERCENT, start.min_confidence_percentile, step=1, label="Hide unsure, %", elem_classes="slim"
        )
        points = slider(
            *THOUSAND_POINTS, start.thousand_points, step=10, label="Points, thousands", elem_classes="slim"
        )
        point_size = slider(*POINT_SIZES, start.point_size, step=10, label="Point size, %", elem_classes="slim")
        cameras = gr.Checkbox(start.cameras, label="Cameras", elem_classes="switch")
        linked = gr.Checkbox(True, label="Link views", elem_id="linked", elem_classes="switch")
    return ViewInputs(confidence, points, point_size, colour, moved_percent, cameras), linked
