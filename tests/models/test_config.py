"""Configs as text: what is written with weights must be readable for as long as the weights are."""

from dataclasses import replace
from pathlib import Path

import pytest

from spark3r.models.config import ModelConfig, StemConfig, config_from_json, config_to_json
from spark3r.models.families.da3 import DA3_GIANT, DA3_SMALL
from spark3r.models.families.mini import MINI_CONFIG
from spark3r.models.families.omega import vggt_omega
from spark3r.models.families.pi3 import pi3
from spark3r.models.families.pi3x import pi3x
from spark3r.models.families.vggt import vggt

UNTYPED = Path(__file__).parents[1] / "golden" / "mini_config_untyped.json"


@pytest.mark.parametrize(
    "config", [MINI_CONFIG, vggt(), pi3(), pi3x(), vggt_omega(), DA3_SMALL, DA3_GIANT], ids=lambda config: config.name
)
def test_a_config_survives_being_text(config: ModelConfig):
    assert config_from_json(config_to_json(config)) == config


def test_the_first_layout_of_minis_config_is_still_read():
    assert isinstance(MINI_CONFIG.encoder, StemConfig)
    unchanged = replace(MINI_CONFIG.encoder, brightness=None)  # weights of then saw frames as they are
    assert config_from_json(UNTYPED.read_text()) == replace(MINI_CONFIG, encoder=unchanged)
