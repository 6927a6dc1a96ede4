"""What a user passes in, checked before any model runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from .acceptance import Rule
from .distributions import Sampling
from .drafters import Drafter
from .models import LanguageModel
from .stopping import Stop
from .trace import Detail

Chat = Sequence[Mapping[str, Any]]  # messages: {"role": "user", "content": "..."}
One = str | Sequence[int] | Chat
Prompt = One | Sequence[One]


def is_single(prompt: Prompt) -> bool:
    """Whether this is one prompt, and not a batch."""
    return isinstance(prompt, str) or isinstance(prompt[0], int | Mapping)


def to_token_ids(prompt: Prompt, target: LanguageModel) -> list[list[int]]:
    """A string, token ids, chat messages, or a list of one of these -> one list of ids for each row.

    Raises:
        TypeError: something else.
        ValueError: nothing in it, a token outside the vocabulary, a string without a tokenizer, messages
            without a chat template.
    """
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes):
        got = type(prompt).__name__ + _remedy(prompt)
        raise TypeError(f"prompt must be a string, token ids, chat messages, or a list of one of these, got {got}")
    if not prompt:
        raise ValueError("prompt is empty: give at least one token to continue from")
    return [_row(row, target) for row in ([prompt] if is_single(prompt) else prompt)]


def _row(row: object, target: LanguageModel) -> list[int]:
    if isinstance(row, str):
        if target.tokenizer is None:
            raise ValueError("a string prompt needs a tokenizer: load the model with one, or pass token ids")
        row = target.tokenizer.encode(row)
    elif isinstance(row, Sequence) and any(isinstance(each, Mapping) for each in row):
        row = _chat(row, target)
    if not isinstance(row, Sequence) or isinstance(row, bytes):
        raise TypeError(f"each prompt must be a string or a list of token ids, got {row!r:.80}{_remedy(row)}")
    for token in row:
        if not isinstance(token, int) or isinstance(token, bool):
            raise TypeError(f"a token id must be an int, got {token!r:.80}{_remedy(token)}")
    if not row:
        raise ValueError("a prompt is empty: give at least one token to continue from")
    for token in row:
        if not 0 <= token < target.vocab_size:
            raise ValueError(f"token {token} is outside the vocabulary (0 to {target.vocab_size - 1})")
    return list(row)


def _chat(messages: Chat, target: LanguageModel) -> list[int]:
    """Messages in the tokenizer's own chat format, up to where the next answer begins or the last one goes on."""
    for message in messages:
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise TypeError(f"a chat message must be a dict with 'role' and 'content', got {message!r:.80}")
    if not getattr(target.tokenizer, "chat_template", None):
        raise ValueError("chat messages need a tokenizer with a chat template, and this one has none: pass a string")
    answering = messages[-1]["role"] == "assistant"
    made = target.tokenizer.apply_chat_template(
        messages, add_generation_prompt=not answering, continue_final_message=answering, return_dict=True
    )
    return list(made["input_ids"])


def _remedy(value: object) -> str:
    if hasattr(value, "tolist"):  # a tensor or an array
        return ": pass what its .tolist() gives"
    return ": pass its input_ids" if hasattr(value, "input_ids") else ""


def check_kinds(
    target: LanguageModel,
    drafter: Drafter | None,
    k: int,
    sampling: Sampling | None,
    stop: Stop | None,
    rule: Rule | None,
) -> None:
    """Refuse an argument of the wrong kind, with what to pass instead.

    Raises:
        TypeError: which one.
        ValueError: a rule that says it is not exact.
    """
    if drafter is None and k:
        raise TypeError("drafter is None: pass ModelDrafter(pair.draft), or call autoregressive() to draft nothing")
    for name, value, fits, remedy in (
        ("target", target, _has(target, "new_cache"), "a TransformersModel, such as load_pair().target"),
        ("drafter", drafter, drafter is None or _has(drafter, "open"), "a drafter, such as ModelDrafter(pair.draft)"),
        ("sampling", sampling, sampling is None or isinstance(sampling, Sampling), "Sampling(temperature=...)"),
        ("stop", stop, stop is None or isinstance(stop, Stop), "Stop(token_ids=[...], strings=[...])"),
        ("rule", rule, rule is None or _has(rule, "chance"), "a rule, such as TokenRejection()"),
    ):
        if not fits:
            raise TypeError(f"{name} must be {remedy}, got {value!r:.80}")
    if not getattr(rule, "exact", True):
        raise ValueError(
            f"{type(rule).__name__} is not exact, and this promises the target's distribution: "
            "call specdec_lite.synthetic.synthetic(), whose result says 'synthetic acceptance'"
        )


def _has(value: object, method: str) -> bool:
    return hasattr(value, method) and not isinstance(value, type)  # a class lacks its parentheses


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
        raise ValueError(f"k must be a whole number from 1 to {max_k}, got {k!r}")
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be a whole number of at least 1, got {max_new_tokens!r}")
    if trace not in get_args(Detail):
        raise ValueError(f"trace must be one of {', '.join(get_args(Detail))}, got {trace!r}")
    if stop.strings and target.tokenizer is None:
        raise ValueError("stop strings need a tokenizer: load the model with one, or stop on token ids")
    longest = max(map(len, texts))
    if target.context is not None and longest + max_new_tokens > target.context:
        cause = getattr(target, "context_reason", None)
        reason = f" ({cause})" if cause else ""
        raise ValueError(
            f"the prompt has {longest} tokens and {max_new_tokens} new ones are wanted, "
            f"but the target's context is {target.context}{reason}: shorten one of them"
        )
    seeds = [seed + row for row in range(len(texts))] if isinstance(seed, int) else seed
    fits = isinstance(seeds, Sequence) and len(seeds) == len(texts)
    if not fits or any(not isinstance(s, int) or not 0 <= s < 2**64 for s in seeds):
        raise ValueError(f"seed must be a whole number from 0 to 2**64 - 1, or one for each row, got {seed!r:.80}")
    return list(seeds)
