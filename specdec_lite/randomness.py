"""Where chance enters. A decoder draws tokens and decides which tests pass: from a seeded stream, or by enumeration.

Every row owns a stream, keyed by its seed. A round's numbers come first and are laid out by
position, so they depend on seed, round and position alone: never on the batch, on k, on how many
tokens were drafted, or on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .transfer import dispatch

AcceptedLength = Callable[[Tensor], Tensor]  # of a rule: which tokens passed [..., k] -> how many are accepted [...]


class Randomness(Protocol):
    """What the decoding loop needs from a source of chance."""

    def begin_round(self) -> None:
        """Start the next round: its drafts, its verdicts, then its last token."""

    def sample(self, probs: Tensor) -> Tensor:
        """Draw a token for each row. probs [batch, vocab], float64 -> tokens [batch]."""

    def accept(self, pass_probs: Tensor, accepted_length: AcceptedLength) -> tuple[Tensor, Tensor]:
        """Decide which drafted tokens pass, independently, and with the rule's `accepted_length` how many are accepted.

        pass_probs [batch, k] -> (accepted [batch], the uniforms that decided [batch, k])."""


def inverse_cdf(probs: Tensor, uniform: Tensor) -> Tensor:
    """The first token whose cumulative probability exceeds `uniform` times the total.

    probs [batch, vocab] and uniform [batch] in [0, 1) -> tokens [batch]. A token of
    probability zero is never returned. NaN gives some token, so that a broken model is reported
    by the loop and not by an index error inside the next one.
    """
    cumulative = probs.cumsum(-1)  # [batch, vocab]
    wanted = uniform.unsqueeze(-1) * cumulative[:, -1:]  # [batch, 1]
    return torch.searchsorted(cumulative, wanted, right=True).squeeze(-1).clamp_max(probs.shape[-1] - 1)


MOST_AHEAD = 16  # rounds
Numbers = tuple[Tensor, Tensor, Tensor]  # for the last token [batch], to draft [batch, k], to accept [batch, k]


class SeededStreams:
    """One counter-based stream a row (Philox, keyed by seed and round), inverted in float64.

    Args:
        seeds: one integer from 0 to 2**64 - 1 for each row.
        k: the most tokens a round may draft; a round owns 2 k + 1 numbers, whether used or not.
        device: where the numbers are needed.
    """

    def __init__(self, seeds: Sequence[int], k: int, device: torch.device | str = "cpu") -> None:
        self.seeds, self.k, self.device = list(seeds), k, torch.device(device)
        self.round = -1
        self.ahead: list[Numbers] = []  # drawn for coming rounds, last one first
        self.philox = np.random.Philox(key=0)
        self.fresh = self.philox.state  # as a stream begins, for any key

    def begin_round(self) -> None:
        self.round += 1
        if not self.ahead:  # several rounds at once cost little more than one
            self.ahead = self._draw(min(MOST_AHEAD, self.round + 1))
        self.last, self.to_draft, self.to_accept = self.ahead.pop()
        self.drafted, self.verified = 0, self.k == 0

    def _draw(self, rounds: int) -> list[Numbers]:
        """The numbers of this round and those after it, the last round first."""
        drawn, stream = np.empty((rounds, len(self.seeds), 2 * self.k + 1)), np.random.Generator(self.philox)
        for i in range(rounds):
            for row, seed in enumerate(self.seeds):
                self.fresh["state"]["key"][:] = seed, self.round + i
                self.philox.state = self.fresh  # cheaper than a new generator
                stream.random(out=drawn[-1 - i, row])
        uniforms = torch.from_numpy(drawn)
        if self.device.type == "mps":  # no float64 there
            uniforms = uniforms.float().clamp_max(1 - 2**-24)
        uniforms = dispatch(uniforms, self.device)  # [rounds, batch, 2 k + 1]
        return list(zip(uniforms[..., 0], uniforms[..., 1::2], uniforms[..., 2::2], strict=True))

    def sample(self, probs: Tensor) -> Tensor:
        if self.verified:
            return inverse_cdf(probs, self.last)
        self.drafted += 1
        return inverse_cdf(probs, self.to_draft[:, self.drafted - 1])

    def accept(self, pass_probs: Tensor, accepted_length: AcceptedLength) -> tuple[Tensor, Tensor]:
        self.verified = True
        uniforms = self.to_accept[:, : pass_probs.shape[1]]  # [batch, k]
        return accepted_length(uniforms < pass_probs), uniforms


def length_probs(pass_probs: Tensor, accepted_length: AcceptedLength) -> Tensor:
    """Probability of each accepted length, summed over all 2**k ways to pass. [batch, k] -> [batch, k + 1]"""
    batch, k = pass_probs.shape
    ways = pass_probs.new_ones(batch, 1)  # [batch, 2**i] for the first i tokens
    for i in range(k):
        ways = torch.cat([ways * (1 - pass_probs[:, i : i + 1]), ways * pass_probs[:, i : i + 1]], 1)
    bits = torch.arange(2**k, device=pass_probs.device).unsqueeze(1) >> torch.arange(k, device=pass_probs.device)
    lengths = accepted_length(bits % 2 == 1)  # [2**k], of way j: token i passed where bit i of j is set
    return pass_probs.new_zeros(batch, k + 1).index_add_(1, lengths, ways)


class Branch:
    """One path of an enumeration: replays the choices in `script`, then takes the first open one.

    It stands where a seeded stream would, for one row. After a run, `probability` is the chance
    of the whole path and `untried()` lists the scripts of the branches that it passed by.
    """

    def __init__(self, script: Sequence[int] = ()) -> None:
        self.script = list(script)
        self.taken: list[int] = []
        self.open: list[list[int]] = []
        self.probability = 1.0

    def begin_round(self) -> None:
        """Nothing to draw: every outcome is visited."""

    def choose(self, weights: list[float]) -> int:
        """Take one of the possible outcomes, and note the others."""
        possible = [i for i, weight in enumerate(weights) if weight > 0]
        step = len(self.taken)
        choice = self.script[step] if step < len(self.script) else possible[0]
        if step >= len(self.script):
            self.open += [self.taken + [other] for other in possible[1:]]
        self.taken.append(choice)
        self.probability *= weights[choice]
        return choice

    def sample(self, probs: Tensor) -> Tensor:
        weights = (probs / probs.sum(-1, keepdim=True))[0].tolist()
        return torch.tensor([self.choose(weights)])

    def accept(self, pass_probs: Tensor, accepted_length: AcceptedLength) -> tuple[Tensor, Tensor]:
        accepted = self.choose(length_probs(pass_probs, accepted_length)[0].tolist())
        return torch.tensor([accepted]), torch.full_like(pass_probs, torch.nan)

    def untried(self) -> list[list[int]]:
        return self.open
