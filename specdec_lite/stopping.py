"""When a text ends: the budget, a stop token, a stop string. The earliest position wins."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stop:
    """What ends a text besides its budget.

    Args:
        token_ids: the token is kept as the last one.
        strings: tokens are kept up to the one that completes the string; the text is cut before it.

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
        self, new: list[int], block: list[int], budget: int, decode: Callable[[list[int]], str] | None
    ) -> tuple[list[int], str | None]:
        """How much of `block` is kept after the tokens `new`, and why the text ends there.

        `budget` is what may still be added. Returns (kept tokens, None | "stop" | "length").
        """
        for i, token in enumerate(block[:budget]):
            ended = token in self.token_ids
            if not ended and self.strings:
                ended = self.found(decode(new + block[: i + 1])) is not None
            if ended:
                return block[: i + 1], "stop"
        kept = block[:budget]
        return kept, "length" if len(kept) == budget else None

    def found(self, text: str) -> int | None:
        """Where the earliest stop string begins in `text`, or None."""
        starts = [text.find(s) for s in self.strings if s in text]
        return min(starts) if starts else None
