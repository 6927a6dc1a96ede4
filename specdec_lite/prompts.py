"""What a user passes in, checked before any model runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, get_args

from torch import Tensor

from .acceptance import PerTokenRule, Rule
from .draft import Drafter, DraftsTrees
from .messages import shown
from .models import LanguageModel
from .sampling.distributions import Sampling
from .sampling.generation_config import is_config
from .stopping import Stop
from .trace import Detail

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

Chat = Sequence[Mapping[str, Any]]  # messages: {"role": "user", "content": "..."}
Encoding = Mapping[str, Any]  # what a tokenizer gives: input_ids, and perhaps attention_mask
One = str | Sequence[int] | Chat | Tensor | Encoding  # a tensor, or an array, of shape [n]
Prompt = One | Sequence[One]  # or [batch, n]


class Array(Protocol):
    """A tensor, or an array of numpy's kind."""

    ndim: int
    shape: Sequence[int]
    dtype: object

    def tolist(self) -> list[Any]: ...


def is_array(value: object) -> TypeGuard[Array]:
    return hasattr(value, "ndim") and hasattr(value, "dtype")


def is_single(prompt: Prompt) -> bool:
    """Whether this is one prompt, and not a batch: what has the shape [1, n] is a batch of one."""
    ids = prompt["input_ids"] if isinstance(prompt, Mapping) else prompt
    if isinstance(ids, str):
        return True
    first = ids[0]
    return isinstance(first, int) or _rank(first) == 0 or (isinstance(first, Mapping) and "input_ids" not in first)


def to_token_ids(prompt: Prompt, target: LanguageModel) -> list[list[int]]:
    """A string, token ids, chat messages, a tokenizer's encoding, or a list of these -> one list of ids for each row.

    Token ids are a list, a tensor or an array of any integer type: [n], or [batch, n] for a batch. What an
    encoding's attention_mask hides is left out. A string that begins with what the tokenizer puts before a
    text, as a rendered chat does, does not get it twice.

    Raises:
        TypeError: something else, or ids that are no whole numbers.
        ValueError: nothing in it, a token outside the vocabulary, a string without a tokenizer, another
            shape, messages without a chat template or such as it does not take.
    """
    plain = _plain(prompt)
    if not isinstance(plain, Sequence) or isinstance(plain, bytes):
        raise TypeError(
            "prompt must be a string, token ids, chat messages, a tokenizer's encoding, or a list of one of these, "
            f"got {type(plain).__name__}"
        )
    if not plain:
        raise ValueError("prompt is empty: give at least one token to continue from")
    return [_row(row, target) for row in ([plain] if is_single(plain) else plain)]


def _row(row: object, target: LanguageModel) -> list[int]:
    if isinstance(row, str):
        if target.tokenizer is None:
            raise ValueError("a string prompt needs a tokenizer: load the model with one, or pass token ids")
        row = encode(row, target.tokenizer)
    elif isinstance(row, Mapping) or _rank(row):
        row = _only(_plain(row))
    elif isinstance(row, Sequence) and any(isinstance(each, Mapping) for each in row):
        row = _chat(row, target)
    if not isinstance(row, Sequence) or isinstance(row, bytes):
        raise TypeError(f"each prompt must be a string or a list of token ids, got {shown(row)}")
    for token in row:
        whole = isinstance(token, int) and not isinstance(token, bool)
        if not whole and not (_rank(token) == 0 and "int" in str(token.dtype)):
            raise TypeError(f"a token id must be an int, got {shown(token)}")
    row = [int(token) for token in row]
    if not row:
        raise ValueError("a prompt is empty: give at least one token to continue from")
    for token in row:
        if not 0 <= token < target.vocab_size:
            raise ValueError(f"token {token} is outside the vocabulary (0 to {target.vocab_size - 1})")
    return row


def _rank(value: object) -> int | None:
    """How many dimensions a tensor or an array has; None for anything else."""
    return value.ndim if is_array(value) else None


def _plain(prompt: object) -> object:
    """Tensors, arrays and encodings as lists; anything else as it is."""
    if isinstance(prompt, Mapping):
        if "input_ids" not in prompt:
            raise ValueError(
                f"a dict prompt needs input_ids, as tokenizers give them, got the keys {shown(list(prompt))}; "
                "a chat is a list of messages"
            )
        ids, mask = _plain(prompt["input_ids"]), prompt.get("attention_mask")
        return ids if mask is None else _shown(ids, mask.tolist() if hasattr(mask, "tolist") else mask)
    if not is_array(prompt):
        return prompt
    if prompt.ndim not in (1, 2):
        raise ValueError(f"token ids must have the shape [n] or [batch, n], got {list(prompt.shape)}")
    if 0 not in prompt.shape and "int" not in str(prompt.dtype):
        raise TypeError(f"a token id must be an int, got a {type(prompt).__name__} of {prompt.dtype}")
    return prompt.tolist()


