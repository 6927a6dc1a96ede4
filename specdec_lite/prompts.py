"""What a user passes in, checked before any model runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from .models import LanguageModel
from .stopping import Stop
from .trace import Detail

Prompt = str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]]


def to_token_ids(prompt: Prompt, target: LanguageModel) -> list[list[int]]:
    """A string, token ids, or a list of either -> one list of ids for each row.

    Raises:
        TypeError: something else.
        ValueError: nothing in it, a token outside the vocabulary, a string without a tokenizer.
    """
    if isinstance(prompt, str):
        prompt = [prompt]
    if not isinstance(prompt, Sequence):
        raise TypeError(f"prompt must be a string, a list of token ids, or a list of either, got {type(prompt).__name__}")
    if not prompt:
        raise ValueError("prompt is empty: give at least one token to continue from")
    rows = [prompt] if isinstance(prompt[0], int) else list(prompt)
    return [_row(row, target) for row in rows]


def _row(row: object, target: LanguageModel) -> list[int]:
    if isinstance(row, str):
        if target.tokenizer is None:
            raise ValueError("a string prompt needs a tokenizer: load the model with one, or pass token ids")
        row = target.tokenizer.encode(row)
    if not isinstance(row, Sequence) or any(not isinstance(token, int) or isinstance(token, bool) for token in row):
        raise TypeError(f"each prompt must be a string or a list of token ids, got {row!r:.80}")
    if not row:
        raise ValueError("a prompt is empty: give at least one token to continue from")
    for token in row:
        if not 0 <= token < target.vocab_size:
            raise ValueError(f"token {token} is outside the vocabulary (0 to {target.vocab_size - 1})")
    return list(row)


def check_limits(
    target: LanguageModel,
    texts: list[list[int]],
    k: int,
    max_k: int,
    max_new_tokens: int,
    seed: int | Sequence[int],
    stop: Stop,
    trace: Detail,
) -> list[int]:
    """Refuse what cannot work; return a seed for each row."""
    if max_k and (not isinstance(k, int) or not 1 <= k <= max_k):
        raise ValueError(f"k must be a whole number from 1 to {max_k}, got {k}")
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be a whole number of at least 1, got {max_new_tokens}")
    if trace not in get_args(Detail):
        raise ValueError(f"trace must be one of {', '.join(get_args(Detail))}, got {trace!r}")
    if stop.strings and target.tokenizer is None:
        raise ValueError("stop strings need a tokenizer: load the model with one, or stop on token ids")
    longest = max(map(len, texts))
    if target.context is not None and longest + max_new_tokens > target.context:
        raise ValueError(
            f"the prompt has {longest} tokens and {max_new_tokens} new ones are wanted, "
            f"but the target's context is {target.context}: shorten one of them"
        )
    seeds = [seed + row for row in range(len(texts))] if isinstance(seed, int) else list(seed)
    if len(seeds) != len(texts) or any(not isinstance(s, int) or s < 0 for s in seeds):
        raise ValueError(f"seed must be a whole number of at least 0, or one for each of {len(texts)} rows, got {seed}")
    return seeds
