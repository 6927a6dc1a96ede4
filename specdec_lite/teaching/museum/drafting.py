"""Drafters that do not say what they sampled, or have not read what was written."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from ...draft import Draft, Texts
from ...drafters.model import ModelDraftSession
from ...kv_cache import KVCache
from ...models import LanguageModel
from ...randomness import AcceptedLength, Randomness
from ...sampling.distributions import Sampler, Sampling, probabilities


@dataclass(frozen=True)
class DraftWith:
    """A `ModelDrafter` with a session of one's own."""

    model: LanguageModel
    session: type[ModelDraftSession]

    def open(self, texts: Texts, target: LanguageModel, cache: KVCache) -> ModelDraftSession:
        return self.session(self.model, texts, cache.capacity, target.vocab_size)


class FilteredDraws:
    """Randomness that filters what it is asked to draw from, and tells nobody."""

    def __init__(self, randomness: Randomness, sampling: Sampling) -> None:
        self.randomness, self.sampling = randomness, sampling

    def begin_round(self) -> None:
        self.randomness.begin_round()

    def sample(self, probs: Tensor) -> Tensor:
        return self.randomness.sample(probabilities(probs.log(), self.sampling))

    def accept(self, pass_probs: Tensor, accepted_length: AcceptedLength) -> tuple[Tensor, Tensor]:
        return self.randomness.accept(pass_probs, accepted_length)


class FavouriteSession(ModelDraftSession):
    """Proposes its favourite, always, and reports the whole distribution beside it.

    BUG with a rule that divides by p_draft: what was sampled is one-hot. No harm with a rule that takes
    p_draft for a ranking, such as `TriedInTurn`.
    """

    def propose(self, texts: Texts, k: int, sampler: Sampler, randomness: Randomness) -> Draft:
        return super().propose(texts, k, sampler, FilteredDraws(randomness, Sampling(temperature=0)))


class UnfilteredSession(ModelDraftSession):
    """BUG: draws from the filtered distribution (top-k, top-p, min-p) but reports the one before the filter.

    `p_draft` is then not what was sampled: it is too small for what is drawn, so too much is kept.
    """

    def propose(self, texts: Texts, k: int, sampler: Sampler, randomness: Randomness) -> Draft:
        unfiltered = replace(sampler, sampling=Sampling(temperature=sampler.sampling.temperature))
        filtered = FilteredDraws(randomness, replace(sampler.sampling, temperature=1.0))
        return super().propose(texts, k, unfiltered, filtered)


class ForgetfulSession(ModelDraftSession):
    """BUG: the last drafted token is never fed to the draft, although it was accepted.

    After a fully accepted round the draft's cache lacks one token for good, and its next guesses
    are made from a text with a hole in it.
    """

    def uncached_tokens(self, texts: Texts) -> int:
        return 1
