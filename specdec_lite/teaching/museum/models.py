"""Models with one thing wrong around them: the cache, or the last row of the logits."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kv_cache import KVCache
from ...models import LanguageModel


class Wrapped:
    """A model like the one inside."""

    def __init__(self, model: LanguageModel) -> None:
        self.model, self.vocab_size, self.context, self.device = model, model.vocab_size, model.context, model.device
        self.context_reason, self.tokenizer, self.end_tokens = model.context_reason, model.tokenizer, model.end_tokens

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        return self.model.new_cache(batch, capacity)

    def forward(self, tokens: Tensor, cache: KVCache, last_only: bool = False) -> Tensor:
        return self.model.forward(tokens, cache, last_only)


class SlackCache(KVCache):
    """BUG: forgets one token fewer than it is told, so a rejected token stays in sight."""

    def rewind(self, tokens: list[int]) -> None:
        super().rewind([max(0, n - 1) for n in tokens])


class SlackRewind(Wrapped):
    """A model whose caches are `SlackCache`s; otherwise the model that it wraps.

    As a target it is biased, as a draft exact but slow: the same bug, twice.
    """

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        return SlackCache(batch, 2 * capacity, self.device)  # each round may leave one token too many


class GreedyBonus(Wrapped):
    """BUG, in a target: the row after the last draft is reduced to its largest logit, so the bonus token is no draw.

    It takes the last row of a block for the bonus token's, which is so where every row of a batch drafts as many.
    """

    def forward(self, tokens: Tensor, cache: KVCache, last_only: bool = False) -> Tensor:
        logits = self.model.forward(tokens, cache, last_only)  # [batch, n, vocab]
        if logits.shape[1] == 1:  # nothing was drafted, or a prefill
            return logits
        last = logits[:, -1]  # [batch, vocab]
        peak = torch.full_like(last, -torch.inf).scatter(-1, last.argmax(-1, keepdim=True), 0.0)
        return torch.cat([logits[:, :-1], peak.unsqueeze(1)], 1)
