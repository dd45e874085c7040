"""Muon: momentum whose matrix updates are made orthogonal, so that every direction learns at the same pace."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # quintic iteration that pushes all singular values towards 1


def orthogonal(matrices: Tensor, iterations: int = 5) -> Tensor:
    """The nearest orthogonal matrices, roughly, of a stack [K, rows, columns] (singular values within 0.7–1.2)."""
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.transpose(-1, -2)
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True) + 1e-7).bfloat16()
    a, b, c = _COEFFICIENTS
    for _ in range(iterations):
        gram = x @ x.transpose(-1, -2)
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.transpose(-1, -2) if tall else x).float()


class Muon(Optimizer):
    """For matrices and kernels of inner layers; `parts` of a group: matrices stacked in the rows of one (qkv: 3).

    Updates have the size that AdamW's would have (0.2 root mean square), so both share one learning rate.
    """

    def __init__(self, groups: list[dict], rate: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(groups, {"lr": rate, "momentum": momentum, "weight_decay": weight_decay, "parts": 1})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is used
        """One update; all matrices of a group are of one shape and go through in one batch."""
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            looks = []
            for p in weights:
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                momentum = state["momentum"].mul_(group["momentum"]).add_(p.grad)
                looks.append(p.grad.add(momentum, alpha=group["momentum"]))
            stacked = torch.stack(looks).flatten(2)  # a kernel [out, in, 3, 3] is a matrix [out, in · 9]
            parts = group["parts"]
            matrices = stacked.unflatten(1, (parts, -1)).flatten(0, 1)
            update = orthogonal(matrices) * (0.2 * max(matrices.shape[-2:]) ** 0.5)
            update = update.unflatten(0, (-1, parts)).flatten(1, 2)
            for p, change in zip(weights, update, strict=True):
                p.mul_(1.0 - group["lr"] * group["weight_decay"]).add_(change.view_as(p), alpha=-group["lr"])
