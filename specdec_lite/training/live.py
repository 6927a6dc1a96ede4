"""Distil a tiny draft while somebody watches: minutes become seconds, and the overlap is looked at all the time.

The recipe of the shipped draft (`distil`, `train`), on a few thousand tokens that the target wrote itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from ..acceptance import overlap
from ..models import TransformersModel
from .distil import Lessons, head_start
from .recipes import Shape
from .trainer import Plan, optimizers

CONTEXT = 64


@dataclass(frozen=True)
class Progress:
    """Where a distillation stands."""

    seconds: float
    seen: int  # tokens, repetitions counted
    overlap: float  # with the target, on windows that were held out


class LiveDistillation:
    """A fresh draft, with the target's embedding and first layer to begin with, and what it learns from.

    Args:
        target: the teacher; its width is the draft's.
        texts: token ids that the target wrote. One in eight windows is held out.
        layers: of the draft.
    """

    def __init__(self, target: TransformersModel, texts: Sequence[Sequence[int]], layers: int = 1) -> None:
        module = target.module
        self.tokenizer, config = target.tokenizer, module.config
        windows = [text[at : at + CONTEXT] for text in texts for at in range(0, len(text) - CONTEXT + 1, CONTEXT)]
        if len(windows) < 16:
            raise ValueError(f"{len(windows)} windows of {CONTEXT} tokens are too few to learn from: give more text")
        tokens = torch.tensor(windows)  # [windows, context]
        with torch.inference_mode():
            hidden = [module.model(input_ids=each, use_cache=False).last_hidden_state for each in tokens.split(32)]
        hidden = torch.cat(hidden).clone()  # [windows, context, width]
        self.unembedding = module.lm_head.weight.detach()  # [vocab, width]
        held = torch.arange(len(tokens)) % 8 == 0
        self.lessons, self.examination = Lessons(tokens[~held], hidden[~held]), Lessons(tokens[held], hidden[held])
        shape = Shape(layers, config.hidden_size, config.num_attention_heads)
        self.draft: LlamaForCausalLM = shape.build(config.vocab_size, seed=1)
        head_start(self.draft, module)  # without it, a minute goes by before the overlap moves

    @torch.no_grad()
    def overlap(self) -> float:
        """Mean overlap with the target on the held-out windows."""
        windows = self.examination
        p_target = (windows.hidden @ self.unembedding.T).softmax(-1)  # [windows, context, vocab]
        p_draft = self.draft(input_ids=windows.tokens, use_cache=False).logits.softmax(-1)  # the same
        return overlap(p_target, p_draft).mean().item()

    def model(self) -> TransformersModel:
        """The draft as it is now, ready to draft."""
        return TransformersModel(self.draft.eval(), self.tokenizer, engine="auto")

    def run(self, seconds: float = 10.0, rows: int = 16, looks: int = 12, seed: int = 0) -> Iterator[Progress]:
        """Learn for so many seconds, not counting the looks at the overlap; yields `looks` + 1 times.

        Raises:
            ValueError: no time.
        """
        if seconds <= 0:
            raise ValueError(f"seconds must be above 0, got {seconds}")
        plan = Plan(tokens=0, muon_lr=0.01, adam_lr=0.002, seed=seed)
        made, loss = optimizers(self.draft, plan), self.lessons.loss(self.unembedding, 1.0, 0.3, compiled=False)
        source, spent, seen, step = self.lessons.items(CONTEXT, seed), 0.0, 0, 0
        yield Progress(0.0, 0, self.overlap())
        for look in range(1, looks + 1):
            while spent < seconds * look / looks:
                began = time.perf_counter()
                which = torch.stack([next(source) for _ in range(rows)])
                self._step(loss(self.draft, which), made, min((step + 1) / 10, 1 - spent / seconds))
                spent, seen, step = spent + time.perf_counter() - began, seen + rows * CONTEXT, step + 1
            yield Progress(spent, seen, self.overlap())

    def _step(self, value: Tensor, made: Sequence[torch.optim.Optimizer], rate: float) -> None:
        value.backward()
        torch.nn.utils.clip_grad_norm_(self.draft.parameters(), 1.0)
        for optimizer in made:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * max(0.05, min(1.0, rate))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
