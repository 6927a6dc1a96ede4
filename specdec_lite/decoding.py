"""Naive and speculative decoding, at once or as a stream; `run` has the round they repeat."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

from .acceptance import Rule, TokenRejection
from .draft import Drafter, draft_size
from .loop import Run
from .models import LanguageModel, refresh_settings
from .prompts import Prompt, check_kinds, check_limits, is_single, to_token_ids
from .randomness import Randomness, SeededStreams
from .sampling.distributions import Sampler, Sampling
from .sampling.generation_config import is_config, read, warn_unused
from .sampling.processors import Chain, Processors, to_chains
from .stopping import IncrementalDetokenizer, Stop, before_stop
from .trace import Detail, Round, Trace

if TYPE_CHECKING:
    from transformers import GenerationConfig

MAX_K = 16
F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Decoded:
    """The result of a run. For one prompt `tokens` and `text` are plain, for a batch lists of them.

    Example:
        >>> made = sd.autoregressive(sd.TableModel(vocab_size=4), [[0], [1, 2]], max_new_tokens=3)
        >>> [len(row) for row in made.tokens]
        [3, 3]
        >>> made.text is None  # a model without a tokenizer
        True
    """

    tokens: Any  # list[int], or list[list[int]] for a batch: the new tokens, a stop token included
    text: Any  # str or list[str]: what the tokens add to the prompt's text, cut before a stop string; or None
    trace: Trace
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """New tokens of all rows over the wall-clock time, prefill included."""
        return self.trace.new_tokens / self.seconds


class TextOptions(TypedDict, total=False):
    """What every decoding function takes by keyword: `start` has the defaults, `speculative` the meanings."""

    max_new_tokens: int
    sampling: Sampling | GenerationConfig | None
    stop: Stop | None
    processors: Chain | Sequence[Chain] | None
    seed: int | Sequence[int]
    trace: Detail


class Options(TextOptions, total=False):
    """What a function that drafts takes besides."""

    k: int
    rule: Rule | None
    exact: bool


def start(
    target: LanguageModel,
    drafter: Drafter | None,
    prompt: Prompt,
    *,
    k: int = 4,
    max_new_tokens: int = 64,
    sampling: Sampling | GenerationConfig | None = None,
    stop: Stop | None = None,
    processors: Chain | Sequence[Chain] | None = None,
    seed: int | Sequence[int] = 0,
    rule: Rule | None = None,
    exact: bool = True,
    trace: Detail = "summary",
    randomness: Randomness | None = None,
) -> Run:
    """Check every argument, then prefill. Row r of a batch draws from seed + r, or from seed[r].

    Raises:
        ValueError, TypeError: an argument that cannot work, before any model runs.
    """
    check_kinds(target, drafter, k, sampling, stop, rule, exact)
    refresh_settings(target)
    texts = to_token_ids(prompt, target)
    stop = Stop(target.end_tokens) if stop is None else stop.of(target.end_tokens)
    seeds = check_limits(target, texts, k, MAX_K if drafter else 0, max_new_tokens, seed, stop, trace)
    warn_unused(target, sampling, processors)
    chains = to_chains(processors, texts, target.vocab_size, target.device)
    if is_config(sampling):
        lengths = list(map(len, texts))
        sampling, chains = read(sampling, lengths, max_new_tokens, target.end_tokens, target.device, chains)
        chains = to_chains(chains, texts, target.vocab_size, target.device)  # refused as a user's would be
    return Run(
        target,
        drafter,
        texts,
        k=k,
        max_new_tokens=max_new_tokens,
        sampler=Sampler(Sampling() if sampling is None else sampling, Processors(chains)),
        stop=stop,
        rule=TokenRejection() if rule is None else rule,
        randomness=SeededStreams(seeds, draft_size(drafter, k), target.device) if randomness is None else randomness,
        detail=trace,
    )


def show_options(options: type) -> Callable[[F], F]:
    """Let `help` and completion show each option with its default, instead of `**options`."""

    def decorate(function: F) -> F:
        shown = inspect.signature(function)
        own = [each for each in shown.parameters.values() if each.kind is not each.VAR_KEYWORD]
        given = [each for each in inspect.signature(start).parameters.values() if each.name in options.__annotations__]
        vars(function)["__signature__"] = shown.replace(parameters=own + given)
        return function

    return decorate


@show_options(Options)
def stream(
    target: LanguageModel, drafter: Drafter | None, prompt: Prompt, **options: Unpack[Options]
) -> Iterator[Round]:
    """Yield round after round; a batch's rows of one step follow each other (see `Round.row`).

    Leaving the loop early, by `break` or an interrupt, leaves models and drafter as they were.
    Arguments as for `speculative`, `drafter` None is naive decoding; they are checked at the call, not at
    the first round.

    Example:
        >>> target, draft = sd.TableModel(vocab_size=4, seed=0), sd.TableModel(vocab_size=4, seed=1)
        >>> for each in sd.stream(target, sd.ModelDrafter(draft), [0, 1], k=3, max_new_tokens=8, seed=1):
        ...     print(each.drafted, each.accepted, each.kept)
        [0, 0, 0] 0 [1]
        [3, 2, 2] 3 [3, 2, 2, 2]
        [2, 3] 2 [2, 3, 2]
    """
    if drafter is None:
        options["k"] = 0
    return _rounds(start(target, drafter, prompt, **options))


def _rounds(run: Run) -> Iterator[Round]:
    while run.unfinished:
        yield from run.round()


@show_options(Options)
def stream_text(
    target: LanguageModel, drafter: Drafter | None, prompt: Prompt, **options: Unpack[Options]
) -> Iterator[str]:
    r"""Yield text as it becomes certain; the pieces together are `Decoded.text`.

    A piece never ends inside a character, and what may be the beginning of a stop string waits.
    One prompt only; options as for `stream`.

    Raises:
        ValueError, TypeError: as `stream`; also a batch, or a model without a tokenizer.

    Example:
        >>> pair, how = sd.load_pair(), dict(max_new_tokens=8, sampling=sd.Sampling(temperature=0))
        >>> pieces = sd.stream_text(pair.target, sd.ModelDrafter(pair.draft), "def add(a, b):", **how)
        >>> "".join(pieces)
        ' pass\n        self.assertEqual(set(set'
    """
    if target.tokenizer is None:
        raise ValueError("text needs a tokenizer: load the model with one, or use stream() for tokens")
    if drafter is None:
        options["k"] = 0
    run = start(target, drafter, prompt, **options)
    if len(run.token_ids) > 1:
        raise ValueError(f"stream_text takes one prompt, got {len(run.token_ids)}: call it for each, or use stream()")
    return _pieces(run)


def _pieces(run: Run) -> Iterator[str]:
    text, begin, stop, tokenizer = run.token_ids[0], run.prompt_lengths[0], run.stop, run.target.tokenizer
    pieces, shown, waiting = (
        IncrementalDetokenizer(tokenizer, text),
        0,
        "",
    )  # characters shown, and text that may begin a stop string
    for each in _rounds(run):
        waiting += "".join(pieces.add(token) for token in each.kept)
        if each.ended:
            ready = before_stop(tokenizer, stop, text[:begin], text[begin:])[shown:]
        else:
            last = text[max(begin - 1, len(text) - stop.reach) :]
            ready = waiting[: max(0, len(waiting) - max(stop.begun(waiting), stop.pending(last, tokenizer.decode)))]
        if ready:
            yield ready
            shown, waiting = shown + len(ready), waiting[len(ready) :]


@show_options(Options)
def speculative(target: LanguageModel, drafter: Drafter, prompt: Prompt, **options: Unpack[Options]) -> Decoded:
    """Speculative decoding: the target's distribution, in fewer of its forwards.

    Args:
        target: whose distribution the text follows.
        drafter: who proposes.
        prompt: a string, token ids (a list, tensor or array, or a tokenizer's encoding, whose padding is
            left out) or chat messages ({"role": ..., "content": ...}), or a list of one of these for a
            batch. Ids of shape [1, n] are a batch of one. A string that begins with what the tokenizer
            puts before a text, as a rendered chat does, does not get it twice.
        k: tokens drafted a round, 1 to 16.
        max_new_tokens: never exceeded; at least 1.
        sampling: default temperature 1. A generation_config of transformers, such as `target.generation_config`,
            brings its own sampling and logits processors, which `processors` follow.
        stop: None for the model's own end-of-sequence ids, `Stop(strings=[...])` for strings besides them;
            `Stop()` never stops early.
        processors: logits processors that keep no state, applied before `sampling` to draft and
            target alike: functions (input_ids [1, n], scores [1, vocab]) -> scores, such as those of
            transformers. One list for all rows, or a list of lists, one for each row. They run on the
            host, so each place of a round may cost a synchronisation.
        seed: an integer, row r of a batch then draws from seed + r; or one for each row.
        rule: default `TokenRejection()`.
        exact: False accepts a rule that does not keep the target's distribution, such as `TypicalAcceptance()`.
        trace: "off", "summary" or "full" (keeps whole distributions: for small vocabularies).

    Returns:
        Decoded: tokens, text, trace, seconds.

    Raises:
        ValueError, TypeError: an argument that cannot work, before any model runs.

    Example:
        >>> pair, how = sd.load_pair(), dict(max_new_tokens=16, sampling=sd.Sampling(temperature=0))
        >>> made = sd.speculative(pair.target, sd.ModelDrafter(pair.draft), "def add(a, b):", **how)
        >>> naive = sd.autoregressive(pair.target, "def add(a, b):", **how)
        >>> made.tokens == naive.tokens
        True
        >>> len(made.trace.rounds) < len(naive.trace.rounds)
        True
    """
    began = time.perf_counter()
    return finish(start(target, drafter, prompt, **options), prompt, began)


@show_options(TextOptions)
def autoregressive(target: LanguageModel, prompt: Prompt, **options: Unpack[TextOptions]) -> Decoded:
    """Naive decoding, one token a forward. Arguments, result and errors as for `speculative`.

    Example:
        >>> target = sd.TableModel(vocab_size=4)
        >>> sd.autoregressive(target, [0, 1], max_new_tokens=5, sampling=sd.Sampling(temperature=0)).tokens
        [3, 3, 1, 1, 1]
    """
    began = time.perf_counter()
    return finish(start(target, None, prompt, k=0, **options), prompt, began)


def finish(run: Run, prompt: Prompt, began: float) -> Decoded:
    """Run to the end and collect the result."""
    made = Trace(
        list(_rounds(run)), run.k, [text[:n] for text, n in zip(run.token_ids, run.prompt_lengths, strict=True)]
    )
    seconds = time.perf_counter() - began
    tokens = [text[n:] for text, n in zip(run.token_ids, run.prompt_lengths, strict=True)]
    texts = None
    if run.target.tokenizer is not None:
        rows = zip(run.token_ids, run.prompt_lengths, strict=True)
        texts = [before_stop(run.target.tokenizer, run.stop, text[:n], text[n:]) for text, n in rows]
    if is_single(prompt):
        return Decoded(tokens[0], texts and texts[0], made, seconds)
    return Decoded(tokens, texts, made, seconds)
