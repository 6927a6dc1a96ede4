"""Rules: drafted and corrected tokens together follow the target, token by token."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from specdec_lite import BlockVerification, SampleAndMatch, TokenRejection, TypicalAcceptance
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
    chance = rule.accept_prob(targets, drafts, tokens)  # [vocab], of keeping each
    correction = rule.recovered_probs(targets, drafts, tokens)  # [vocab drafted, vocab]
    kept = p_draft * chance
    return kept + (p_draft * (1 - chance)) @ correction


CASES = [distributions(vocab, seed) for seed, vocab in enumerate([2, 3, 4, 5, 8, 13, 21, 34] * 12)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_what_comes_out_follows_the_target(rule: object) -> None:
    for p_target, p_draft in CASES:
        assert (emitted(rule, p_target, p_draft) - p_target).abs().max() <= 1e-15


class FromTheTarget(TokenRejection):
    """The control: a rejected token is replaced by one from the target, not from the residual."""

    def recovered_probs(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        return p_target


class Timid(TokenRejection):
    """The control: the chance of another rule."""

    def accept_prob(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        return probability_of(p_target, tokens)


class Unclamped(SampleAndMatch):
    """The control: the drafted token may come back as its own replacement."""

    def recovered_probs(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        return p_target


@pytest.mark.parametrize("rule", [FromTheTarget(), Timid(), Unclamped()], ids=lambda rule: type(rule).__name__)
def test_the_identity_catches_wrong_rules(rule: object) -> None:
    worst = [(emitted(rule, p_target, p_draft) - p_target).abs().max().item() for p_target, p_draft in CASES]
    assert sum(bias > 1e-3 for bias in worst) > len(CASES) / 2


def test_token_rejection_keeps_the_overlap_and_sample_and_match_less() -> None:
    for p_target, p_draft in CASES:
        tokens = torch.arange(len(p_draft))
        rows = p_target.expand(len(tokens), -1), p_draft.expand(len(tokens), -1), tokens
        kept = [(p_draft * rule.accept_prob(*rows)).sum() for rule in RULES]
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
    assert (TokenRejection().accept_prob(rows, rows, tokens) == 1).all()
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
        assert rule.accept_prob(p_target, p_draft, torch.tensor(2)).item() == 0
        assert torch.equal(rule.recovered_probs(p_target, p_draft, torch.tensor(2)), p_target)


def test_certain_distributions_decide_without_chance() -> None:
    """Greedy: one-hot target and draft agree or not."""
    hot = torch.eye(3).double()
    for rule in RULES:
        assert rule.accept_prob(hot[1], hot[1], torch.tensor(1)).item() == 1
        assert rule.accept_prob(hot[1], hot[2], torch.tensor(2)).item() == 0
        assert torch.equal(rule.recovered_probs(hot[1], hot[2], torch.tensor(2)), hot[1])


def test_a_position_where_nothing_was_drafted_has_no_chance() -> None:
    p_target = f64([0.5, 0.5])
    assert TokenRejection().accept_prob(p_target, torch.zeros(2).double(), torch.tensor(0)).item() == 0


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_positions_are_judged_alone(rule: object) -> None:
    p_target, p_draft = (torch.stack(each).view(2, 3, 8) for each in zip(*[distributions(8, s) for s in range(6)]))  # noqa: B905
    tokens = p_draft.argmax(-1)  # [2, 3]
    chance, correction = rule.accept_prob(p_target, p_draft, tokens), rule.recovered_probs(p_target, p_draft, tokens)
    assert chance.shape == (2, 3)
    for i, j in ((0, 0), (1, 2)):
        one = p_target[i, j], p_draft[i, j], tokens[i, j]
        assert torch.equal(chance[i, j], rule.accept_prob(*one))
        assert torch.equal(correction[i, j], rule.recovered_probs(*one))


def test_probability_of_picks_each_tokens_own() -> None:
    probs = torch.tensor([[[0.1, 0.9], [0.4, 0.6]]])
    assert torch.equal(probability_of(probs, torch.tensor([[1, 0]])), torch.tensor([[0.9, 0.4]]))


def scalar_block(
    p_target: list[list[float]], p_draft: list[list[float]], tokens: list[int]
) -> tuple[list[float], list[list[float]]]:
    """Sun et al. 2024, algorithm 2, one number at a time: h_1 to h_k, and what follows 0 to k accepted tokens."""
    k, survival = len(tokens), [1.0]
    for i, x in enumerate(tokens):
        survival.append(min(1.0, survival[i] * p_target[i][x] / p_draft[i][x]))
    excess = [[max(0.0, survival[i] * t - d) for t, d in zip(p_target[i], p_draft[i], strict=True)] for i in range(k)]
    passes = [sum(excess[i]) / (sum(excess[i]) + 1 - survival[i]) for i in range(1, k)] + [survival[k]]
    # nothing is left where no token of p_draft is too likely: such a length has probability 0
    return passes, [[each / (sum(row) or 1) for each in row] for row in excess] + [p_target[k]]


@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
def test_block_verification_is_the_papers_formula(padded: bool) -> None:
    """Three tokens by the tensor code and by the scalar one, also where a longer neighbour pads the row."""
    rule, k = BlockVerification(), 3
    for seed in range(30):
        pairs = [distributions(5, 4 * seed + i, zeros=0.0) for i in range(k + 2)]
        p_target, p_draft = (torch.stack(each).unsqueeze(0) for each in zip(*pairs, strict=True))  # [1, k + 2, vocab]
        tokens = torch.tensor([[(seed * 7 + i) % 5 for i in range(k + 1)]])
        width, count = (k + 1, torch.tensor([k])) if padded else (k, None)
        given = p_target[:, : width + 1], p_draft[:, :width], tokens[:, :width], count
        passes, following = scalar_block(p_target[0].tolist(), p_draft[0].tolist(), tokens[0, :k].tolist())
        found = rule.pass_probs(*given)[0].tolist()
        assert found == pytest.approx(passes + [0.0] * (width - k), abs=1e-13)
        for accepted in range(k + 1):
            if accepted == 0 or passes[accepted - 1] > 0:
                token = rule.next_token_probs(*given, torch.tensor([accepted]))[0].tolist()
                assert token == pytest.approx(following[accepted], abs=1e-12)


def test_the_longest_prefix_that_passes_is_accepted() -> None:
    passed = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 0, 0], [1, 1, 0]]).bool()
    assert BlockVerification().accepted_length(passed).tolist() == [2, 3, 0, 2]
    assert TokenRejection().accepted_length(passed).tolist() == [0, 1, 0, 2]


def test_models_that_agree_keep_a_whole_block() -> None:
    p_target = torch.stack([case[0] for case in CASES if len(case[0]) == 8][:4]).unsqueeze(0)  # [1, 4, 8]
    given = p_target, p_target[:, :3], p_target[:, :3].argmax(-1), None
    assert BlockVerification().pass_probs(*given).tolist() == [[1.0, 1.0, 1.0]]
    assert torch.equal(BlockVerification().next_token_probs(*given, torch.tensor([3])), p_target[:, 3])


def test_typical_acceptance_follows_its_threshold() -> None:
    """Medusa, section 3.3.1: uniform over four tokens has entropy log 4, so delta 0.3 asks for 0.3 / 4."""
    rule, flat, tokens = TypicalAcceptance(), torch.full((4,), 0.25).double(), torch.arange(4)
    assert rule.accept_prob(flat.expand(4, 4), flat.expand(4, 4), tokens).tolist() == [1, 1, 1, 1]
    sharp = f64([0.95, 0.04, 0.01, 0.0])
    assert rule.accept_prob(sharp.expand(4, 4), flat.expand(4, 4), tokens).tolist() == [1, 0, 0, 0]
    lax = TypicalAcceptance(epsilon=0.02)
    assert lax.accept_prob(sharp.expand(4, 4), flat.expand(4, 4), tokens).tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("wrong", [dict(epsilon=-0.1), dict(epsilon=1.5), dict(delta=-1), dict(delta=float("nan"))])
def test_typical_acceptance_refuses_what_is_no_threshold(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="0 <= epsilon <= 1 and delta >= 0"):
        TypicalAcceptance(**wrong)


def test_exactness_is_said_by_the_rule() -> None:
    assert all(rule.exact for rule in (*RULES, BlockVerification()))
    assert not TypicalAcceptance().exact
