"""Closed forms against enumeration of the real loop, simulation, and published values."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specdec_lite import ModelDrafter, SampleAndMatch, TableModel, speculative
from specdec_lite.sampling.distributions import Sampling, probabilities
from specdec_lite.theory import formulas
from specdec_lite.theory.exact import expectation, paths

shares = st.floats(0, 1)


def memoryless(logits: list[float]) -> TableModel:
    """A model whose next token never depends on the text, so every position accepts alike."""
    model = TableModel(len(logits), context=16)
    model.table = torch.zeros_like(model.table)
    model.table[0] = torch.tensor(logits, dtype=torch.float64)
    return model


TARGET, DRAFT = memoryless([0.0, 1.0, 0.5]), memoryless([1.0, 0.0, 0.3])
P_TARGET, P_DRAFT = (probabilities(model.table[0, 0], Sampling()) for model in (TARGET, DRAFT))


@given(st.lists(st.tuples(st.floats(1e-3, 1), st.floats(1e-3, 1)), min_size=2, max_size=9))
def test_acceptance_is_one_minus_total_variation(weights: list[tuple[float, float]]) -> None:
    p_target, p_draft = (each / each.sum() for each in torch.tensor(weights, dtype=torch.float64).T)
    accepted = formulas.acceptance(p_target, p_draft)
    assert accepted.item() == pytest.approx(1 - formulas.total_variation(p_target, p_draft).item())
    chance = (p_draft * (p_target / p_draft).clamp_max(1)).sum()  # the rule's own definition
    assert accepted.item() == pytest.approx(chance.item())
    assert formulas.match_acceptance(p_target, p_draft) <= accepted + 1e-12


@pytest.mark.parametrize("k", [1, 2, 3])
def test_expected_tokens_is_that_of_the_loop(k: int) -> None:
    """Equation 1 against every path of the real loop's first round."""
    first = list(paths(TARGET, ModelDrafter(DRAFT), [0], k=k, max_new_tokens=k + 1))
    a = formulas.acceptance(P_TARGET, P_DRAFT).item()
    assert expectation(first, lambda path: len(path.rounds[0].kept)) == pytest.approx(formulas.expected_tokens(a, k))
    no_bonus = expectation(first, lambda path: sum(kind != "bonus" for kind in path.rounds[0].kept_kinds()))
    assert no_bonus == pytest.approx(formulas.expected_tokens_without_bonus(a, k))
    assert no_bonus != pytest.approx(formulas.expected_tokens(a, k), rel=0.01)  # the two are told apart


def test_match_acceptance_is_that_of_the_loop() -> None:
    every = paths(TARGET, ModelDrafter(DRAFT), [0], k=2, max_new_tokens=3, rule=SampleAndMatch())
    a = formulas.match_acceptance(P_TARGET, P_DRAFT).item()
    assert expectation(every, lambda path: len(path.rounds[0].kept)) == pytest.approx(formulas.expected_tokens(a, 2))
    assert a < formulas.acceptance(P_TARGET, P_DRAFT) - 0.1


@given(st.floats(0, 0.999), st.integers(0, 16))
def test_expected_tokens_is_equation_1(a: float, k: int) -> None:
    assert formulas.expected_tokens(a, k) == pytest.approx((1 - a ** (k + 1)) / (1 - a))
    assert formulas.expected_tokens_without_bonus(a, k) == pytest.approx((1 - a**k) / (1 - a))


def test_expected_tokens_at_the_ends() -> None:
    assert formulas.expected_tokens(0, 5) == 1 and formulas.expected_tokens(1, 5) == 6
    assert formulas.expected_tokens_without_bonus(1, 5) == 5
    assert formulas.expected_tokens(1 - 1e-12, 5) == pytest.approx(6, abs=1e-10)


@given(shares, shares, shares)
def test_expected_tokens_by_position(a: float, b: float, c: float) -> None:
    assert formulas.expected_tokens_by_position([a, b, c]) == pytest.approx(1 + a + a * b + a * b * c)


