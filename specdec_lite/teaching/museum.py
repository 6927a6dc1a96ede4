"""Famous bugs of speculative decoding, each a switch, and the test that catches each.

Three classes, kept apart. *Biased*: the text no longer follows the target. *Exact but slow*: it does,
since `p_draft` is still what was sampled, but fewer drafts survive. *Exact*: nothing wrong. A bug
hides from the tests meant for another class, so every exhibit names the one that sees it:

- "enumeration": `theory.exact`, every path of the real loop against the target alone;
- "twin": a draft identical to the target must have every token accepted;
- "pairs": frequencies of seeded pairs of tokens against the target, by chi-square.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..acceptance import Rule, TokenRejection
from ..cache import Arena
from ..decoding import Decoded, finish, start
from ..distributions import Sampler, Sampling, probabilities
from ..drafters import Draft, Drafter, ModelDrafter, ModelDraftSession, Texts
from ..models import LanguageModel
from ..randomness import Randomness, SeededStreams
from ..stopping import Stop
from ..theory.exact import Distribution, sequence_distribution
from ..trace import Detail


@dataclass(frozen=True)
class Setup:
    """All that an exhibit may tamper with."""

    target: LanguageModel
    drafter: Drafter
    rule: Rule = TokenRejection()
    streams: type[SeededStreams] = SeededStreams

    def decode(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int],
        k: int = 4,
        max_new_tokens: int = 8,
        sampling: Sampling | None = None,
        trace: Detail = "summary",
    ) -> Decoded:
        """Run it for a batch of token prompts. Otherwise as `speculative`, errors included."""
        began = time.perf_counter()
        run = start(
            self.target, self.drafter, prompts, k=k, max_new_tokens=max_new_tokens, sampling=sampling, stop=Stop(),
            seed=seeds, rule=self.rule, trace=trace, randomness=self.streams(seeds, k, self.target.device),
        )  # fmt: skip
        return finish(run, prompts, began)

    def enumerate(
        self, prompt: Sequence[int], *, k: int = 2, max_new_tokens: int = 4, sampling: Sampling | None = None
    ) -> Distribution:
        """Its distribution over texts. One row at a time: a broken cache may feel its neighbours."""
        return sequence_distribution(
            self.target, self.drafter, prompt, k=k, max_new_tokens=max_new_tokens, sampling=sampling, stop=Stop(),
            rule=self.rule, rows=1,
        )  # fmt: skip


@dataclass(frozen=True)
class Exhibit:
    """One bug. `make(target, draft)` builds the decoder that has it."""

    name: str
    kind: Literal["biased", "exact but slow", "exact"]
    make: Callable[[LanguageModel, LanguageModel], Setup]
    caught_by: Literal["enumeration", "twin", "pairs"] | None
    story: str


class ResampleFromTarget(TokenRejection):
    """BUG: the replacement of a rejected token is drawn from the target instead of the residual.

    Tokens that the draft likes too much get a second chance at a rejection, so they come too often.
    """

    def correction(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        return p_target


class UnfilteredSession(ModelDraftSession):
    """BUG: draws from the filtered distribution (top-k, top-p, min-p) but reports the one before the filter.

    `p_draft` is then not what was sampled: it is too small for what is drawn, so too much is kept.
    """

    def propose(self, texts: Texts, k: int, sampler: Sampler, randomness: Randomness) -> Draft:
        unfiltered = replace(sampler, sampling=Sampling(temperature=sampler.sampling.temperature))
        filtered = FilteredDraws(randomness, replace(sampler.sampling, temperature=1.0))
        return super().propose(texts, k, unfiltered, filtered)


class FilteredDraws:
    """Randomness that filters what it is asked to draw from, and tells nobody."""

    def __init__(self, randomness: Randomness, sampling: Sampling) -> None:
        self.randomness, self.sampling = randomness, sampling

    def begin_round(self) -> None:
        self.randomness.begin_round()

    def sample(self, probs: Tensor) -> Tensor:
        return self.randomness.sample(probabilities(probs.log(), self.sampling))

    def accepted_prefix(self, chance: Tensor) -> tuple[Tensor, Tensor]:
        return self.randomness.accepted_prefix(chance)


class ForgetfulSession(ModelDraftSession):
    """BUG: the last drafted token is never fed to the draft, although it was accepted.

    After a fully accepted round the draft's cache lacks one token for good, and its next guesses
    are made from a text with a hole in it.
    """

    def unfed(self, texts: Texts) -> int:
        return 1


@dataclass(frozen=True)
class DraftWith:
    """A `ModelDrafter` with a session of one's own."""

    model: LanguageModel
    session: type[ModelDraftSession]

    def open(self, texts: Texts, capacity: int, vocab_size: int, device: torch.device) -> ModelDraftSession:
        return self.session(self.model, texts, capacity, vocab_size)


