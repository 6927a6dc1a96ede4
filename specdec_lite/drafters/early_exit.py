"""Draft with the target's own first layers."""

from __future__ import annotations

import torch

from ..draft import Draft, HasLayers, Texts, left_in_context
from ..engines.engine import Span
from ..kv_cache import KVCache
from ..messages import shown
from ..models import LanguageModel
from ..randomness import Randomness
from ..sampling.distributions import Sampler
from ..transfer import send


class EarlyExitDrafter:
    """Draft with the target's own first layers, its final norm and its head: no weights and no cache of its own.

    The layers read and write the target's cache, and verification writes over what they wrote. It pays where the head
    can already read the early state, which a model learns when it is trained for it (LayerSkip: Elhoushi et al. 2024,
    arXiv:2404.16710; skipping chosen layers of an ordinary model: Zhang et al. 2023, arXiv:2309.08168).

    Args:
        layers: how many; None for half of the target's.

    Raises:
        ValueError: not a whole number of at least 1; at the start of a run, not fewer than the target has.
        TypeError: at the start of a run, a target without layers.

    Example:
        >>> target = sd.load_pair().target
        >>> made = sd.speculative(target, sd.EarlyExitDrafter(layers=2), [1, 2, 3], k=2, max_new_tokens=8)
        >>> len(made.tokens)
        8
    """

    def __init__(self, layers: int | None = None) -> None:
        if layers is not None and (not isinstance(layers, int) or layers < 1):
            raise ValueError(
                f"layers must be a whole number of at least 1, or None for half of them, got {shown(layers)}"
            )
        self.layers = layers

    def open(self, texts: Texts, target: LanguageModel, cache: KVCache) -> EarlyExitSession:
        if not isinstance(target, HasLayers):
            raise TypeError(f"EarlyExitDrafter needs a TransformersModel as target, got {shown(target)}")
        layers = self.layers or max(1, target.layers // 2)
        if layers >= target.layers:
            raise ValueError(f"the target has {target.layers} layers, and {layers} of them leave none out: take fewer")
        return EarlyExitSession(target, cache, Span(0, layers))


class EarlyExitSession:
    """Keeps nothing: between rounds the target's cache holds the text but for its last token."""

    def __init__(self, target: HasLayers, cache: KVCache, span: Span) -> None:
        self.target, self.shared_cache, self.span = target, cache, span

    def max_draft_tokens(self, length: int) -> int:
        return left_in_context(self.target.context, length)

    def propose(self, texts: Texts, k: int, sampler: Sampler, randomness: Randomness) -> Draft:
        feed = send([text[-1:] for text in texts], self.target.device)  # [batch, 1]
        tokens, probs = feed[:, :0], []  # [batch, drafted so far]
        for _ in range(k):
            logits = self.target.forward_span(feed, self.shared_cache, self.span, last_only=True).logits
            feed, p_draft = sampler.draw(logits, texts, tokens, randomness)  # [batch, 1], [batch, 1, vocab] or None
            tokens = torch.cat([tokens, feed], 1)
            probs.append(p_draft)
        self.shared_cache.rewind([k] * len(texts))
        return Draft(tokens, sampler.together(tokens, probs, self.target.vocab_size), [k] * len(texts))
