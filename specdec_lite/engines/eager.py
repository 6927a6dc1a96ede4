"""transformers' own forward, with keys, values, mask and positions from the cache, and no copy of any key."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..kv_cache import KVCache
from .architecture import cache_name
from .attention import without_copies
from .engine import Engine, Layers, Masks, Span

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
        return self._forward(tokens, positions, masks, cache, last)

    def _forward(self, tokens: Tensor, positions: Tensor, masks: Masks, cache: KVCache, last: bool) -> Tensor:
        with without_copies():
            return self.module(
                input_ids=tokens,
                attention_mask=masks if len(masks) > 1 else next(iter(masks.values())),
                position_ids=positions,
                **{self.cache_name: cache},
                use_cache=True,
                logits_to_keep=1 if last else 0,
            ).logits

    def run_span(self, x: Tensor, positions: Tensor, masks: Masks, cache: KVCache, last: bool, span: Span) -> Layers:
        """Through the module's own forward, in which the other layers hand on what they are given."""
        hidden: dict[int, Tensor] = {}

        def forward_of(i: int, forward: Callable[..., Any]) -> Callable[..., Any]:
            def replaced(state: Tensor, *args: Any, **kwargs: Any) -> Any:
                if i == span.start > 0:
                    state = x
                if span.start <= i < span.stop:
                    hidden[i] = state
                    made = forward(state, *args, **kwargs)
                    state = hidden[i + 1] = made[0] if isinstance(made, tuple) else made
                return (state,) if tuples else state

            return replaced

        layers, tuples = decoder_layers(self.module), self.layers_return_tuples
        # with a state given, the tokens only say how many there are
        tokens = torch.zeros_like(positions) if span.start else x
        for i, layer in enumerate(layers):
            layer.forward = forward_of(i, layer.forward)
        try:
            logits = self._forward(tokens, positions, masks, cache, last)
        finally:
            for layer in layers:
                del layer.forward
        return Layers(logits, {i: hidden[i] for i in span.hidden})

    @cached_property
    def layers_return_tuples(self) -> bool:
        """Whether a layer returns (state, ...) or the state alone, which depends on model and release."""
        seen: list[bool] = []
        note = decoder_layers(self.module)[0].register_forward_hook(
            lambda *given: seen.append(isinstance(given[2], tuple))
        )
        try:
            self.module(input_ids=torch.zeros(1, 1, dtype=torch.long, device=self.module.device), use_cache=False)
        finally:
            note.remove()
        return seen[0]


def decoder_layers(module: PreTrainedModel) -> list[nn.Module]:
    """The layers that hidden states pass through one after the other.

    Raises:
        ValueError: the module has no such list, or a layer's forward was replaced.
    """
    n = module.config.get_text_config().num_hidden_layers
    lists = [list(part) for part in module.modules() if isinstance(part, nn.ModuleList) and len(part) == n]
    if not lists or len(set(lists[0])) < n:
        raise ValueError(f"{type(module).__name__} has no list of {n} layers, of which some could be run alone")
    if any("forward" in vars(layer) for layer in lists[0]):
        raise ValueError(f"a layer of {type(module).__name__} has a forward of its own: only all of them run together")
    return lists[0]
