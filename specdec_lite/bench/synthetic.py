"""Set the acceptance instead of measuring it, to time shapes for which nobody has weights.

How fast speculation runs depends on times and on how many guesses are kept. Random weights have the
times of trained ones, but no draft agrees with them. Here the verdict on a drafted token is a coin
that falls on "keep" with a set chance, while target and draft do all of their work. The text means
nothing, and whatever is measured so is *synthetic acceptance* and has to be called that.
"""

from __future__ import annotations

import copy
import json
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..acceptance import PerTokenRule
from ..decoding import Decoded, finish, start
from ..draft import Draft, DraftSession, Texts, one_hot_draft
from ..drafters.model import ModelDrafter
from ..kv_cache import KVCache
from ..messages import shown
from ..models import LanguageModel, TransformersModel
from ..prompts import Prompt
from ..randomness import Randomness
from ..stopping import Stop
from ..trace import Trace

LABEL = "synthetic acceptance"


class SyntheticRule(PerTokenRule):
    """Keep every drafted token with the same chance, whatever the models think. **Not exact.**

    The text follows neither model. `speculative` and its kin refuse this rule, since they promise
    the target's distribution; `synthetic` takes it and labels the result.
    """

    exact = False

    def __init__(self, agreement: float) -> None:
        if not 0 <= agreement <= 1:
            raise ValueError(f"agreement is the chance to keep a drafted token, from 0 to 1, got {agreement}")
        self.agreement = agreement

    def accept_prob(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        return torch.full(tokens.shape, self.agreement, dtype=p_target.dtype, device=tokens.device)

    def recovered_probs(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        return p_target


class SyntheticDrafter:
    """Proposes at the cost of a draft model's forwards, or at none; `synthetic` decides what is kept.

    Its proposals are honest (`probs` is what the tokens were drawn from), so that with an exact rule
    it is a drafter like any other and the acceptance is the real one.

    Args:
        model: runs as a draft would; None proposes the same token over and over, for free.
        agreement: chance, for every token, that the verdict keeps it.
    """

    def __init__(self, model: LanguageModel | None = None, agreement: float = 0.8) -> None:
        self.model, self.rule = model, SyntheticRule(agreement)

    def open(self, texts: Texts, target: LanguageModel, cache: KVCache) -> DraftSession:
        if self.model is None:
            return FreeSession(target.vocab_size, target.device)
        return ModelDrafter(self.model).open(texts, target, cache)


class FreeSession:
    """Token 0 every time, from a draft made once."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self.vocab_size, self.device = vocab_size, device
        self.made: dict[tuple[int, int], Draft] = {}  # by rows and k

    def max_draft_tokens(self, length: int) -> int:
        return 10**9

    def propose(self, texts: Texts, k: int, sampler: Any, randomness: Randomness) -> Draft:
        wanted = len(texts), k
        if wanted not in self.made:
            self.made[wanted] = one_hot_draft([[0] * k for _ in texts], self.vocab_size, self.device)
        return self.made[wanted]


@dataclass
class SyntheticTrace(Trace):
    """A trace whose acceptance was set. It says so wherever it is written down."""

    agreement: float = 0.0
    label: str = LABEL

    def to_json(self) -> str:
        return json.dumps(json.loads(super().to_json()) | {"label": self.label})


@dataclass
class SyntheticDecoded(Decoded):
    """A result whose times are real and whose acceptance was set: no `text`, since it would mean nothing."""

    label: str = LABEL


def synthetic(
    target: LanguageModel, drafter: SyntheticDrafter, prompt: Prompt, *, k: int = 4, **options: Any
) -> SyntheticDecoded:
    """Decode as `speculative` does, with the acceptance that the drafter sets.

    Target, cache, sampling and book-keeping do all they would do; only the verdicts are set. Nothing
    ends the text before its length.

    Args:
        target, prompt, k, options: as for `speculative`, without `rule` and `stop`.
        drafter: with its `agreement`.

    Raises:
        ValueError, TypeError: as `speculative`; also another kind of drafter.
    """
    if not isinstance(drafter, SyntheticDrafter):
        raise TypeError(f"drafter must be a SyntheticDrafter, whose agreement is set, got {shown(drafter)}")
    began = time.perf_counter()
    run = start(target, drafter, prompt, k=k, stop=Stop(), rule=None, **options)
    run.rule = drafter.rule
    made = finish(run, prompt, began)
    trace = SyntheticTrace(made.trace.rounds, made.trace.k, made.trace.prompts, drafter.rule.agreement)
    return SyntheticDecoded(made.tokens, None, trace, made.seconds)


NOISE = 0.35  # of a matrix' own spread


@torch.no_grad()
def noisy_draft(draft: TransformersModel, noise: float = NOISE, seed: int = 0) -> TransformersModel:
    """A copy whose matrices are off by `noise` times their spread, with the same engine."""
    module = copy.deepcopy(draft.module)
    generator = torch.Generator(draft.device).manual_seed(seed)
    for weight in module.parameters():
        if weight.ndim > 1:
            drawn = torch.randn(weight.shape, generator=generator, device=weight.device, dtype=weight.dtype)
            weight += noise * weight.std() * drawn
    return TransformersModel(module, draft.tokenizer, draft.engine.name)
