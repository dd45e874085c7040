"""The public families at the sizes of their oracles."""

import json
from pathlib import Path

from safetensors import safe_open

from spark3r.models.checkpoints import fill, skeleton
from spark3r.models.network import Network
from spark3r.parity.sizes import BUILDERS


def tiny_network(path: Path, family: str) -> tuple[Network, tuple[int, int]]:
    """The network of an oracle file with its weights, and (height, width) of the oracle's images."""
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["config"])
        state = {name.removeprefix("state."): file.get_tensor(name) for name in file.keys() if "state." in name}  # noqa: SIM118
    config, converter = BUILDERS[family](facts)
    network = skeleton(config)
    fill(network, converter.translate(state, config), path.name)
    return network.eval(), (facts["height"], facts["width"])
