"""Muon for the matrices inside a transformer, AdamW for everything else, one schedule for both.

torch.optim.Muon orthogonalises in bfloat16, one matrix after the other, which takes seconds a step on a CPU; here it is
done in float32, on all matrices of a shape at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """Momentum whose update is the nearest orthogonal matrix (Jordan et al. 2024), scaled to AdamW's size of step."""

    def __init__(
        self, matrices: list[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in by_shape.items():
                updates = []
                for matrix in matrices:
                    assert matrix.grad is not None
                    average = self.state[matrix].setdefault("average", torch.zeros_like(matrix))
                    average.lerp_(matrix.grad, 1 - group["momentum"])
                    updates.append(matrix.grad.lerp(average, group["momentum"]))
                size = group["lr"] * 0.2 * math.sqrt(max(shape))
                for matrix, update in zip(matrices, orthogonalise(torch.stack(updates)), strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(size * update)


def orthogonalise(matrices: Tensor, steps: int = 4) -> Tensor:
    """(n, rows, columns) -> matrices with the same singular vectors and singular values near 1, by Newton-Schulz."""
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if wide else x.mT


class Optimiser:
    """Warm-up, a plateau, and a linear fall to nothing over the last 40 % of `steps`."""

    def __init__(self, modules: Iterable[nn.Module], steps: int, muon: float, adam: float, warmup: int = 100) -> None:
        matrices, others = [], []
        for module in modules:
            for name, parameter in module.named_parameters():
                if parameter.requires_grad:
                    inner = parameter.ndim == 2 and ".layers." in f".{name}"
                    (matrices if inner else others).append(parameter)
        self.steps, self.warmup = steps, warmup
        self.parts = []
        if matrices:
            self.parts.append((Muon(matrices, lr=muon, weight_decay=0.02), muon))
        self.parts.append((torch.optim.AdamW(others, lr=adam, betas=(0.9, 0.98), weight_decay=0.0), adam))
        self.parameters = matrices + others

    def step(self, number: int) -> float:
        """One step at its learning rate; returns the norm of the gradient before clipping."""
        factor = min(1.0, (number + 1) / self.warmup, (self.steps - number) / (0.4 * self.steps))
        norm = float(nn.utils.clip_grad_norm_(self.parameters, 1.0))
        if math.isfinite(norm):
            for optimiser, rate in self.parts:
                for group in optimiser.param_groups:
                    group["lr"] = rate * factor
                optimiser.step()
        for optimiser, _ in self.parts:
            optimiser.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> list[dict]:
        return [optimiser.state_dict() for optimiser, _ in self.parts]

    def load_state_dict(self, states: list[dict]) -> None:
        for (optimiser, _), state in zip(self.parts, states, strict=True):
            optimiser.load_state_dict(state)
