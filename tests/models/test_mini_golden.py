"""mini's weights are committed, so its tensors and its numbers must not drift.

Recorded with `python -m tests.models.test_mini_golden`, torch 2.13.0 on a CPU, float32.
"""

import json
import zlib
from pathlib import Path

import torch

from spark3r.models.families.mini import MINI_CONFIG
from spark3r.models.network import Network, Prediction

GOLDEN = Path(__file__).parents[1] / "golden" / "mini.json"
PLACES = 16  # recorded numbers per output


def network_by_name() -> Network:
    """mini with weights that depend on each tensor's name and shape only."""
    network = Network(MINI_CONFIG)
    state = {}
    for name, tensor in network.state_dict().items():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        noise = torch.randn(tensor.shape, generator=generator)
        fan_in = tensor[0].numel() if tensor.ndim > 1 else tensor.numel()
        is_norm = "norm" in name and name.endswith("weight")
        state[name] = 1 + 0.1 * noise if is_norm else noise * (0.7 / fan_in**0.5)
    network.load_state_dict(state)
    return network.eval()


def record(network: Network) -> dict[str, list[float]]:
    images = torch.rand(1, 5, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        prediction: Prediction = network(images)
    numbers = {}
    for name, value in prediction._asdict().items():
        flat = value.double().flatten()
        places = torch.linspace(0, len(flat) - 1, PLACES).long()
        numbers[name] = [*flat[places].tolist(), flat.mean().item(), flat.std().item()]
    return numbers


def test_mini_keeps_its_tensors() -> None:
    shapes = {name: list(tensor.shape) for name, tensor in Network(MINI_CONFIG).state_dict().items()}
    assert shapes == json.loads(GOLDEN.read_text())["shapes"]


def test_mini_keeps_its_numbers() -> None:
    golden, now = json.loads(GOLDEN.read_text())["numbers"], record(network_by_name())
    assert golden.keys() == now.keys()
    for name in golden:
        torch.testing.assert_close(torch.tensor(now[name]), torch.tensor(golden[name]), rtol=2e-4, atol=2e-5, msg=name)


if __name__ == "__main__":
    mini = network_by_name()
    tensors = {name: list(tensor.shape) for name, tensor in mini.state_dict().items()}
    GOLDEN.write_text(json.dumps({"numbers": record(mini), "shapes": tensors}, indent=0) + "\n")
