"""What the layout is made of: groups of components that make a settings object, and a few components of our own."""

from abc import ABCMeta
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from viewer import charts
from viewer.dials import DialFace, idle

DIAL_SCRIPT = (charts.STATIC / "dial.js").read_text(encoding="utf-8")
REFUSAL_SCRIPT = (charts.STATIC / "refusal.js").read_text(encoding="utf-8")
CLICK_SCRIPT = (charts.STATIC / "click.js").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Group:
    """Components that are read together; field names are those of the settings they make."""

    def members(self) -> dict[str, Any]:
        """{field name: component}."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def block(value: str = "", **options: Any) -> gr.HTML:
    """HTML that looks as our style sheet says, not as prose."""
    return gr.HTML(value, apply_default_css=False, js_on_load=None, **options)


def clickable(value: str = "", **options: Any) -> gr.HTML:
    """HTML whose elements with a `data-action` are buttons: a click raises `click` with that action and its value."""
    return gr.HTML(value, apply_default_css=False, js_on_load=CLICK_SCRIPT, **options)


def told_of_refusals(**options: Any) -> gr.HTML:
    """HTML that hears of uploads the server would not take: a `click` whose value is the sentence (upload.js)."""
    return gr.HTML(apply_default_css=False, js_on_load=REFUSAL_SCRIPT, **options)


def dial(name: str, title: str, value: int, stops: Sequence[int]) -> gr.HTML:
    """A slider over logarithmic stops; its value is the factor, its `release` says that it was left there."""
    return gr.HTML(
        value, html_template="${view}", view=dial_view(idle(name, title, value, stops)), js_on_load=DIAL_SCRIPT,
        apply_default_css=False, elem_classes="dial", elem_id=f"{name.replace('_', '-')}-dial",
    )  # fmt: skip


def dial_view(face: DialFace) -> str:
    """A dial as HTML, for its `view`."""
    return charts.render("dial.html", **vars(face), index=face.index, said=face.said)


def slider(minimum: float, maximum: float, value: float, *, label: str, **options: Any) -> gr.Slider:
    """A slider that passes on what was typed into its number box: the settings say what is out of range.

    Gradio would raise before any handler, log a traceback, and lose the event that follows when the box snaps back.
    """
    return _Slider(minimum, maximum, value, label=label, **options)


def _as_typed(self: gr.Slider, payload: float | None) -> float | None:
    return payload


# A class, for gradio makes each visitor a slider of the same class anew; made past gradio's metaclass, which would
# write a stub file beside this one.
_Slider: type[gr.Slider] = ABCMeta.__new__(type(gr.Slider), "Slider", (gr.Slider,), {"preprocess": _as_typed})
