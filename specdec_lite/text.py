"""From tokens to text: cut before a stop string, and in pieces that never end inside a character."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .stopping import Stop

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BROKEN = "\ufffd"  # what a decoder writes for bytes that are no character, or not yet


def before_stop(tokenizer: PreTrainedTokenizerBase, stop: Stop, last_of_prompt: int, new: Sequence[int]) -> str:
    """The text of the new tokens without special tokens, cut where the stop string that ended it begins."""
    new = list(new)
    began = stop.completed([last_of_prompt, *new], tokenizer.decode)
    if began is None:
        return tokenizer.decode(new, skip_special_tokens=True)
    end = max(0, len(tokenizer.decode(new)) - began)  # characters kept, special tokens counted
    whole = len(new) - 1
    while whole > 0 and len(tokenizer.decode(new[:whole])) > end:
        whole -= 1  # tokens that end before the stop string begins
    part = tokenizer.decode(new[: whole + 1])[len(tokenizer.decode(new[:whole])) : end]
    return tokenizer.decode(new[:whole], skip_special_tokens=True) + part


class Pieces:
    """The text of a growing list of tokens, piece by piece, without special tokens.

    A token may end inside a character (byte-level vocabularies): it waits for the rest.
    """

    CONTEXT = 8  # tokens decoded again before new ones: some tokenizers treat a text's beginning differently
    LONGEST = 4  # bytes of a UTF-8 character; what is not one by then never will be

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int]) -> None:
        self.tokenizer = tokenizer
        self.shown = list(prompt[-self.CONTEXT :])
        self.held: list[int] = []

    def add(self, token: int) -> str:
        """The text that has become certain; nothing while a character is incomplete."""
        self.held.append(token)
        if not self._piece(self.held).endswith(BROKEN):
            return self._release(len(self.held))
        return self._release(max(0, len(self.held) - self.LONGEST + 1))

    def close(self) -> str:
        """The rest: a character that was never completed."""
        return self._release(len(self.held))

    def _piece(self, tokens: list[int]) -> str:
        return self._decode(self.shown + tokens)[len(self._decode(self.shown)) :]

    def _release(self, count: int) -> str:
        if count == 0:
            return ""
        piece = self._piece(self.held[:count])
        self.shown, self.held = (self.shown + self.held[:count])[-self.CONTEXT :], self.held[count:]
        return piece

    def _decode(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)
