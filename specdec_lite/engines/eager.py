"""transformers' own forward, with keys, values, mask and positions from the cache, and no copy of any key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ..kv_cache import KVCache
from .architecture import cache_name
from .attention import without_copies
from .engine import Engine, Masks

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class EagerEngine(Engine):
    """Runs any module as it is."""

    name = "eager"

    def __init__(self, module: PreTrainedModel) -> None:
        self.module, self.cache_name = module, cache_name(module)
        # without a mask this kernel sees to causality by itself, and others would make one of n x n
        self.causal = getattr(module.config.get_text_config(), "_attn_implementation", None) == "sdpa"

    def __call__(self, tokens: Tensor, positions: Tensor, masks: Masks, cache: KVCache, last: bool) -> Tensor:
        with without_copies():
            return self.module(
                input_ids=tokens,
                attention_mask=masks if len(masks) > 1 else next(iter(masks.values())),
                position_ids=positions,
                **{self.cache_name: cache},
                use_cache=True,
                logits_to_keep=1 if last else 0,
            ).logits
