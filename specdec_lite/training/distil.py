"""Teach the draft the target's own distribution, on text and on what the target writes itself.

What speculation needs from a draft is overlap, so the loss holds the total variation (one minus
the overlap) beside the forward Kullback-Leibler divergence, whose gradient is steadier at first.
Compare DistillSpec (Zhou et al. 2024, arXiv:2310.08461).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import LlamaForCausalLM

from ..decoding import autoregressive
from ..models import TransformersModel
from ..sampling.distributions import Sampling
from ..stopping import Stop
from .trainer import Loss


def own_samples(
    target: TransformersModel,
    stream: Tensor,
    tokens: int,
    temperature: float = 1.0,
    batch: int = 64,
    prompt: int = 64,
    new: int = 192,
    minutes: float = math.inf,
) -> Tensor:
    """At least `tokens` tokens that the target writes after prompts from `stream`; one batch or more in `minutes`.

    -> [tokens]
    """
    deadline = time.monotonic() + 60 * minutes
    rows: list[list[int]] = []
    starts = torch.randint(len(stream) - prompt, (tokens // new + batch,), generator=torch.Generator().manual_seed(1))
    with tqdm(total=tokens, unit="token", unit_scale=True, desc=f"own samples, temperature {temperature:g}") as bar:
        for first in range(0, len(starts), batch):
            if len(rows) * new >= tokens or (rows and time.monotonic() > deadline):
                break
            prompts = [stream[s : s + prompt].tolist() for s in starts[first : first + batch].tolist()]
            common = {"max_new_tokens": new, "sampling": Sampling(temperature), "stop": Stop(), "trace": "off"}
            made = autoregressive(target, prompts, seed=first, **common)
            rows += [asked + answered for asked, answered in zip(prompts, made.tokens, strict=True)]
            bar.update(len(prompts) * new)
    return torch.tensor([token for row in rows for token in row])


def mix(text: Tensor, samples: Tensor, share: float = 0.2, block: int = 4096) -> Tensor:
    """Text with blocks of samples spread through it, so that about `share` of all tokens are samples. -> [tokens]"""
    wanted = int(share / (1 - share) * len(text))
    repeated = samples.repeat(-(-wanted // len(samples)))[:wanted]  # samples are dear: use them more than once
    blocks = list(text.split(block)) + list(repeated.split(block))
    order = torch.randperm(len(blocks), generator=torch.Generator().manual_seed(2)).tolist()
    return torch.cat([blocks[i] for i in order])


@dataclass(frozen=True)
class Lessons:
    """Windows of text and the target's last hidden states there, from which its logits are one product away.

    Computed once, so that the draft can go over them again at its own, much higher speed.
    """

    tokens: Tensor  # [windows, context]
    hidden: Tensor  # [windows, context, target's width], two bytes each

    @classmethod
    @torch.no_grad()
    def record(
        cls,
        target: LlamaForCausalLM,
        stream: Tensor,
        context: int,
        count: int,
        rows: int = 8,
        minutes: float = math.inf,
        most_bytes: float = math.inf,
    ) -> Lessons:
        """The first `count` windows of `stream` [tokens] under the target, or as many as time and memory allow."""
        deadline, device = time.monotonic() + 60 * minutes, target.device
        # What a bfloat16 model says may lie beyond float16's range, so it keeps its own.
        dtype = torch.float16 if target.dtype == torch.float32 else target.dtype
        width = target.config.hidden_size
        count = min(count, len(stream) // context, int(min(most_bytes, 1e18)) // (context * width * dtype.itemsize))
        tokens = stream[: count * context].view(-1, context).to(device)
        hidden = torch.empty(count, context, width, dtype=dtype, device=device)  # at once: joining would double it
        done = 0
        for batch in tqdm(tokens.split(rows), desc="lessons"):
            if done and time.monotonic() > deadline:
                break
            made = target.model(input_ids=batch, use_cache=False).last_hidden_state
            hidden[done : done + len(batch)] = made
            done += len(batch)
        return cls(tokens[:done], hidden[:done])

    def items(self, context: int, seed: int) -> Iterator[Tensor]:
        """Endless indices of windows [1], every one once an epoch."""
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield from torch.randperm(len(self.tokens), generator=generator).split(1)

    def loss(self, unembedding: Tensor, variation: float = 1.0, divergence: float = 0.5, compiled: bool = True) -> Loss:
        """Total variation and forward KL to the target, weighted, a mean over positions.

        `unembedding` [vocab, width] makes logits of the hidden states.
        """
        apart = torch.compile(distance) if compiled else distance

        def loss(draft: nn.Module, which: Tensor) -> Tensor:
            which = which.flatten()
            logits = self.hidden[which].to(unembedding.dtype) @ unembedding.T  # [rows, context, vocab]
            mine = draft(input_ids=self.tokens[which], use_cache=False).logits  # [rows, context, vocab]
            return apart(logits, mine, variation, divergence)

        return loss


def distance(target_logits: Tensor, draft_logits: Tensor, variation: float, divergence: float) -> Tensor:
    """variation * TV + divergence * KL(target || draft), nats, mean over positions; logits [..., vocab]"""
    log_target, log_draft = target_logits.float().log_softmax(-1), draft_logits.float().log_softmax(-1)
    p_target = log_target.exp()
    apart = (p_target - log_draft.exp()).abs().sum(-1).mean() / 2
    return variation * apart + divergence * (p_target * (log_target - log_draft)).sum(-1).mean()


def head_start(draft: LlamaForCausalLM, target: LlamaForCausalLM) -> None:
    """Give the draft the target's embedding, last gain and first layers. Their widths must agree."""
    state = target.state_dict()
    draft.load_state_dict({name: state[name] for name in draft.state_dict()})
