"""From logits to the distribution that is sampled, and from there to a token.

The same functions serve draft and target. A drafted token never travels without its distribution:
`Sampler.draw` returns both, or leaves a greedy draft's to `Sampler.together`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..messages import shown
from ..randomness import Randomness
from .processors import Prefixes, Processors


@dataclass(frozen=True)
class Sampling:
    """How logits become a distribution; applied in this order, as transformers does.

    Args:
        temperature: divides the logits; 0 is greedy (all mass on the largest logit).
        top_k: keep the k largest, and those that tie with the k-th; 0 keeps all.
        top_p: keep the smallest set of the most probable tokens that reaches this mass.
        min_p: drop tokens less probable than this share of the most probable one.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> sd.Sampling(temperature=0).greedy
        True
        >>> sd.Sampling(temperature=0.7, top_p=0.9)
        Sampling(temperature=0.7, top_k=0, top_p=0.9, min_p=0.0)
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 (greedy) or a positive number, got {shown(self.temperature)}")
        if not isinstance(self.top_k, int) or self.top_k < 0:
            raise ValueError(f"top_k must be a whole number, 0 to keep every token, got {shown(self.top_k)}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie above 0 and at most at 1, got {shown(self.top_p)}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must lie between 0 and 1, got {shown(self.min_p)}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """The distribution that sampling draws from.

    logits [..., vocab] -> probabilities [..., vocab], float64 (float32 on mps, which has no float64).
    """
    if sampling.greedy:
        peak, best = logits.max(-1)  # [...] each
        return one_hot(best, logits.shape[-1], upcast(peak - peak + 1))  # not a number where no token is left
    scores = upcast(logits)
    if sampling.temperature != 1:
        scores = (scores - scores.amax(-1, keepdim=True)) / sampling.temperature  # the tiniest one cannot overflow
    if 0 < sampling.top_k < scores.shape[-1]:
        threshold = scores.topk(sampling.top_k, dim=-1).values[..., -1:]  # [..., 1]
        scores = scores.masked_fill(scores < threshold, -torch.inf)
    if sampling.top_p < 1:
        scores = keep_nucleus(scores, sampling.top_p)
    probs = scores.softmax(-1)
    if sampling.min_p > 0:
        probs = probs * (probs >= sampling.min_p * probs.amax(-1, keepdim=True))
        probs = probs / probs.sum(-1, keepdim=True)
    return probs


def one_hot(tokens: Tensor, vocab_size: int, mass: Tensor | None = None) -> Tensor:
    """All mass on one token: tokens [...] -> [..., vocab], with 1 or `mass` [...] at each."""
    dtype = torch.float32 if tokens.device.type == "mps" else torch.float64
    empty = torch.zeros(*tokens.shape, vocab_size, dtype=dtype, device=tokens.device)
    return empty.scatter_(-1, tokens.unsqueeze(-1), 1.0 if mass is None else mass.unsqueeze(-1))


def keep_nucleus(scores: Tensor, top_p: float) -> Tensor:
    """Nucleus sampling (Holtzman et al. 2020): mask what lies outside the top `top_p` of mass."""
    ordered, order = scores.sort(dim=-1, stable=True)  # ascending, [..., vocab]
    outside = ordered.softmax(-1).cumsum(-1) <= 1 - top_p
    outside[..., -1] = False  # the most probable token always stays
    return scores.masked_fill(torch.zeros_like(outside).scatter_(-1, order, outside), -torch.inf)


def upcast(values: Tensor) -> Tensor:
    """In float64; float32 on mps, which has no float64."""
    return values.float() if values.device.type == "mps" else values.double()


@dataclass(frozen=True)
class Sampler:
    """How a run draws: each row's logits processors, then `Sampling`, as in transformers."""

    sampling: Sampling
    processors: Processors

    def processed(
        self, logits: Tensor, texts: Sequence[Sequence[int]], tokens: Tensor, before: Prefixes | None = None
    ) -> Tensor:
        """What the rows' processors make of logits [batch, n, vocab]; widened for them, where there are any."""
        return self.processors(upcast(logits), texts, tokens, before) if self.processors else logits

    def probabilities(
        self, logits: Tensor, texts: Sequence[Sequence[int]], tokens: Tensor, before: Prefixes | None = None
    ) -> Tensor:
        """Distributions at the last n places of texts + tokens, or of a tree after the tokens `before` each place.

        logits [batch, n, vocab], tokens [batch, m] drafted after the texts, n <= m + 1 -> [batch, n, vocab].
        """
        return probabilities(self.processed(logits, texts, tokens, before), self.sampling)

    def draw(
        self, logits: Tensor, texts: Sequence[Sequence[int]], tokens: Tensor, randomness: Randomness
    ) -> tuple[Tensor, Tensor | None]:
        """Sample what follows texts + tokens, and keep the distribution it came from.

        logits [batch, 1, vocab], tokens [batch, m] -> (token [batch, 1], probs [batch, 1, vocab]). A greedy
        draw leaves nothing to chance and its probs to `together`.
        """
        if self.sampling.greedy:
            return self.processed(logits, texts, tokens).argmax(-1), None
        probs = self.probabilities(logits, texts, tokens)
        return randomness.sample(probs[:, 0]).unsqueeze(1), probs

    def together(self, tokens: Tensor, probs: Sequence[Tensor | None], vocab_size: int) -> Tensor:
        """What tokens [batch, k] were drawn from, one by one. -> [batch, k, vocab]"""
        return (
            one_hot(tokens, vocab_size) if self.sampling.greedy else torch.cat([p for p in probs if p is not None], 1)
        )
