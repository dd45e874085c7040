"""What must be the same on every rank: the code, which is compared, and the weights, which rank 0 sends."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from spark3r.models.checkpoints import pick_device, skeleton
from spark3r.models.config import config_from_json
from spark3r.models.network import Network


def source_digest() -> str:
    """Of the code of this package: ranks that run another would part ways."""
    digest = blake2b(digest_size=8)
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def weights_digest(network: Network) -> str:
    """Words that differ where any weight does."""
    digest = blake2b(digest_size=8)
    for tensor in network.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return f"weights {digest.hexdigest()}"


def broadcast(network: Network, from_us: bool) -> None:
    """Weights of rank 0 to the others; from_us: whether this is rank 0."""
    for tensor in network.state_dict().values():
        plain = tensor.detach().contiguous()
        dist.broadcast(plain.view(-1).view(torch.uint8), src=0)
        if not from_us:
            tensor.copy_(plain)


def arriving_network(job: dict[str, Any]) -> Network:
    """The network that a job names, with the weights that rank 0 sends."""
    device = pick_device(None)
    network = skeleton(config_from_json(job["config"])).set_dtype(getattr(torch, job["dtype"])).to_empty(device=device)
    with torch.no_grad():
        broadcast(network, from_us=False)
    return network.eval().requires_grad_(False)
