"""The rules that decide what is kept. Pure functions of two distributions and a token.

A rule answers two questions: with which chance a drafted token is kept, and, when it is not,
from which distribution its replacement is drawn. It is exact when, for every token x,
`p_draft(x) * chance(x) + P(reject) * correction(x) = p_target(x)`.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Rule(Protocol):
    """How a drafted token is judged."""

    def chance(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        """Chance of keeping each token. [..., vocab] twice, tokens [...] -> [...]."""

    def correction(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        """Distribution of the token that replaces a rejected one. -> [..., vocab]."""


def probability_of(probs: Tensor, tokens: Tensor) -> Tensor:
    """probs [..., vocab], tokens [...] -> the probability of each token [...]."""
    return probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def overlap(p_target: Tensor, p_draft: Tensor) -> Tensor:
    """Sum of min(p_target, p_draft): one minus their total variation. [..., vocab] -> [...]."""
    return torch.minimum(p_target, p_draft).sum(-1)


def residual(p_target: Tensor, p_draft: Tensor) -> Tensor:
    """What the target has left once the draft gave all it shares: norm(max(0, p_target - p_draft)).

    Leviathan et al. 2023, section 2.3; Chen et al. 2023, algorithm 2. Where the two agree to
    rounding nothing is left, and a rejection all but impossible: then `p_target` itself serves.
    """
    left = (p_target - p_draft).clamp_min(0)  # [..., vocab]
    mass = left.sum(-1, keepdim=True)  # [..., 1]
    return torch.where(mass > 0, left / mass, p_target)


class TokenRejection:
    """Speculative sampling: keep x with chance min(1, p_target(x) / p_draft(x)), else draw the residual.

    Leviathan et al. 2023, algorithm 1; Chen et al. 2023, algorithm 2. It keeps a drafted token
    with the chance `overlap(p_target, p_draft)`, and no exact rule that judges one draft at a time
    keeps more.
    """

    def chance(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        drafted = probability_of(p_draft, tokens)
        # A token that was drawn has p_draft > 0; zero marks a position where nothing was drafted.
        ratio = probability_of(p_target, tokens) / drafted
        return torch.where(drafted > 0, ratio.clamp_max(1.0), torch.zeros_like(ratio))

    def correction(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        return residual(p_target, p_draft)


class SampleAndMatch:
    """Draw the target's own token and keep going while it equals the draft.

    The draw equals a drafted x with chance p_target(x); given that it differs, it follows
    p_target without x. Exact for any draft, since the draft only decides how long a round runs,
    but it keeps just sum(p_target * p_draft), which is less than the overlap.
    """

    def chance(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        return probability_of(p_target, tokens)

    def correction(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        return residual(p_target, torch.zeros_like(p_target).scatter_(-1, tokens.unsqueeze(-1), 1.0))
