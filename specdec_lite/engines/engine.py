"""What every engine is: a pass over new tokens, and the cache that it runs over."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..kv_cache import KVCache

# tokens [batch, n], the cache that has room for them, last logits only -> logits
Pass = Callable[[Tensor, KVCache, bool], Tensor]
# for each kind of layer [batch, 1, n, visible]; None for a whole text, which is causal
Masks = dict[str, Tensor | None]


@dataclass(frozen=True)
class Span:
    """Some of a model's layers, from `start` up to `stop`, which is left out.

    Hidden state i is what layer i reads: 0 the embeddings, the number of layers what the last one wrote, before the
    final norm.
    """

    start: int
    stop: int
    hidden: tuple[int, ...] = ()  # which states to return


@dataclass
class Layers:
    """What a forward through some layers gave."""

    logits: Tensor  # [batch, n or 1, vocab], of the final norm and the head on the last state
    hidden: dict[int, Tensor] = field(default_factory=dict)  # [batch, n, width] each


class Engine:
    """Runs one model, as it comes. `GraphEngine` runs passes that it has recorded."""

    name: str  # as `build` takes it
    causal = False  # whether it runs a text from its first token without a mask
    copied: Sequence[Tensor] = ()  # weights of the module that it holds a second time

    def __call__(self, tokens: Tensor, positions: Tensor, masks: Masks, cache: KVCache, last: bool) -> Tensor:
        """The model itself. tokens and positions [batch, n] -> logits [batch, n or 1, vocab]"""
        raise NotImplementedError

    def run_span(self, x: Tensor, positions: Tensor, masks: Masks, cache: KVCache, last: bool, span: Span) -> Layers:
        """Only these layers, then the final norm and the head.

        x: tokens [batch, n], or where the span does not begin with the first layer the state that its first one reads
        [batch, n, width].
        """
        raise NotImplementedError

    def new_cache(self, batch: int, capacity: int, device: torch.device) -> KVCache:
        return KVCache(batch, capacity, device)

    def forget(self) -> None:
        """Let go of what was kept for later passes."""

    def run(self, whole: Pass, tokens: Tensor, cache: KVCache, last: bool, kind: Hashable) -> Tensor:
        """`whole`, which makes masks and calls this engine, over tokens that `cache` finds room for.

        `kind` says what else `whole` depends on.
        """
        cache.reserve(tokens.shape[1])
        return whole(tokens, cache, last)
