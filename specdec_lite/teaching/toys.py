"""A model and its cache in plain lists, to write the algorithm with: `read` appends, `rewind` forgets.

A reader remembers which token lies in every slot, those that are out of sight included, so that
what a cache holds can be printed beside the text.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..models import LanguageModel, TableModel


class Reader:
    """One model reading one text.

    Args:
        model: who reads.
        capacity: slots of its cache.
    """

    def __init__(self, model: LanguageModel, capacity: int = 64) -> None:
        self.model, self.cache = model, model.new_cache(1, capacity)
        self.slots: list[int] = []  # the token that was last written to each slot, in sight or not
        self.reads: list[int] = []  # tokens of each forward so far

    @property
    def held(self) -> int:
        """Tokens in sight: what the next forward attends to."""
        return self.cache.lengths[0]

    @torch.inference_mode()
    def read(self, tokens: Sequence[int]) -> Tensor:
        """One forward over tokens that follow those in sight. -> logits [n, vocab], a row for each of them

        Raises:
            ValueError: no tokens, or more than the cache has room for.
        """
        if not len(tokens):
            raise ValueError(f"no tokens to read: {self.held} are in sight, and a cache leaves out the text's last one")
        rows = self.model.forward(torch.tensor([list(tokens)], device=self.model.device), self.cache)[0]
        self.slots[self.held - len(tokens) : self.held] = tokens  # the forward has moved `held`
        self.reads.append(len(tokens))
        return rows

    def rewind(self, n: int) -> None:
        """Forget the last n tokens in sight. Their slots stay as they are, out of sight.

        Raises:
            ValueError: n is negative, or more than are in sight.
        """
        if not 0 <= n <= self.held:
            raise ValueError(f"can forget 0 to {self.held} tokens, got {n}")
        self.cache.rewind([n])


SENTENCE = (
    *("the", "draft", "guesses", "four", "words", "ahead", "and", "the", "target", "reads", "them", "all"),
    *("at", "once", "then", "it", "keeps", "every", "guess", "up", "to", "the", "first", "slip"),
)
SLIPS = {5: "aloud", 11: "both", 20: "until"}  # place in the sentence -> what the draft takes it for
WORDS = tuple(dict.fromkeys([*SENTENCE, *SLIPS.values()]))  # the vocabulary
PROMPT = 3  # words given
CONTEXT = 40


def ids(words: Sequence[str]) -> list[int]:
    return [WORDS.index(word) for word in words]


def say(tokens: Sequence[int]) -> str:
    """Tokens as words with spaces between them."""
    return " ".join(WORDS[token] for token in tokens)


def pair() -> tuple[TableModel, TableModel]:
    """Target and draft."""
    slipping = [SLIPS.get(i, word) for i, word in enumerate(SENTENCE)]
    return reciter(SENTENCE, slipping), reciter(slipping, SENTENCE)


def reciter(said: Sequence[str], heard: Sequence[str]) -> TableModel:
    """A model that says `said`. Of each place it knows its own word and the one of `heard`.

    Slot j votes 2^j for the word after its own, so the last slot that knows its word decides.
    """
    model = TableModel(len(WORDS), CONTEXT)
    model.table.zero_()
    for j, (one, other, after) in enumerate(zip(ids(said), ids(heard), ids(said)[1:], strict=False)):
        model.table[j, [one, other], after] = 2.0**j
    return model
