"""The probe raises one layer at a time and calls sensitive what hurts by more than the limit."""

import math

import pytest

from spark3r import InputError, ReductionSchedule
from spark3r.reduction.probe import probe, raised


def test_each_run_raises_exactly_one_layer():
    assert [raised(None, 4).at(layer).kv_factor for layer in range(4)] == [32] * 4
    for layer in range(4):
        factors = [raised(layer, 4).at(each) for each in range(4)]
        assert [factor.kv_factor for factor in factors] == [256 if each == layer else 32 for each in range(4)]
        assert {factor.query_factor for factor in factors} == {1}


def error_of(harm: dict[int, float], base: float = 0.2):
    """A model whose error grows by a known share when a layer is raised to 256."""

    def run(schedule: ReductionSchedule) -> float:
        growth = [harm.get(layer, 0.0) for layer in range(5) if schedule.at(layer).kv_factor == 256]
        return base * (1 + sum(growth))

    return run


def test_layers_that_hurt_are_found_whatever_the_unit():
    harm = {0: 0.04, 1: 0.06, 2: -0.1, 4: 3.0}
    for base in (1e-6, 0.2, 1e3):
        found = probe(error_of(harm, base), 5)
        assert found.sensitive_layers == (1, 4)
        assert [layer.growth for layer in found.layers] == pytest.approx([1.04, 1.06, 0.9, 1.0, 4.0])
        assert found.base_error == pytest.approx(base)


def test_the_limit_and_progress_are_the_callers():
    done: list[tuple[int, int]] = []
    found = probe(error_of({3: 0.5, 4: 3.0}), 5, growth_limit=2.0, progress=lambda *now: done.append(now))
    assert found.sensitive_layers == (4,)
    assert done == [(number, 6) for number in range(1, 6)]


def test_the_schedule_spares_the_sensitive_layers_and_reads_back():
    schedule = probe(error_of({1: 1.0}), 5).schedule(1000)
    assert schedule.at(1) == (4, 25)
    assert schedule.at(0) == (4, 75)
    assert ReductionSchedule.from_json(schedule.to_json()) == schedule


def test_a_layer_that_breaks_everything_is_sensitive():
    assert probe(error_of({2: math.nan}), 5).sensitive_layers == (2,)


@pytest.mark.parametrize("base", [0.0, math.nan, math.inf])
def test_an_error_that_cannot_grow_is_refused(base: float):
    with pytest.raises(InputError, match="no growth can be measured"):
        probe(error_of({}, base), 3)
