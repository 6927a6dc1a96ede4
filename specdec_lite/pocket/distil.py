"""Teach the draft the target's own distribution, on text and on what the target writes itself.

What speculation needs from a draft is overlap, so the loss holds the total variation (one minus
the overlap) beside the forward Kullback-Leibler divergence, whose gradient is steadier at first.
Compare DistillSpec (Zhou et al. 2024, arXiv:2310.08461).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..decoding import autoregressive
from ..models import TransformersModel
from ..stopping import Stop
from .trainer import Loss


def own_samples(
    target: TransformersModel, stream: Tensor, tokens: int, batch: int = 64, prompt: int = 64, new: int = 192
) -> Tensor:
    """At least `tokens` tokens that the target samples at temperature 1 after prompts from `stream`. -> [tokens]"""
    rows: list[list[int]] = []
    starts = torch.randint(len(stream) - prompt, (tokens // new + batch,), generator=torch.Generator().manual_seed(1))
    with tqdm(total=tokens, unit="token", unit_scale=True, desc="target's own samples") as bar:
        for first in range(0, len(starts), batch):
            if len(rows) * new >= tokens:
                break
            prompts = [stream[s : s + prompt].tolist() for s in starts[first : first + batch].tolist()]
            made = autoregressive(target, prompts, max_new_tokens=new, stop=Stop(), seed=first, trace="off")
            rows += [asked + answered for asked, answered in zip(prompts, made.tokens, strict=True)]
            bar.update(len(prompts) * new)
    return torch.tensor([token for row in rows for token in row])


def mix(text: Tensor, samples: Tensor, share: float = 0.3, block: int = 4096) -> Tensor:
    """Text with blocks of samples spread through it, so that about `share` of all tokens are samples. -> [tokens]"""
    wanted = int(share / (1 - share) * len(text))
    repeated = samples.repeat(-(-wanted // len(samples)))[:wanted]  # samples are dear: use them more than once
    blocks = list(text.split(block)) + list(repeated.split(block))
    order = torch.randperm(len(blocks), generator=torch.Generator().manual_seed(2)).tolist()
    return torch.cat([blocks[i] for i in order])


def distillation_loss(target: nn.Module, variation: float = 1.0, divergence: float = 0.5) -> Loss:
    """Loss on the draft: weighted total variation and forward KL to `target`, a mean over positions."""

    def loss(draft: nn.Module, tokens: Tensor) -> Tensor:
        with torch.no_grad():
            log_target = target(input_ids=tokens[:, :-1], use_cache=False).logits.log_softmax(-1)
            p_target = log_target.exp()  # [rows, context, vocab]
        log_draft = draft(input_ids=tokens[:, :-1], use_cache=False).logits.log_softmax(-1)
        apart = (p_target - log_draft.exp()).abs().sum(-1).mean() / 2
        kl = (p_target * (log_target - log_draft)).sum(-1).mean()
        return variation * apart + divergence * kl

    return loss
