"""When a text ends: the budget, a stop token, a stop string; and how its tokens become text, also piece by piece."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from os.path import commonprefix
from typing import TYPE_CHECKING

from .messages import shown
from .trace import FinishReason

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Decode = Callable[[list[int]], str]
BROKEN = "\ufffd"  # what a decoder writes for bytes that are no character, or not yet
MARGIN = 4  # tokens decoded before those that may matter: a character has up to 4 bytes


@dataclass(frozen=True)
class Stop:
    """What ends a text besides its budget. `Stop()`, with nothing named, never ends one early.

    Args:
        token_ids: the tokens that end a text, these and no others; the one that did is kept as the last.
            None beside strings: the model's own end tokens. () switches those off, and
            [*target.end_tokens, 5] adds one. (transformers' `eos_token_id` replaces them too, vLLM's
            `stop_token_ids` adds.)
        strings: tokens are kept up to the one that completes the string; the text is cut before it.
            A string may begin in the prompt's last token, and must end after it.

    Raises:
        ValueError: an empty string, or a token id below 0.

    Example:
        >>> target = sd.TableModel(vocab_size=3)
        >>> free = sd.autoregressive(target, [0], max_new_tokens=9, stop=sd.Stop()).tokens
        >>> cut = sd.autoregressive(target, [0], max_new_tokens=9, stop=sd.Stop(token_ids=[free[2]])).tokens
        >>> cut == free[: free.index(free[2]) + 1]
        True
    """

    token_ids: Sequence[int] | None = None
    strings: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.strings is None:
            object.__setattr__(self, "strings", ())
            if self.token_ids is None:
                object.__setattr__(self, "token_ids", ())  # nothing is named
        listed = isinstance(self.strings, Collection) and not isinstance(self.strings, str)
        if not listed or not all(isinstance(s, str) and s for s in self.strings or ()):
            raise ValueError(f"stop strings must be a list of non-empty strings, got {shown(self.strings)}")
        ids = () if self.token_ids is None else self.token_ids
        if not isinstance(ids, Collection) or any(not isinstance(t, int) or t < 0 for t in ids):
            raise ValueError(
                f"stop token ids must be a list of whole numbers of at least 0, got {shown(self.token_ids)}"
            )

    def of(self, end_tokens: Sequence[int]) -> Stop:
        """The same for a model with these end tokens: they stand where no token ids are named beside strings."""
        return replace(self, token_ids=tuple(end_tokens)) if self.token_ids is None else self

    def cut(
        self, before: list[int], block: list[int], budget: int, decode: Decode | None
    ) -> tuple[list[int], FinishReason | None]:
        """How much of `block` is kept, and why the text ends there.

        `before` is the prompt's last token and all new ones so far; `budget` is what may still be
        added. Returns (kept tokens, None | "stop" | "length").
        """
        for i, token in enumerate(block[:budget]):
            if token in (self.token_ids or ()) or self.completed(before + block[: i + 1], decode) is not None:
                return block[: i + 1], "stop"
        kept = block[:budget]
        return kept, "length" if len(kept) == budget else None

    @property
    def reach(self) -> int:
        """Tokens at the end of a text that may matter: each has a byte at least."""
        return max((len(string.encode()) for string in self.strings or ()), default=0) + MARGIN

    def completed(self, tokens: list[int], decode: Decode | None) -> int | None:
        """How many characters ago the stop string began that the last of `tokens` completes; None if it does not.

        The earliest, where it completes several.
        """
        if not self.strings or len(tokens) < 2:  # one token is the prompt's
            return None
        assert decode is not None, "stop strings need a tokenizer, see prompts.check_limits"
        window, text = self._window(tokens, decode)
        known = len(commonprefix([decode(window[:-1]), text]))  # what stood there before the last token
        begins = [text.find(string, max(0, known - len(string) + 1)) for string in self.strings or ()]
        return max((len(text) - at for at in begins if at >= 0), default=None)

    def pending(self, tokens: list[int], decode: Decode) -> int:
        """How many characters at the end of the text of `tokens` may turn out to begin a stop string."""
        return self.begun(self._window(tokens, decode)[1].rstrip(BROKEN)) if self.strings else 0

    def begun(self, text: str) -> int:
        """How many characters at the end of `text` may turn out to begin a stop string."""
        begins = (n for string in self.strings or () for n in range(1, len(string)) if text.endswith(string[:n]))
        return max(begins, default=0)

    def _window(self, tokens: list[int], decode: Decode) -> tuple[list[int], str]:
        """The tokens that may matter, and their text.

        Some decoders call a whole run of bytes broken if its first character is cut: there it begins later.
        """
        window = tokens[-self.reach :]
        text = decode(window)
        if text.startswith(BROKEN):
            for cut in range(1, min(MARGIN, len(window))):
                fewer = decode(window[cut:])
                if fewer.count(BROKEN) + cut < text.count(BROKEN):  # it mends more than it leaves out
                    return window[cut:], fewer
        return window, text


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


class IncrementalDetokenizer:
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