class SlackArena(Arena):
    """BUG: forgets one token fewer than it is told, so a rejected token stays in sight."""

    def rewind(self, tokens: list[int]) -> None:
        super().rewind([max(0, n - 1) for n in tokens])


class SlackRewind:
    """A model whose caches are `SlackArena`s; otherwise the model that it wraps.

    As a target it is biased, as a draft exact but slow: the same bug, twice.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model, self.vocab_size, self.context, self.device = model, model.vocab_size, model.context, model.device
        self.tokenizer, self.end_tokens = model.tokenizer, model.end_tokens

    def new_cache(self, batch: int, capacity: int) -> Arena:
        return SlackArena(batch, 2 * capacity, self.device)  # each round may leave one token too many

    def forward(self, tokens: Tensor, cache: Arena, last_only: bool = False) -> Tensor:
        return self.model.forward(tokens, cache, last_only)


class OneUniform(SeededStreams):
    """BUG: a round draws one number to draft and one to accept, and uses them at every position.

    Each token by itself looks right; neighbours move together. Enumeration can't see it, since it
    stands in for the numbers.
    """

    def begin_round(self) -> None:
        super().begin_round()
        self.draft = self.draft[:, :1].expand(-1, self.k)
        self.accept = self.accept[:, :1].expand(-1, self.k)


MUSEUM: Sequence[Exhibit] = (
    Exhibit(
        "nothing wrong", "exact", lambda target, draft: Setup(target, ModelDrafter(draft)), None,
        "The control: no test may ring.",
    ),
    Exhibit(
        "resample from the target", "biased",
        lambda target, draft: Setup(target, ModelDrafter(draft), ResampleFromTarget()), "enumeration",
        "The residual looks like a detail, so the replacement is drawn from the target.",
    ),
    Exhibit(
        "p_draft before top-k", "biased",
        lambda target, draft: Setup(target, DraftWith(draft, UnfilteredSession)), "enumeration",
        "Logits are filtered where tokens are drawn, and p_draft is a softmax taken earlier.",
    ),
    Exhibit(
        "target cache rewound one too few", "biased",
        lambda target, draft: Setup(SlackRewind(target), ModelDrafter(draft)), "enumeration",
        "Off by one: the rejected token stays in the target's cache, and everything after it shifts.",
    ),
    Exhibit(
        "one uniform for every position", "biased",
        lambda target, draft: Setup(target, ModelDrafter(draft), streams=OneUniform), "pairs",
        "One random number a round, broadcast over the positions.",
    ),
    Exhibit(
        "draft cache rewound one too few", "exact but slow",
        lambda target, draft: Setup(target, ModelDrafter(SlackRewind(draft))), "twin",
        "The same off by one, in the draft: the text stays right and acceptance falls.",
    ),
    Exhibit(
        "last draft token not fed", "exact but slow",
        lambda target, draft: Setup(target, DraftWith(draft, ForgetfulSession)), "twin",
        "After full acceptance the draft has never seen its own last token.",
    ),
)  # fmt: skip
