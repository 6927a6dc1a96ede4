"""What the loop asks of a drafter: to open a session for some texts, and of the session, tokens to follow them.

All that speculation needs from a drafter is speed and overlap with the target. A mistake in one can cost acceptance;
it cannot bias the output, as long as `probs` is what the tokens were drawn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .randomness import Randomness
from .sampling.distributions import Sampler, one_hot
from .transfer import send

Texts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Draft:
    """Proposed tokens and what they were drawn from.

    Rows may propose fewer than k: `count[row]` are real, the rest is padding.
    """

    tokens: Tensor  # [batch, k]
    probs: Tensor  # [batch, k, vocab]
    count: list[int]  # [batch]


class DraftSession(Protocol):
    """A drafter at work on one batch of texts."""

    def room(self, length: int) -> int:
        """How many tokens may be proposed after a text of this length."""

    def propose(self, texts: Texts, k: int, sampler: Sampler, randomness: Randomness) -> Draft:
        """Between 0 and k tokens to follow each text."""


class Drafter(Protocol):
    """Makes sessions; holds no state of its own, so one drafter serves many runs."""

    def open(self, texts: Texts, capacity: int, vocab_size: int, device: torch.device) -> DraftSession: ...


def certain(rows: list[list[int]], vocab_size: int, device: torch.device) -> Draft:
    """A draft in which every token had probability one (rows of different lengths, or none)."""
    width = max(len(row) for row in rows)
    padded = [row + [0] * (width - len(row)) for row in rows]
    tokens = send(padded, device).view(len(rows), width)
    return Draft(tokens, one_hot(tokens, vocab_size), [len(row) for row in rows])
