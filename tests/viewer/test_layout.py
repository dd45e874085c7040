"""The controls as a visitor types into them."""

import gradio as gr
import pytest

from viewer.layout import Choices, build
from viewer.state import KV_FACTORS


@pytest.fixture(scope="module")
def slider() -> gr.Slider:
    with gr.Blocks():
        return build(Choices((), [("mini", "mini")], "mini")).reduction.kv_factor


@pytest.mark.parametrize("typed", [0, -5, 5000])
def test_a_number_out_of_range_is_one_sentence_without_a_traceback(slider: gr.Slider, typed: float) -> None:
    with pytest.raises(gr.Error) as told:
        slider.preprocess(typed)
    assert told.value.message == f"Key/value factor: {typed} is out of range, enter 1 to 256."
    assert not told.value.print_exception


def test_numbers_in_range_and_an_emptied_box_pass(slider: gr.Slider) -> None:
    assert [slider.preprocess(typed) for typed in KV_FACTORS] == list(KV_FACTORS)
    assert slider.preprocess(None) is None  # pyright: ignore[reportArgumentType]  the browser sends it
