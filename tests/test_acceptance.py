"""Rules: drafted and corrected tokens together follow the target, token by token."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from specdec_lite import SampleAndMatch, TokenRejection
from specdec_lite.acceptance import overlap, probability_of, residual

f64 = partial(torch.tensor, dtype=torch.float64)

RULES = [TokenRejection(), SampleAndMatch()]


def distributions(vocab: int, seed: int, sharpness: float = 2.0, zeros: float = 0.3) -> tuple[Tensor, Tensor]:
    """A target and a draft that disagree, each with tokens of probability zero."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(2):
        probs = (sharpness * torch.randn(vocab, generator=generator, dtype=torch.float64)).softmax(-1)
        probs[torch.rand(vocab, generator=generator) < zeros] = 0
        probs[seed % vocab] += 1e-3  # something is left
        made.append(probs / probs.sum())
    return made[0], made[1]


def emitted(rule: object, p_target: Tensor, p_draft: Tensor) -> Tensor:
    """The distribution of the token that a position ends up with: drafted and kept, or its replacement. -> [vocab]"""
    tokens = torch.arange(len(p_draft))
    targets, drafts = p_target.expand(len(tokens), -1), p_draft.expand(len(tokens), -1)
    chance = rule.chance(targets, drafts, tokens)  # [vocab], of keeping each
    correction = rule.correction(targets, drafts, tokens)  # [vocab drafted, vocab]
    kept = p_draft * chance
    return kept + (p_draft * (1 - chance)) @ correction


CASES = [distributions(vocab, seed) for seed, vocab in enumerate([2, 3, 4, 5, 8, 13, 21, 34] * 12)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_what_comes_out_follows_the_target(rule: object) -> None:
    for p_target, p_draft in CASES:
        assert (emitted(rule, p_target, p_draft) - p_target).abs().max() <= 1e-15


class FromTheTarget(TokenRejection):
    """The control: a rejected token is replaced by one from the target, not from the residual."""

    def correction(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        return p_target


class Timid(TokenRejection):
    """The control: the chance of another rule."""

    def chance(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        return probability_of(p_target, tokens)


class Unclamped(SampleAndMatch):
    """The control: the drafted token may come back as its own replacement."""

    def correction(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        return p_target


@pytest.mark.parametrize("rule", [FromTheTarget(), Timid(), Unclamped()], ids=lambda rule: type(rule).__name__)
def test_the_identity_catches_wrong_rules(rule: object) -> None:
    worst = [(emitted(rule, p_target, p_draft) - p_target).abs().max().item() for p_target, p_draft in CASES]
    assert sum(bias > 1e-3 for bias in worst) > len(CASES) / 2


def test_token_rejection_keeps_the_overlap_and_sample_and_match_less() -> None:
    for p_target, p_draft in CASES:
        tokens = torch.arange(len(p_draft))
        kept = [(p_draft * rule.chance(p_target.expand(len(tokens), -1), p_draft.expand(len(tokens), -1), tokens)).sum()
                for rule in RULES]  # fmt: skip
        assert kept[0].item() == pytest.approx(overlap(p_target, p_draft).item(), abs=1e-14)
        assert kept[1].item() == pytest.approx((p_target * p_draft).sum().item(), abs=1e-14)
        assert kept[1] <= kept[0] + 1e-14


def test_overlap_is_one_minus_total_variation() -> None:
    for p_target, p_draft in CASES:
        variation = (p_target - p_draft).abs().sum().item() / 2
        assert overlap(p_target, p_draft).item() == pytest.approx(1 - variation, abs=1e-14)


def test_equal_distributions_accept_everything_and_the_residual_falls_back() -> None:
    p_target, _ = CASES[5]
    tokens = torch.arange(len(p_target))[p_target > 0]
    rows = p_target.expand(len(tokens), -1)
    assert (TokenRejection().chance(rows, rows, tokens) == 1).all()
    assert torch.equal(residual(p_target, p_target), p_target)


def test_a_residual_that_rounds_to_zero_is_still_a_distribution() -> None:
    """Two sums in another order agree to rounding only: the residual is noise, or nothing."""
    for p_target, _ in CASES:
        for draft in (p_target * (1 + 2**-52), p_target * (1 - 2**-53), p_target / p_target.sum()):
            left = residual(p_target, draft)
            assert left.isfinite().all()
            assert left.sum().item() == pytest.approx(1, abs=1e-12)
            assert (left[p_target == 0] == 0).all()
    smallest = f64([1.0, 5e-324, 1e-310])  # a residual of subnormal mass
    assert residual(smallest, f64([1.0, 0.0, 0.0])).sum().item() == pytest.approx(1, abs=1e-12)


def test_where_nothing_is_shared_nothing_is_kept() -> None:
    p_target, p_draft = f64([0.3, 0.7, 0.0]), f64([0.0, 0.0, 1.0])
    for rule in RULES:
        assert rule.chance(p_target, p_draft, torch.tensor(2)).item() == 0
        assert torch.equal(rule.correction(p_target, p_draft, torch.tensor(2)), p_target)


def test_certain_distributions_decide_without_chance() -> None:
    """Greedy: one-hot target and draft agree or not."""
    hot = torch.eye(3).double()
    for rule in RULES:
        assert rule.chance(hot[1], hot[1], torch.tensor(1)).item() == 1
        assert rule.chance(hot[1], hot[2], torch.tensor(2)).item() == 0
        assert torch.equal(rule.correction(hot[1], hot[2], torch.tensor(2)), hot[1])


def test_a_position_where_nothing_was_drafted_has_no_chance() -> None:
    p_target = f64([0.5, 0.5])
    assert TokenRejection().chance(p_target, torch.zeros(2).double(), torch.tensor(0)).item() == 0


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_positions_are_judged_alone(rule: object) -> None:
    p_target, p_draft = (torch.stack(each).view(2, 3, 8) for each in zip(*[distributions(8, s) for s in range(6)]))  # noqa: B905
    tokens = p_draft.argmax(-1)  # [2, 3]
    chance, correction = rule.chance(p_target, p_draft, tokens), rule.correction(p_target, p_draft, tokens)
    assert chance.shape == (2, 3)
    for i, j in ((0, 0), (1, 2)):
        one = p_target[i, j], p_draft[i, j], tokens[i, j]
        assert torch.equal(chance[i, j], rule.chance(*one))
        assert torch.equal(correction[i, j], rule.correction(*one))


def test_probability_of_picks_each_tokens_own() -> None:
    probs = torch.tensor([[[0.1, 0.9], [0.4, 0.6]]])
    assert torch.equal(probability_of(probs, torch.tensor([[1, 0]])), torch.tensor([[0.9, 0.4]]))
