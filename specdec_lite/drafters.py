"""Who proposes. The loop knows no kinds of drafter: it opens a session and asks it for tokens.

All that speculation needs from a drafter is speed and overlap. A mistake in here can cost
acceptance; it cannot bias the output, as long as `probs` is what the tokens were drawn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from .distributions import Sampler, one_hot
from .messages import shown
from .models import LanguageModel, prefill, refresh_settings
from .randomness import Randomness
from .transfer import send

Texts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Draft:
    """Proposed tokens and what they were drawn from.

    Rows may propose fewer than k: `count[row]` are real, the rest is padding.
    """

    tokens: Tensor  # [batch, k]
    probs: Tensor  # [batch, k, vocab]
    count: list[int]  # [batch]


class DraftSession(Protocol):
    """A drafter at work on one batch of texts."""

    def room(self, length: int) -> int:
        """How many tokens may be proposed after a text of this length."""

    def propose(self, texts: Texts, k: int, sampler: Sampler, randomness: Randomness) -> Draft:
        """Between 0 and k tokens to follow each text."""


class Drafter(Protocol):
    """Makes sessions; holds no state of its own, so one drafter serves many runs."""

    def open(self, texts: Texts, capacity: int, vocab_size: int, device: torch.device) -> DraftSession: ...


class ModelDrafter:
    """Draft with a smaller language model, one token at a time."""

    def __init__(self, model: LanguageModel) -> None:
        if not hasattr(model, "new_cache") or isinstance(model, type):
            raise TypeError(
                f"ModelDrafter needs a model, such as load_pair(target, draft).draft, got {shown(model)}; "
                "PromptLookupDrafter() drafts without one"
            )
        self.model = model

    def open(self, texts: Texts, capacity: int, vocab_size: int, device: torch.device) -> ModelDraftSession:
        refresh_settings(self.model)
        if self.model.device != device:
            raise ValueError(f"the draft is on {self.model.device} and the target on {device}: both need one device")
        return ModelDraftSession(self.model, texts, capacity, vocab_size)


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
        if max(self.room(len(text)) for text in texts) > 0:  # a row without room goes along, unheard
            prefill(model, self.cache, [self.known(text) for text in texts])
            self.cached = [len(text) - 1 for text in texts]

    def room(self, length: int) -> int:
        return 10**9 if self.model.context is None else max(0, self.model.context - length)

    def known(self, text: Sequence[int]) -> list[int]:
        """The text in tokens of the draft."""
        return [min(token, self.model.vocab_size - 1) for token in text]

    def fit(self, logits: Tensor) -> Tensor:
        """[batch, 1, the draft's vocab] -> [batch, 1, the target's vocab]"""
        missing = self.vocab_size - logits.shape[-1]
        if missing == 0:
            return logits
        return pad(logits, (0, missing), value=-torch.inf) if missing > 0 else logits[..., : self.vocab_size]

    def unfed(self, texts: Texts) -> int:
        """How many tokens at the end of the texts to feed: 1, or 2 after full acceptance.

        The last drafted token was never fed to the draft. When it is accepted its keys and
        values are missing, so it is fed now, together with the bonus token.
        """
        return max(len(text) - min(held, len(text) - 1) for text, held in zip(texts, self.cached, strict=True))

    def propose(self, texts: Texts, k: int, sampler: Sampler, randomness: Randomness) -> Draft:
        n = self.unfed(texts)  # rows that lack fewer are fed a token twice, to the same slot
        rows = list(zip(texts, self.cached, strict=True))
        self.cache.rewind([max(0, held - (len(text) - n)) for text, held in rows])
        feed = send([self.known(text[-n:]) for text in texts], self.model.device)  # [batch, n]
        tokens, probs = feed[:, :0], []  # [batch, 0]
        for _ in range(k):
            logits = self.fit(self.model.forward(feed, self.cache, last_only=True))  # [batch, 1, vocab]
            token, p_draft = sampler.draw(logits, texts, tokens, randomness)  # [batch, 1], [batch, 1, vocab] or None
            tokens = torch.cat([tokens, token], 1)  # [batch, drafted so far]
            probs.append(p_draft)
            feed = token if self.knows_all else token.clamp_max(self.model.vocab_size - 1)  # [batch, 1]
        self.cached = [len(text) + k - 1 for text in texts]
        return Draft(tokens, sampler.together(tokens, probs, self.vocab_size), [k] * len(texts))


DRAFTERS = ("model", "lookup")  # as `--drafter` names them


def drafter_named(name: str, draft: LanguageModel | None) -> Drafter:
    """The drafter of that name; a model drafts with `draft`."""
    return PromptLookupDrafter() if name == "lookup" else ModelDrafter(draft)


class PromptLookupDrafter:
    """Draft with the text itself: what followed the last time its final n tokens occurred.

    Where fewer than k tokens followed, the text repeats itself, and the copy goes on over its own end.
    No model and no randomness, so `p_draft` is one-hot; strong where text repeats (code edits,
    summaries). Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding.

    Args:
        longest: length of the match tried first.
        shortest: length of the last match tried before giving up; then nothing is proposed.
    """

    def __init__(self, longest: int = 3, shortest: int = 1) -> None:
        if not 1 <= shortest <= longest:
            raise ValueError(f"needs 1 <= shortest <= longest, got shortest={shortest}, longest={longest}")
        self.longest, self.shortest = longest, shortest

    def open(self, texts: Texts, capacity: int, vocab_size: int, device: torch.device) -> PromptLookupSession:
        return PromptLookupSession([Index(self.longest, self.shortest) for _ in texts], vocab_size, device)


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

    def room(self, length: int) -> int:
        return 10**9

    def propose(self, texts: Texts, k: int, sampler: Sampler, randomness: Randomness) -> Draft:
        found = [index.continuation(text, k) for index, text in zip(self.indices, texts, strict=True)]
        return certain(found, self.vocab_size, self.device)


def certain(rows: list[list[int]], vocab_size: int, device: torch.device) -> Draft:
    """A draft in which every token had probability one (rows of different lengths, or none)."""
    width = max(len(row) for row in rows)
    padded = [row + [0] * (width - len(row)) for row in rows]
    tokens = send(padded, device).view(len(rows), width)
    return Draft(tokens, one_hot(tokens, vocab_size), [len(row) for row in rows])