def _shown(ids: object, mask: object) -> list[Any]:
    """The ids, or rows of ids, where the mask is 1."""
    if not isinstance(ids, Sequence) or not isinstance(mask, Sequence) or len(ids) != len(mask):
        raise ValueError(f"attention_mask must have the shape of input_ids, got {shown(mask)} for {shown(ids)}")
    ids = [_plain(each) for each in ids]
    if any(isinstance(each, Sequence) for each in ids):
        return [
            _shown(row, each.tolist() if hasattr(each, "tolist") else each) for row, each in zip(ids, mask, strict=True)
        ]
    if any(each not in (0, 1) for each in mask):
        raise ValueError(f"attention_mask must be 1 where a token counts and 0 elsewhere, got {shown(mask)}")
    return [token for token, each in zip(ids, mask, strict=True) if each]


def _only(ids: object) -> object:
    """The row of a batch of one, which tokenizers give where they are asked for tensors."""
    if isinstance(ids, Sequence) and ids and isinstance(ids[0], Sequence):
        if len(ids) > 1:
            raise ValueError(f"a prompt in a list must be one row, got {len(ids)}: pass the batch alone, or its rows")
        return ids[0]
    return ids


def encode(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """With what the tokenizer adds (a beginning of text, say), but not before a text that begins with it."""
    ids, written = tokenizer.encode(text), tokenizer.encode(text, add_special_tokens=False)
    for added in range(len(ids) - len(written), 0, -1):
        if ids[added:][: len(written)] == written and ids[:added] == written[:added]:
            return ids[added:]
    return ids


def _chat(messages: Chat, target: LanguageModel) -> list[int]:
    """Messages in the tokenizer's own chat format, up to where the next answer begins or the last one goes on."""
    for message in messages:
        if not isinstance(message, Mapping):
            raise TypeError(
                f"a chat message must be a dict, such as {{'role': ..., 'content': ...}}, got {shown(message)}"
            )
    if not getattr(target.tokenizer, "chat_template", None):
        raise ValueError("chat messages need a tokenizer with a chat template, and this one has none: pass a string")
    render, messages = target.tokenizer.apply_chat_template, [dict(message) for message in messages]
    last = messages[-1]
    goes_on = last.get("role") == "assistant" and last.get("content") is not None and not last.get("tool_calls")
    try:
        made = render(messages, add_generation_prompt=not goes_on, continue_final_message=goes_on, return_dict=True)
    except ImportError:
        raise
    except Exception as error:  # whatever a template raises
        at = _refused(messages, str(error), render)
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"the chat template says of message {at}: {said:.200}; got {shown(messages[at], 200)}"
        ) from error
    return list(made["input_ids"])


def _refused(messages: Chat, said: str, render: Callable[..., Any]) -> int:
    """Which message first makes the template say that; the last one, if only all of them do."""
    for at in range(len(messages)):
        try:
            render(messages[: at + 1], add_generation_prompt=True, tokenize=False)
        except Exception as error:
            if str(error) == said:
                return at
    return len(messages) - 1


def check_kinds(
    target: LanguageModel,
    drafter: Drafter | None,
    k: int,
    sampling: Sampling | GenerationConfig | None,
    stop: Stop | None,
    rule: Rule | None,
    exact: bool,
) -> None:
    """Refuse an argument of the wrong kind, with what to pass instead.

    Raises:
        TypeError: which one.
        ValueError: `exact`, and the rule is not; a rule that cannot verify what the drafter drafts.
    """
    if drafter is None and k:
        raise TypeError("drafter is None: pass ModelDrafter(pair.draft), or call autoregressive() to draft nothing")
    samples = isinstance(sampling, Sampling) or is_config(sampling)
    for name, value, fits, remedy in (
        ("target", target, _has(target, "new_cache"), "a TransformersModel, such as load_pair().target"),
        ("drafter", drafter, drafter is None or _has(drafter, "open"), "a drafter, such as ModelDrafter(pair.draft)"),
        ("sampling", sampling, sampling is None or samples, "Sampling(temperature=...) or a model's generation_config"),
        ("stop", stop, stop is None or isinstance(stop, Stop), "Stop(token_ids=[...], strings=[...])"),
        ("rule", rule, rule is None or _has(rule, "pass_probs", "exact"), "a rule, such as TokenRejection()"),
    ):
        if not fits:
            raise TypeError(f"{name} must be {remedy}, got {shown(value)}")
    if exact and rule is not None and not rule.exact:
        raise ValueError(
            f"{type(rule).__name__} is not exact, and this promises the target's distribution: "
            "pass exact=False to decode with it all the same"
        )
    if isinstance(drafter, DraftsTrees) and not (rule is None or isinstance(rule, PerTokenRule)):
        raise ValueError(
            f"{type(rule).__name__} verifies a chain and {type(drafter).__name__} drafts a tree: "
            "take a rule for single tokens, such as TokenRejection()"
        )


def _has(value: object, *names: str) -> bool:
    return all(hasattr(value, name) for name in names) and not isinstance(value, type)  # a class lacks its parentheses


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
        raise ValueError(f"k must be a whole number from 1 to {max_k}, got {shown(k)}")
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be a whole number of at least 1, got {shown(max_new_tokens)}")
    if trace not in get_args(Detail):
        raise ValueError(f"trace must be one of {', '.join(get_args(Detail))}, got {shown(trace)}")
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
        raise ValueError(f"seed must be a whole number from 0 to 2**64 - 1, or one for each row, got {shown(seed)}")
    return list(seeds)
