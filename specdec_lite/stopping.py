"""When a text ends: the budget, a stop token, a stop string. The earliest position wins."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

Decode = Callable[[list[int]], str]
MARGIN = 4  # tokens decoded before those that may matter: a character has up to 4 bytes


@dataclass(frozen=True)
class Stop:
    """What ends a text besides its budget.

    Args:
        token_ids: the token is kept as the last one.
        strings: tokens are kept up to the one that completes the string; the text is cut before it.
            A string may begin in the prompt's last token, and must end after it.

    Raises:
        ValueError: an empty string, or a token id below 0.
    """

    token_ids: Sequence[int] = field(default=())
    strings: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        listed = isinstance(self.strings, Collection) and not isinstance(self.strings, str)
        if not listed or not all(isinstance(s, str) and s for s in self.strings):
            raise ValueError(f"stop strings must be a list of non-empty strings, got {self.strings!r}")
        if not isinstance(self.token_ids, Collection) or any(not isinstance(t, int) or t < 0 for t in self.token_ids):
            raise ValueError(f"stop token ids must be whole numbers of at least 0, got {self.token_ids!r}")

    def cut(
        self, before: list[int], block: list[int], budget: int, decode: Decode | None
    ) -> tuple[list[int], str | None]:
        """How much of `block` is kept, and why the text ends there.

        `before` is the prompt's last token and all new ones so far; `budget` is what may still be
        added. Returns (kept tokens, None | "stop" | "length").
        """
        for i, token in enumerate(block[:budget]):
            if token in self.token_ids or self.completed(before + block[: i + 1], decode) is not None:
                return block[: i + 1], "stop"
        kept = block[:budget]
        return kept, "length" if len(kept) == budget else None

    @property
    def reach(self) -> int:
        """Tokens at the end of a text that may matter: each has a byte at least."""
        return max((len(string.encode()) for string in self.strings), default=0) + MARGIN

    def completed(self, tokens: list[int], decode: Decode | None) -> int | None:
        """How many characters ago the stop string began that the last of `tokens` completes; None if it does not.

        The earliest, where it completes several.
        """
        if not self.strings or len(tokens) < 2:  # one token is the prompt's
            return None
        assert decode is not None, "stop strings need a tokenizer, see prompts.check_limits"
        window = tokens[-self.reach :]
        known = len(decode(window[:-1]).rstrip("\ufffd"))  # what was complete before the last token
        text = decode(window)
        begins = [text.find(string, max(0, known - len(string) + 1)) for string in self.strings]
        return max((len(text) - at for at in begins if at >= 0), default=None)

    def pending(self, tokens: list[int], decode: Decode) -> int:
        """How many characters at the end of the text may turn out to begin a stop string."""
        if not self.strings:
            return 0
        text = decode(tokens[-self.reach :]).rstrip("\ufffd")
        begins = (n for string in self.strings for n in range(1, len(string)) if text.endswith(string[:n]))
        return max(begins, default=0)
