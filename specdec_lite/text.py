"""From tokens to text: what whole decodes differ by, cut before a stop string, or piece by piece.

A token has no text of its own. Some decoders strip a leading space, join a word's parts or take a
space away before a full stop, and a character's bytes may be spread over tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from os.path import commonprefix
from typing import TYPE_CHECKING

from .stopping import BROKEN, Stop

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # a byte among SentencePiece's tokens
JOINED = re.compile(r" *'$| +(n'?|'[vr])?$")  # what `clean_up_tokenization_spaces` may yet join to the word before it


def before_stop(tokenizer: PreTrainedTokenizerBase, stop: Stop, prompt: Sequence[int], new: Sequence[int]) -> str:
    """What the new tokens add to the prompt's text, without special tokens, cut where the stop string begins."""
    prompt, new = list(prompt), list(new)
    whole = tokenizer.decode(prompt + new, skip_special_tokens=True)
    begin = len(commonprefix([tokenizer.decode(prompt, skip_special_tokens=True), whole]))
    seen = [*prompt[-1:], *new]
    began = stop.completed(seen, tokenizer.decode)
    if began is None:
        return whole[begin:]
    marked = behind = tokenizer.decode(seen)  # with special tokens, among which the string may be
    end, kept = len(marked) - began, len(new)
    for count in range(len(new) - 1, -1, -1):  # the fewest tokens that reach into the string
        text = tokenizer.decode(seen[: count + 1])
        if len(text) <= end:
            break
        if marked.startswith(text):
            behind, kept = text, count
    text, rest = tokenizer.decode(prompt + new[:kept], skip_special_tokens=True), behind[end:]
    return text[begin : max(begin, len(text) - len(rest))] if text.endswith(rest) else text[begin:]


class Pieces:
    """The text of a growing list of tokens, piece by piece, without special tokens.

    Text waits until no later token can change it: a character for the rest of its bytes, say. The
    pieces together are what the whole text has beyond the prompt's; each costs a short decode.
    """

    CONTEXT = 8  # tokens decoded again before new ones, since none has a text of its own
    LONGEST = 4  # bytes of a UTF-8 character; what is not one by then never will be

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int]) -> None:
        self.tokenizer = tokenizer
        self.window = list(prompt)  # the last tokens, and at first all
        self.shown = self._decode(self.window)  # of their text
        self.began = False
        self.held = 0  # tokens of which nothing has been shown yet
        self.special: dict[int, bool] = {}

    def add(self, token: int) -> str:
        """The text that has become certain; nothing while a character is incomplete."""
        if self._is_special(token):
            return ""
        self.window.append(token)
        self.held += 1
        if BYTE.fullmatch(self.tokenizer.convert_ids_to_tokens(token) or ""):
            return ""  # one broken byte breaks the whole run, so it waits for its end
        text = self._decode(self.window)
        return self._show(text, self._waiting(text))

    def close(self) -> str:
        """The rest: what would have waited for more."""
        return self._show(self._decode(self.window), 0)

    def _show(self, text: str, waiting: int) -> str:
        certain = text[: len(text) - waiting]
        piece = certain[len(commonprefix([self.shown, certain])) :]
        if piece:
            self.shown, self.began = certain, True
        if piece or not waiting:
            self.held = 0
        if self.began and len(self.window) > 2 * self.CONTEXT:
            self._forget(waiting)
        return piece

    def _forget(self, waiting: int) -> None:
        """Go on with the last tokens alone, if they have a text: what is stripped at a beginning is stripped there."""
        text = self._decode(self.window[-self.CONTEXT :])
        if len(text) > waiting:
            self.window, self.shown = self.window[-self.CONTEXT :], text[: len(text) - waiting]

    def _waiting(self, text: str) -> int:
        """How many characters at the end of the text the next token may change."""
        broken = len(text) - len(text.rstrip(BROKEN))
        joined = JOINED.search(text) if self.tokenizer.clean_up_tokenization_spaces else None
        return min(broken, self.LONGEST - 1) or (len(joined[0]) if joined else 0)

    def _is_special(self, token: int) -> bool:
        if token not in self.special:
            self.special[token] = not self._decode([token]) and bool(self.tokenizer.decode([token]))
        return self.special[token]

    def _decode(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)
