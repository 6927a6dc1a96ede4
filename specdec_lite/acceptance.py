"""The rules that decide which drafted tokens are kept. Pure functions of distributions and tokens.

The target has scored a block of k drafted tokens. Each position passes a test with a probability that the rule
gives; the rule then says how many tokens are accepted, given which positions passed, and from which distribution
the next token is drawn. A rule is exact when the accepted tokens and the next one follow the target's distribution.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Rule(Protocol):
    """How a block of drafted tokens is verified.

    The shapes of all methods: p_target [batch, k + 1, vocab], at the drafted tokens and after the last; p_draft
    [batch, k, vocab]; tokens [batch, k]; count [batch], how many of a row's k tokens were drafted, the rest being
    padding, or None where all were.
    """

    exact: bool  # whether the output follows the target's distribution

    def pass_probs(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor, count: Tensor | None) -> Tensor:
        """Probability that the test at each position passes, 0 for padding. -> [batch, k]"""

    def accepted_length(self, passed: Tensor) -> Tensor:
        """How many tokens are accepted: passed [..., k], of booleans -> [...]"""

    def next_token_probs(
        self, p_target: Tensor, p_draft: Tensor, tokens: Tensor, count: Tensor | None, accepted: Tensor
    ) -> Tensor:
        """Distribution of the token after the accepted ones, accepted [batch]. -> [batch, vocab]"""


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


class PerTokenRule:
    """A rule that looks at one drafted token at a time, and accepts up to the first that fails.

    It is exact when, for every token x, `p_draft(x) * accept_prob(x) + P(reject) * recovered_probs(x) = p_target(x)`.
    """

    exact = True

    def accept_prob(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        """Probability of accepting each token. [..., vocab] twice, tokens [...] -> [...]."""
        raise NotImplementedError

    def recovered_probs(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        """Distribution of the token that replaces a rejected one. -> [..., vocab]."""
        raise NotImplementedError

    def pass_probs(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor, count: Tensor | None) -> Tensor:
        accept_prob = self.accept_prob(p_target[:, :-1], p_draft, tokens)  # [batch, k]
        if count is None:
            return accept_prob
        return accept_prob * (torch.arange(tokens.shape[1], device=tokens.device) < count.unsqueeze(1))

    def accepted_length(self, passed: Tensor) -> Tensor:
        return passed.cumprod(-1).sum(-1)

    def next_token_probs(
        self, p_target: Tensor, p_draft: Tensor, tokens: Tensor, count: Tensor | None, accepted: Tensor
    ) -> Tensor:
        rows, k = torch.arange(len(tokens), device=tokens.device), tokens.shape[1]
        p_bonus = p_target[rows, accepted]  # [batch, vocab], the target's own at the first position not accepted
        if k == 0:
            return p_bonus
        at = accepted.clamp_max(k - 1)  # [batch]
        recovered = self.recovered_probs(p_bonus, p_draft[rows, at], tokens[rows, at])  # [batch, vocab]
        everything = accepted == (k if count is None else count)  # [batch]
        return torch.where(everything.unsqueeze(1), p_bonus, recovered)


class TokenRejection(PerTokenRule):
    """Speculative sampling: keep x with probability min(1, p_target(x) / p_draft(x)), else draw from the residual.

    Leviathan et al. 2023, algorithm 1; Chen et al. 2023, algorithm 2. It keeps a drafted token
    with probability `overlap(p_target, p_draft)`, and no exact rule that looks at one draft token at a
    time keeps more.

    Example:
        >>> p_target, p_draft = torch.tensor([[0.5, 0.5], [0.2, 0.8]], dtype=torch.float64)
        >>> sd.TokenRejection().accept_prob(p_target, p_draft, torch.tensor(1)).item()  # 0.5 / 0.8
        0.625
        >>> sd.TokenRejection().recovered_probs(p_target, p_draft, torch.tensor(1)).tolist()
        [1.0, 0.0]
    """

    def accept_prob(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        drafted = probability_of(p_draft, tokens)
        # A token that was drawn has p_draft > 0; zero marks a position where nothing was drafted.
        ratio = probability_of(p_target, tokens) / drafted
        return torch.where(drafted > 0, ratio.clamp_max(1.0), torch.zeros_like(ratio))

    def recovered_probs(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        return residual(p_target, p_draft)


class SampleAndMatch(PerTokenRule):
    """Draw the target's own token and keep going while it equals the draft.

    The draw equals a drafted x with probability p_target(x); given that it differs, it follows
    p_target without x. Exact for any draft, since the draft only decides how long a round runs,
    but it keeps just sum(p_target * p_draft), which is less than the overlap.

    Example:
        >>> p_target, p_draft = torch.tensor([[0.5, 0.5], [0.2, 0.8]], dtype=torch.float64)
        >>> sd.SampleAndMatch().accept_prob(p_target, p_draft, torch.tensor(1)).item()
        0.5
        >>> sd.SampleAndMatch().recovered_probs(p_target, p_draft, torch.tensor(1)).tolist()
        [1.0, 0.0]
    """

    def accept_prob(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        return probability_of(p_target, tokens)

    def recovered_probs(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        return residual(p_target, torch.zeros_like(p_target).scatter_(-1, tokens.unsqueeze(-1), 1.0))


class BlockVerification:
    """Verify the drafted tokens jointly: exact, and never fewer accepted tokens in expectation than `TokenRejection`.

    Sun et al. 2024, arXiv:2403.10444, algorithm 2. A prefix x_1..x_i survives with probability
    s_i = min(1, s_{i-1} p_target(x_i) / p_draft(x_i)), s_0 = 1. Every position has a test of its own, and the
    longest prefix whose test passes is accepted, although a shorter one may have failed.

    Example:
        >>> passed = torch.tensor([False, True, False])
        >>> sd.BlockVerification().accepted_length(passed).item()  # the longest prefix whose test passed
        2
        >>> sd.TokenRejection().accepted_length(passed).item()  # up to the first failure
        0
    """

    exact = True

    def pass_probs(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor, count: Tensor | None) -> Tensor:
        survival, excess = self._survival_and_excess(p_target, p_draft, tokens, count)
        survival, mass = survival[:, 1:], excess[:, 1:].sum(-1)  # [batch, k] both
        either = mass + 1 - survival
        # 0 / 0: here both models agree, so a longer prefix is accepted with certainty
        return torch.where(either > 0, mass / either, 1.0)

    def accepted_length(self, passed: Tensor) -> Tensor:
        if passed.shape[-1] == 0:
            return passed.sum(-1)
        return (passed * torch.arange(1, passed.shape[-1] + 1, device=passed.device)).amax(-1)

    def next_token_probs(
        self, p_target: Tensor, p_draft: Tensor, tokens: Tensor, count: Tensor | None, accepted: Tensor
    ) -> Tensor:
        rows = torch.arange(len(tokens), device=tokens.device)
        excess = self._survival_and_excess(p_target, p_draft, tokens, count)[1][rows, accepted]  # [batch, vocab]
        mass = excess.sum(-1, keepdim=True)  # [batch, 1]
        return torch.where(mass > 0, excess / mass, p_target[rows, accepted])

    @staticmethod
    def _survival_and_excess(
        p_target: Tensor, p_draft: Tensor, tokens: Tensor, count: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """s_0 to s_k [batch, k + 1], and max(0, s_i p_target - p_draft) after x_1..x_i [batch, k + 1, vocab].

        Where nothing was drafted p_draft is 0. That alone makes the last drafted token pass with probability s_k,
        padding with 0, and the token after all drafted ones follow the target.
        """
        k = tokens.shape[1]
        p_draft = torch.cat([p_draft, torch.zeros_like(p_target[:, :1])], 1)  # [batch, k + 1, vocab]
        if count is not None:
            position = torch.arange(k + 1, device=tokens.device)
            p_draft = p_draft * (position < count.unsqueeze(1)).unsqueeze(-1)
        drafted = probability_of(p_draft[:, :k], tokens)  # [batch, k]
        ratio = torch.where(drafted > 0, probability_of(p_target[:, :k], tokens) / drafted, 0.0)  # [batch, k]
        survival = [torch.ones_like(p_target[:, 0, 0])]  # [batch] each
        for i in range(k):
            survival.append((survival[-1] * ratio[:, i]).clamp_max(1.0))
        stacked = torch.stack(survival, 1)  # [batch, k + 1]
        return stacked, (stacked.unsqueeze(-1) * p_target - p_draft).clamp_min(0)


class TypicalAcceptance(PerTokenRule):
    """Accept a token that the target finds typical: p_target(x) > min(epsilon, delta exp(-entropy)). **Not exact.**

    Cai et al. 2024 (Medusa), arXiv:2401.10774, section 3.3.1. No number is drawn to accept, so more is accepted where
    the target hesitates, and the output no longer follows the target's distribution: `theory.exact` says how far it is
    off. `speculative` takes it with `exact=False`.

    Args:
        epsilon: a probability that is always enough, 0 to 1.
        delta: share of exp(-entropy), the probability of a token typical for this distribution, that is enough.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> target, draft = sd.TableModel(vocab_size=4, seed=0), sd.TableModel(vocab_size=4, seed=1)
        >>> how = dict(rule=sd.TypicalAcceptance(), max_new_tokens=8)
        >>> sd.speculative(target, sd.ModelDrafter(draft), [0, 1], **how)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: TypicalAcceptance is not exact...
        >>> len(sd.speculative(target, sd.ModelDrafter(draft), [0, 1], **how, exact=False).tokens)
        8
    """

    exact = False

    def __init__(self, epsilon: float = 0.09, delta: float = 0.3) -> None:
        if not 0 <= epsilon <= 1 or not delta >= 0:
            raise ValueError(f"needs 0 <= epsilon <= 1 and delta >= 0, got epsilon={epsilon}, delta={delta}")
        self.epsilon, self.delta = epsilon, delta

    def accept_prob(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        entropy = torch.special.entr(p_target).sum(-1)  # [...], in nats
        threshold = (self.delta * torch.exp(-entropy)).clamp_max(self.epsilon)
        return (probability_of(p_target, tokens) > threshold).to(p_target.dtype)

    def recovered_probs(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        return p_target
