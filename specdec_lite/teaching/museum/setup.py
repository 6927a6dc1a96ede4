"""A decoder in parts, any of which an exhibit may exchange for a broken one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ...acceptance import Rule, TokenRejection
from ...decoding import Decoded, finish, start
from ...draft import Drafter
from ...kv_cache import KVCache
from ...models import LanguageModel
from ...randomness import SeededStreams
from ...sampling.distributions import Sampling
from ...sampling.processors import Chain, Processor
from ...stopping import Stop
from ...theory.exact import Distribution, sequence_distribution
from ...trace import Detail

Kind = Literal["biased", "exact but slow", "exact"]
Alarm = Literal["enumeration", "twin", "dice"]


@dataclass(frozen=True)
class Setup:
    """All that an exhibit may tamper with. It prints as `Setup(...)`, so that it does not give itself away."""

    target: LanguageModel = field(repr=False)
    drafter: Drafter = field(repr=False)
    rule: Rule = field(default=TokenRejection(), repr=False)
    streams: type[SeededStreams] = field(default=SeededStreams, repr=False)
    stops: type[Stop] = field(default=Stop, repr=False)
    processor: Callable[[Processor, int], Processor] | None = field(default=None, repr=False)  # and prompt's length

    def decode(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int],
        k: int = 4,
        max_new_tokens: int = 8,
        sampling: Sampling | None = None,
        stop: Stop | None = None,
        processors: Chain = (),
        trace: Detail = "summary",
    ) -> Decoded:
        """Run it for a batch of token prompts; `stop` None never stops. Otherwise as `speculative`, errors included."""
        began = time.perf_counter()
        run = start(
            self.target, self.drafter, prompts, k=k, max_new_tokens=max_new_tokens, sampling=sampling,
            stop=self._stop(stop), processors=[self._chain(processors, len(each)) for each in prompts],
            seed=seeds, rule=self.rule, exact=False, trace=trace, randomness=self.streams(seeds, k, self.target.device),
        )  # fmt: skip
        return finish(run, prompts, began)

    def enumerate(
        self,
        prompt: Sequence[int],
        *,
        k: int = 2,
        max_new_tokens: int = 4,
        sampling: Sampling | None = None,
        stop: Stop | None = None,
        processors: Chain = (),
    ) -> Distribution:
        """Its distribution over texts. One row at a time: a broken cache may feel its neighbours."""
        return sequence_distribution(
            self.target, self.drafter, prompt, k=k, max_new_tokens=max_new_tokens, sampling=sampling,
            stop=self._stop(stop), rule=self.rule, processors=self._chain(processors, len(prompt)), rows=1,
        )  # fmt: skip

    def _stop(self, stop: Stop | None) -> Stop:
        stop = stop or Stop()
        return self.stops(stop.token_ids, stop.strings)

    def _chain(self, processors: Chain, length: int) -> Chain:
        return list(processors) if self.processor is None else [self.processor(each, length) for each in processors]


@dataclass(frozen=True)
class Exhibit:
    """One bug. `make(target, draft)` builds the decoder that has it."""

    name: str
    kind: Kind
    make: Callable[[LanguageModel, LanguageModel], Setup] = field(repr=False)
    caught_by: Alarm | None
    story: str  # how one gets there; where it happened is in `stories`


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
