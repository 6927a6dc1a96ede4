"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/), batched by shape.

`torch.optim.Muon` rounds to bfloat16 and visits one matrix at a time: 1.7 s a step for 11 M
parameters on two CPU cores without bfloat16. A deep, narrow model has many matrices of few
shapes, so one batched product serves them all: in float32 on a CPU, in bfloat16 on a GPU, where
float32 products are more than ten times slower.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor


def orthogonalise(matrices: Tensor, steps: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """Push every singular value towards 1 by the quintic Newton-Schulz iteration. [n, rows, cols], in `dtype`"""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = (x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)).to(dtype)
    for _ in range(steps):
        gram = x @ x.mT  # [n, r, r]
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: for the matrices inside the layers, not for embeddings or gains.

    Args:
        params: matrices [rows, cols].
        lr: step size; an update has about unit spectral norm times sqrt(max(1, rows / cols)).
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for param in group["params"]:
                if param.grad is not None:
                    by_shape[param.shape].append(param)
            for (rows, cols), params in by_shape.items():
                updates = []
                for param in params:
                    velocity = self.state[param].setdefault("velocity", torch.zeros_like(param))
                    velocity.lerp_(param.grad, 1 - group["momentum"])
                    updates.append(param.grad.lerp(velocity, group["momentum"]))  # Nesterov
                scale = max(1.0, rows / cols) ** 0.5
                stacked = torch.stack(updates)  # [n, rows, cols]
                even = orthogonalise(stacked, dtype=torch.bfloat16 if stacked.is_cuda else torch.float32)
                for param, update in zip(params, even, strict=True):
                    param.mul_(1 - group["lr"] * group["weight_decay"])
                    param.add_(update, alpha=-group["lr"] * scale)
