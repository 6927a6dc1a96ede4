"""Draft with the text itself, without a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..draft import Draft, Texts, one_hot_draft
from ..kv_cache import KVCache
from ..models import LanguageModel
from ..randomness import Randomness
from ..sampling.distributions import Sampler


class PromptLookupDrafter:
    """Draft with the text itself: what followed the last time its final n tokens occurred.

    Where fewer than k tokens followed, the text repeats itself, and the copy goes on over its own end.
    No model and no randomness, so `p_draft` is one-hot; strong where text repeats (code edits,
    summaries). Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding.

    Args:
        longest: length of the match tried first.
        shortest: length of the last match tried before giving up; then nothing is proposed.

    Example:
        >>> target = sd.TableModel(vocab_size=3, sharpness=0.1)
        >>> made = sd.speculative(target, sd.PromptLookupDrafter(), [0, 1, 2, 0, 1], k=2, max_new_tokens=3)
        >>> made.trace.rounds[0].drafted  # what followed 0, 1 before
        [2, 0]
    """

    def __init__(self, longest: int = 3, shortest: int = 1) -> None:
        if not 1 <= shortest <= longest:
            raise ValueError(f"needs 1 <= shortest <= longest, got shortest={shortest}, longest={longest}")
        self.longest, self.shortest = longest, shortest

    def open(self, texts: Texts, target: LanguageModel, cache: KVCache) -> PromptLookupSession:
        return PromptLookupSession(
            [Index(self.longest, self.shortest) for _ in texts], target.vocab_size, target.device
        )


class Index:
    """Where each run of tokens was last seen, so that a lookup takes no longer in a long text than in a short one."""

    def __init__(self, longest: int, shortest: int) -> None:
        self.sizes = range(longest, shortest - 1, -1)
        self.after: dict[tuple[int, ...], int] = {}  # tokens -> the place after their latest occurrence
        self.known = 0  # places of the text that were entered

    def continuation(self, text: Sequence[int], k: int) -> list[int]:
        """The k tokens that followed the latest earlier occurrence of the text's ending; none without one.

        Where the text ends before, they go on with themselves. A text may only grow: an occurrence entered
        beyond its end is passed over.
        """
        for end in range(self.known + 1, len(text)):  # runs that something follows
            for n in self.sizes:
                if n <= end:
                    self.after[tuple(text[end - n : end])] = end
        self.known = max(self.known, len(text) - 1)
        for n in self.sizes:
            if n < len(text) and (at := self.after.get(tuple(text[-n:]), len(text))) < len(text):
                period = len(text) - at  # how long ago it was, and how many tokens followed
                followed = text[at : at + k]
                return [followed[i % period] for i in range(k)]
        return []


class PromptLookupSession:
    """The texts hold it all, and an index of each finds it."""

    def __init__(self, indices: list[Index], vocab_size: int, device: torch.device) -> None:
        self.indices, self.vocab_size, self.device = indices, vocab_size, device

    def max_draft_tokens(self, length: int) -> int:
        return 10**9

    def propose(self, texts: Texts, k: int, sampler: Sampler, randomness: Randomness) -> Draft:
        found = [index.continuation(text, k) for index, text in zip(self.indices, texts, strict=True)]
        return one_hot_draft(found, self.vocab_size, self.device)
