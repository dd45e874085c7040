"""The controls as a visitor types into them."""

from typing import get_type_hints

import gradio as gr
import pytest

from viewer.layout import Choices, build
from viewer.parts import Group
from viewer.state import ReductionSettings, SamplingSettings, ViewSettings


@pytest.fixture(scope="module")
def groups() -> list[tuple[Group, type]]:
    with gr.Blocks():
        page = build(Choices((), [("mini", "mini")], "mini"))
    return [(page.sampling, SamplingSettings), (page.reduction, ReductionSettings), (page.panes.view, ViewSettings)]


def test_sliders_and_settings_have_the_same_bounds_and_nothing_typed_is_refused_before_a_handler(
    groups: list[tuple[Group, type]],
) -> None:
    seen = 0
    for group, settings in groups:
        for name, component in group.members().items():
            if isinstance(component, gr.Slider):
                seen += 1
                bounds = get_type_hints(settings, include_extras=True)[name].__metadata__[0]
                assert (component.minimum, component.maximum) == bounds
                assert bounds[0] <= component.value <= bounds[1]
                anew = type(component)(bounds[0], bounds[1], component.value, render=False)  # as for a visitor
                assert anew.preprocess(10**9) == component.preprocess(10**9) == 10**9
                assert component.preprocess(None) is None  # pyright: ignore[reportArgumentType]  the browser sends it
    assert seen == 6
