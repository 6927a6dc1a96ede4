"""Logits processors: changes to the scores before they become a distribution, such as a repetition penalty.

transformers' `LogitsProcessor`s and warpers have this form, and so may a function of one's own:
(input_ids [1, n], scores [1, vocab]) -> scores [1, vocab]. Speculation looks at several places of
a text at once, so each place gets the prefix that holds there (the drafted tokens before it
included, no padding) and its own copy of the scores; draft and target alike. That is only right
for a processor that keeps no state between calls: a rejected token would stay in its memory.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..messages import shown

Processor = Callable[[Tensor, Tensor], Tensor]
Chain = Sequence[Processor]
Prefixes = Sequence[Sequence[int]]  # for each place, which drafted tokens come before it

KEEP_STATE = {"SynthIDTextWatermarkLogitsProcessor", "DiaEOSDelayPatternLogitsProcessor", "WhisperNoSpeechDetection"}
RUN_A_MODEL = {"UnbatchedClassifierFreeGuidanceLogitsProcessor"}
WANT_PAIRED_ROWS = {"ClassifierFreeGuidanceLogitsProcessor", "DiaClassifierFreeGuidanceLogitsProcessor"}
# These look up the row's place in the batch, and each row is alone here.
KNOW_THE_ROW = {
    "PrefixConstrainedLogitsProcessor",
    "EncoderRepetitionPenaltyLogitsProcessor",
    "EncoderNoRepeatNGramLogitsProcessor",
}
# These were given the length of the prompt.
KNOW_THE_LENGTH = {
    "MinNewTokensLengthLogitsProcessor",
    "ExponentialDecayLengthPenalty",
    "SuppressTokensAtBeginLogitsProcessor",
}


class Processors:
    """The processors of each row of a batch, in the order in which they are applied."""

    def __init__(self, rows: Sequence[Chain] = ()) -> None:
        self.rows = rows

    def __bool__(self) -> bool:
        return any(self.rows)

    def __call__(
        self, scores: Tensor, texts: Sequence[Sequence[int]], tokens: Tensor, before: Prefixes | None = None
    ) -> Tensor:
        """Process the last n places of texts + tokens, or of a tree after the tokens `before` each place.

        scores [batch, n, vocab], tokens [batch, m] drafted after the texts, n <= m + 1
        -> [batch, n, vocab]; `scores` stays as it was.

        Raises:
            ValueError: a processor returned something else than scores for this one row.
        """
        done = scores.clone()
        n, m = scores.shape[1], tokens.shape[1]
        prefixes = [range(m + 1 - n + place) for place in range(n)] if before is None else before
        for row, chain in enumerate(self.rows):
            text = torch.tensor(texts[row], device=tokens.device)
            for place in range(n if chain else 0):
                prefix = torch.cat([text, tokens[row, list(prefixes[place])]])  # [length + drafted before the place]
                done[row, place] = apply(chain, prefix, scores[row, place])
        return done


def apply(chain: Chain, prefix: Tensor, scores: Tensor) -> Tensor:
    """Every processor of the chain, on copies. prefix [n], scores [vocab] -> [vocab]"""
    ids, scores = prefix[None].clone(), scores[None].clone()  # [1, n], [1, vocab]
    for processor in chain:
        made = processor(ids, scores)
        if not isinstance(made, Tensor) or made.shape != scores.shape:
            got = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise ValueError(f"{name(processor)} must return scores of shape {tuple(scores.shape)}, got {got}")
        scores = made
    return scores[0]


def name(processor: Any) -> str:
    kind = type(processor).__name__
    return getattr(processor, "__name__", kind) if kind == "function" else kind


def to_chains(
    processors: Chain | Sequence[Chain] | None,
    texts: Sequence[Sequence[int]],
    vocab_size: int,
    device: torch.device | str = "cpu",
) -> list[Chain]:
    """What a user passes as `processors` -> a chain for each row, each tried on the prompt.

    Raises:
        TypeError: not a list of callables, or one such list for each row.
        ValueError: a processor that can't be right under speculation, by name.
    """
    if processors is None:
        processors = []
    if not isinstance(processors, list | tuple):
        raise TypeError(f"processors must be a list of them, or one list for each prompt, got {shown(processors)}")
    own = bool(processors) and all(isinstance(each, list | tuple) for each in processors)
    if own and len(processors) != len(texts):
        raise ValueError(f"processors has {len(processors)} lists for {len(texts)} prompts: give one for each row")
    chains: list[Chain] = list(processors) if own else [processors] * len(texts)
    for chain, text in zip(chains[: len(texts) if own else 1], texts, strict=False):
        for processor in chain:
            if not callable(processor) or isinstance(processor, type):
                raise TypeError(f"a logits processor must be called with (input_ids, scores), got {shown(processor)}")
            refuse_known(processor)
            refuse_memory(processor, torch.tensor(text, device=device), vocab_size)
            if not own:
                refuse_shared(processor, texts)
    return chains


def refuse_known(processor: Processor) -> None:
    """Refuse those of transformers that can't work, subclasses included."""
    kinds = {kind.__name__ for kind in type(processor).__mro__}
    for listed, why in (
        (KEEP_STATE, "keeps state between calls, and tokens that are rejected later would stay in it"),
        (RUN_A_MODEL, "runs a model of its own, whose cache nothing rewinds after a rejection"),
        (WANT_PAIRED_ROWS, "wants rows in pairs, and each row is processed alone"),
    ):
        if kinds & listed:
            raise ValueError(f"{name(processor)} {why}: speculative decoding with it would not be exact")


def refuse_shared(processor: Processor, texts: Sequence[Sequence[int]]) -> None:
    """Refuse one processor for several rows where it was made for a single row."""
    kinds = {kind.__name__ for kind in type(processor).__mro__}
    ragged = len({len(text) for text in texts}) > 1
    if (kinds & KNOW_THE_ROW and len(texts) > 1) or (kinds & KNOW_THE_LENGTH and ragged):
        what = "its place in the batch" if kinds & KNOW_THE_ROW else "the length of its prompt"
        raise ValueError(f"{name(processor)} depends on a row and {what}: pass a list of lists, one for each prompt")


def refuse_memory(processor: Processor, text: Tensor, vocab_size: int) -> None:
    """Ask one question twice with another between: who answers differently has a memory, or rolls dice. text [n]"""
    drawn = torch.randn(vocab_size, generator=torch.Generator().manual_seed(0), device="cpu")
    scores = drawn.to(text.device)  # [vocab]
    strange = sorted(set(range(vocab_size)) - set(text.tolist())) or [0]
    another = random.Random().choice(strange)  # one that a memory is not likely to hold from the last time
    longer = torch.cat([text, text.new_tensor([another])])  # [n + 1]
    first, _, again = (apply([processor], prefix, scores) for prefix in (text, longer, text))
    if not torch.equal(first, again):
        raise ValueError(
            f"{name(processor)} answers one question in two ways: it keeps state between calls or is random, "
            "and speculative decoding with it would not be exact"
        )
