"""What every engine is: a pass over new tokens, and the cache that it runs over."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from ..kv_cache import KVCache

# tokens [batch, n], the cache that has room for them, last logits only -> logits
Pass = Callable[[Tensor, KVCache, bool], Tensor]
# for each kind of layer [batch, 1, n, visible]; None for a whole text, which is causal
Masks = dict[str, Tensor | None]


class Engine:
    """Runs one model, as it comes. `GraphEngine` runs passes that it has recorded."""

    name: str
    causal = False  # whether it runs a text from its first token without a mask
    copied: Sequence[Tensor] = ()  # weights of the module that it holds a second time

    def __call__(self, tokens: Tensor, positions: Tensor, masks: Masks, cache: KVCache, last: bool) -> Tensor:
        """The model itself. tokens and positions [batch, n] -> logits [batch, n or 1, vocab]"""
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
