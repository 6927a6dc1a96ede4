"""A bad draft, made from a good one: what it costs stays, how often it is right goes."""

from __future__ import annotations

import copy

import torch

from ..models import TransformersModel

NOISE = 0.35  # of a matrix' own spread


@torch.no_grad()
def noisy_draft(draft: TransformersModel, noise: float = NOISE, seed: int = 0) -> TransformersModel:
    """A copy whose matrices are off by `noise` times their spread, with the same engine."""
    module = copy.deepcopy(draft.module)
    generator = torch.Generator(draft.device).manual_seed(seed)
    for weight in module.parameters():
        if weight.ndim > 1:
            drawn = torch.randn(weight.shape, generator=generator, device=weight.device, dtype=weight.dtype)
            weight += noise * weight.std() * drawn
    return TransformersModel(module, draft.tokenizer, draft.engine.name)
