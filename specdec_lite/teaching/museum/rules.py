"""Rules that look alike: three are biased, one is exact."""

from __future__ import annotations

import torch
from torch import Tensor

from ...acceptance import BlockVerification, PerTokenRule, SampleAndMatch, TokenRejection, probability_of


class ResampleFromTarget(TokenRejection):
    """BUG: the replacement of a rejected token is drawn from the target instead of the residual.

    What is written is min(p_target, p_draft) + (1 - overlap) * p_target, so a token comes too often exactly
    where p_draft / p_target exceeds the overlap: also one that the draft likes less than the target does.
    """

    def recovered_probs(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        return p_target


class RedrawAfterMismatch(SampleAndMatch):
    """BUG: the target's token differs from the draft, so another one is drawn, and the first is forgotten.

    The first draw was the answer already. What is written is p_target * (1 + p_draft - s), s the chance that the
    two draws agree, so a token comes too often exactly where p_draft exceeds s.
    """

    def recovered_probs(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        return p_target


class FirstFailureEnds(BlockVerification):
    """BUG: block verification whose accepted prefix ends at the first position that fails its test.

    It looks like the loop of token rejection. But the tests of block verification are those of whole prefixes: one
    that fails says nothing about a longer one, and the next token's distribution counts on the longest that passes.
    """

    def accepted_length(self, passed: Tensor) -> Tensor:
        return passed.cumprod(-1).sum(-1)


class TriedInTurn(PerTokenRule):
    """Candidates are tried one after the other: keep with the target's probability of what is left, else mask.

    Looks wrong, since nobody divides by p_draft, and is exact for every list that was fixed before the dice were
    thrown: `c1` is written with p(c1), `c2` with (1 - p(c1)) * p(c2) / (1 - p(c1)) = p(c2), and so on. The draft's
    ranking decides the order and nothing else. A drafted token is the first candidate.

    Args:
        candidates: how many are tried before the target decides alone.
    """

    def __init__(self, candidates: int = 2) -> None:
        self.candidates = candidates

    def accept_prob(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        return probability_of(p_target, tokens)

    def recovered_probs(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        left = self._without(p_target, tokens)  # [..., vocab]
        rank = self._without(p_draft, tokens)  # [..., vocab]
        written, reached = torch.zeros_like(left), torch.ones_like(left[..., :1])  # [..., vocab], [..., 1]
        for _ in range(self.candidates - 1):
            candidate = rank.argmax(-1)  # [...]
            chance = torch.nan_to_num(probability_of(left, candidate) / left.sum(-1)).unsqueeze(-1)  # [..., 1]
            written = written.scatter_add(-1, candidate.unsqueeze(-1), reached * chance)
            left, rank, reached = self._without(left, candidate), self._without(rank, candidate), reached * (1 - chance)
        return written + reached * torch.nan_to_num(left / left.sum(-1, keepdim=True))

    @staticmethod
    def _without(probs: Tensor, tokens: Tensor) -> Tensor:
        """The same, with nothing on these tokens. probs [..., vocab], tokens [...] -> [..., vocab]"""
        return probs.scatter(-1, tokens.unsqueeze(-1), 0.0)
