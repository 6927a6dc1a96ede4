"""Draft with a smaller language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..draft import Draft, Texts, left_in_context
from ..kv_cache import KVCache
from ..messages import shown
from ..models import LanguageModel, prefill, refresh_settings
from ..randomness import Randomness
from ..sampling.distributions import Sampler
from ..transfer import send


class ModelDrafter:
    """Draft with a smaller language model, one token at a time.

    Example:
        >>> target, draft = sd.TableModel(vocab_size=4, seed=0), sd.TableModel(vocab_size=4, seed=1)
        >>> sd.speculative(target, sd.ModelDrafter(target), [0, 1], k=3, max_new_tokens=8).trace.accepted_per_judged
        1.0
    """

    def __init__(self, model: LanguageModel) -> None:
        if not hasattr(model, "new_cache") or isinstance(model, type):
            raise TypeError(
                f"ModelDrafter needs a model, such as load_pair(target, draft).draft, got {shown(model)}; "
                "PromptLookupDrafter() drafts without one"
            )
        self.model = model

    def open(self, texts: Texts, target: LanguageModel, cache: KVCache) -> ModelDraftSession:
        refresh_settings(self.model)
        if self.model.device != target.device:
            raise ValueError(
                f"the draft is on {self.model.device} and the target on {target.device}: both need one device"
            )
        return ModelDraftSession(self.model, texts, cache.capacity, target.vocab_size)


class ModelDraftSession:
    """The draft model's cache. It holds every token of a text but the last, and rewinds to that.

    Vocabularies are often padded to different widths over one tokenizer. `p_draft` is a distribution
    over the target's `vocab_size` tokens: a narrower draft gives the others nothing, a wider one is
    cut and normalised again. A token that the draft does not know is fed to it as its last one.
    """

    def __init__(self, model: LanguageModel, texts: Texts, capacity: int, vocab_size: int) -> None:
        self.model, self.vocab_size = model, vocab_size
        self.knows_all = vocab_size <= model.vocab_size
        self.cache = model.new_cache(len(texts), capacity)
        self.cached = [0] * len(texts)  # tokens of each text that the cache holds
        if max(self.max_draft_tokens(len(text)) for text in texts) > 0:  # a row without room goes along, unheard
            prefill(model, self.cache, [self.known(text) for text in texts])
            self.cached = [len(text) - 1 for text in texts]

    def max_draft_tokens(self, length: int) -> int:
        return left_in_context(self.model.context, length)

    def known(self, text: Sequence[int]) -> list[int]:
        """The text in tokens of the draft."""
        return [min(token, self.model.vocab_size - 1) for token in text]

    def fit(self, logits: Tensor) -> Tensor:
        """[batch, 1, the draft's vocab] -> [batch, 1, the target's vocab]"""
        missing = self.vocab_size - logits.shape[-1]
        if missing == 0:
            return logits
        return pad(logits, (0, missing), value=-torch.inf) if missing > 0 else logits[..., : self.vocab_size]

    def uncached_tokens(self, texts: Texts) -> int:
        """How many tokens at the end of the texts to feed: 1, or 2 after full acceptance.

        The last drafted token was never fed to the draft. When it is accepted its keys and
        values are missing, so it is fed now, together with the bonus token.
        """
        return max(len(text) - min(held, len(text) - 1) for text, held in zip(texts, self.cached, strict=True))

    def catch_up(self, texts: Texts) -> Tensor:
        """Rewind to what the texts and the cache share; return what to feed. -> [batch, n]"""
        n = self.uncached_tokens(texts)  # rows that lack fewer are fed a token twice, to the same slot
        rows = list(zip(texts, self.cached, strict=True))
        self.cache.rewind([max(0, held - (len(text) - n)) for text, held in rows])
        return send([self.known(text[-n:]) for text in texts], self.model.device)

    def known_ids(self, tokens: Tensor) -> Tensor:
        """As `known`, on the device."""
        return tokens if self.knows_all else tokens.clamp_max(self.model.vocab_size - 1)

    def propose(self, texts: Texts, k: int, sampler: Sampler, randomness: Randomness) -> Draft:
        feed = self.catch_up(texts)  # [batch, n]
        tokens, probs = feed[:, :0], []  # [batch, 0]
        for _ in range(k):
            logits = self.fit(self.model.forward(feed, self.cache, last_only=True))  # [batch, 1, vocab]
            token, p_draft = sampler.draw(logits, texts, tokens, randomness)  # [batch, 1], [batch, 1, vocab] or None
            tokens = torch.cat([tokens, token], 1)  # [batch, drafted so far]
            probs.append(p_draft)
            feed = self.known_ids(token)  # [batch, 1]
        self.cached = [len(text) + k - 1 for text in texts]
        return Draft(tokens, sampler.together(tokens, probs, self.vocab_size), [k] * len(texts))
