"""A model and its cache in plain lists, to write the algorithm with: `read` appends, `rewind` forgets.

A reader remembers which token lies in every slot, those that are out of sight included, so that
what a cache holds can be printed beside the text.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..models import LanguageModel


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