@given(shares, st.floats(0.01, 1))
def test_speedup_of_one_token(a: float, c: float) -> None:
    """Corollary 3.9 of Leviathan et al. 2023: with k = 1 the factor is (1 + a) / (1 + c)."""
    assert formulas.speedup(a, 1, c) == pytest.approx((1 + a) / (1 + c))


def test_speedup_counts_every_cost() -> None:
    assert formulas.speedup(0.8, 4, 0) == pytest.approx(formulas.expected_tokens(0.8, 4))
    assert formulas.speedup(0.8, 4, 0.1, 1.5, 0.1) == pytest.approx(formulas.expected_tokens(0.8, 4) / 2.0)
    assert formulas.speedup(0.8, 4, 0.1, lambda k: 1 + k / 8, 0.1) == formulas.speedup(0.8, 4, 0.1, 1.5, 0.1)


def test_best_k() -> None:
    assert formulas.best_k(0.9, 0) == (16, pytest.approx(formulas.expected_tokens(0.9, 16)))
    k, gain = formulas.best_k(0.2, 0.5)  # a < c: Leviathan et al. say that nothing can be gained
    assert k == 1 and gain < 1
    k, gain = formulas.best_k(0.8, 0.05, verify_cost=lambda k: 1 + 0.05 * k, overhead=0.1)
    gains = {n: formulas.speedup(0.8, n, 0.05, 1 + 0.05 * n, 0.1) for n in range(1, 17)}
    assert gains[k] == gain == max(gains.values()) and 1 < k < 16
    assert formulas.best_k(0.8, 0.05)[0] > k  # a verify pass that grows with k makes the best k smaller


def test_wilson_interval() -> None:
    found = formulas.estimate_acceptance(8, 10)  # a textbook case: 0.4902 to 0.9433
    assert (found.value, found.low, found.high) == (
        0.8,
        pytest.approx(0.4902, abs=1e-4),
        pytest.approx(0.9433, abs=1e-4),
    )
    assert formulas.estimate_acceptance(10, 10).high == 1 and formulas.estimate_acceptance(0, 10).low == 0
    assert formulas.estimate_acceptance(800, 1000).low > found.low


def test_estimate_forgets_what_was_not_judged() -> None:
    """Simulated rounds: the estimate covers the truth 19 times in 20; dividing by all drafted never does."""
    chance, covered, naive_covered, k = random.Random(0), 0, 0, 6
    for _ in range(400):
        rounds = [next((i for i in range(k) if chance.random() >= 0.7), k) for _ in range(200)]
        accepted, judged = sum(rounds), sum(min(n + 1, k) for n in rounds)
        found = formulas.estimate_acceptance(accepted, judged)
        covered += found.low <= 0.7 <= found.high
        naive = formulas.estimate_acceptance(accepted, k * len(rounds))
        naive_covered += naive.low <= 0.7 <= naive.high
    assert 0.92 < covered / 400 < 0.98
    assert naive_covered == 0


def test_acceptance_of_a_trace() -> None:
    made = speculative(TARGET, ModelDrafter(DRAFT), [[0]] * 200, k=3, max_new_tokens=12, seed=0)
    found = formulas.acceptance_of(made.trace.rounds, confidence=0.999)
    assert found.value == pytest.approx(made.trace.accepted_per_judged)
    assert found.low < formulas.acceptance(P_TARGET, P_DRAFT) < found.high
    assert found.high - found.low < 0.2


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: formulas.expected_tokens(1.1, 4),
        lambda: formulas.expected_tokens(0.5, -1),
        lambda: formulas.expected_tokens_by_position([0.5, -0.1]),
        lambda: formulas.speedup(0.5, 4, -0.1),
        lambda: formulas.speedup(0.5, 4, 0, 0, 0),
        lambda: formulas.estimate_acceptance(0, 0),
        lambda: formulas.estimate_acceptance(5, 4),
        lambda: formulas.estimate_acceptance(1, 4, confidence=1),
    ],
)
def test_refuses_what_makes_no_sense(wrong: object) -> None:
    with pytest.raises(ValueError, match="got"):
        wrong()
