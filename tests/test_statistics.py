"""The chi-square test against tables and simulation; then the real loop with its real numbers.

Seeds are fixed, so a result is the same on every run; levels are such that fresh seeds would
fail once in a thousand or less.
"""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from specdec_lite import ModelDrafter, Sampling, TableModel, autoregressive, speculative
from specdec_lite.acceptance import Rule, TokenRejection
from specdec_lite.teaching.museum import ResampleFromTarget
from specdec_lite.theory import statistics
from specdec_lite.theory.exact import sequence_distribution, target_distribution

ALPHA, POWER, ROWS, PROMPT = 1e-3, 0.999, 5_000, [0, 1]


@pytest.mark.parametrize(
    ("degrees", "critical"), [(1, 3.841), (2, 5.991), (5, 11.070), (10, 18.307), (30, 43.773), (100, 124.342)]
)
def test_critical_values_of_the_printed_table(degrees: int, critical: float) -> None:
    assert statistics.critical_value(degrees, 0.05) == pytest.approx(critical, abs=6e-4)
    assert statistics.tail(critical, degrees) == pytest.approx(0.05, abs=1e-4)


def test_tail_of_two_degrees_is_exponential() -> None:
    assert statistics.tail(9.0, 2) == pytest.approx(math.exp(-4.5), rel=1e-12)
    assert statistics.tail(0.0, 7) == 1.0 and statistics.tail(math.inf, 7) == 0.0


@pytest.mark.parametrize(("degrees", "needed"), [(1, 785), (2, 964), (3, 1090), (4, 1194), (6, 1362)])
def test_samples_of_cohens_table(degrees: int, needed: int) -> None:
    """A small effect, w = 0.1, seen at level 0.05 with power 0.8 (Cohen 1992, Psychological Bulletin 112, table 2)."""
    assert statistics.samples_needed(0.05, degrees + 1, alpha=0.05, power=0.8) == pytest.approx(needed, abs=1)


def test_power_and_its_inverses_agree() -> None:
    bias = statistics.detectable_bias(2000, 9, alpha=0.01, power=0.9)
    assert statistics.power_of(2000, 2 * bias, 9, alpha=0.01) == pytest.approx(0.9, abs=1e-9)
    assert statistics.samples_needed(bias, 9, alpha=0.01, power=0.9) in (2000, 2001)
    assert statistics.power_of(2000, 0.0, 9, alpha=0.01) == pytest.approx(0.01, abs=1e-9)
    assert statistics.detectable_bias(8000, 9, 0.01, 0.9) == pytest.approx(bias / 2)


def share_rejected(truth: torch.Tensor, claimed: torch.Tensor, n: int, alpha: float) -> float:
    """How often, in 1,000 simulated tests of n draws each, the claim is rejected."""
    draws = np.random.default_rng(0).multinomial(n, truth.numpy(), size=1000)
    return sum(statistics.chi_square(torch.from_numpy(each), claimed).p_value < alpha for each in draws) / len(draws)


def test_false_alarms_and_power_by_simulation() -> None:
    """Honest draws ring at the level promised, draws at the detectable bias with the power promised."""
    claimed, n, alpha, power = torch.full((8,), 1 / 8, dtype=torch.float64), 1000, 0.05, 0.8
    assert share_rejected(claimed, claimed, n, alpha) == pytest.approx(alpha, abs=0.02)
    bias = statistics.detectable_bias(n, 8, alpha, power)
    off = claimed + torch.tensor([1.0, -1.0] * 4, dtype=torch.float64) * bias / 4  # all cells by the same share
    assert statistics.histogram_variation(off, claimed) == pytest.approx(bias)
    assert statistics.effect_size(off, claimed) == pytest.approx(2 * bias)
    assert share_rejected(off, claimed, n, alpha) == pytest.approx(power, abs=0.04)


def test_a_bias_in_rare_cells_shows_sooner() -> None:
    claimed = torch.tensor([0.05, 0.05, 0.45, 0.45], dtype=torch.float64)
    off = claimed + torch.tensor([0.04, -0.04, 0, 0], dtype=torch.float64)
    assert statistics.effect_size(off, claimed) > 2 * statistics.histogram_variation(off, claimed) * 1.5
    assert statistics.effect_size(claimed, torch.tensor([0, 0.1, 0.45, 0.45])) == math.inf


def test_variation_of_noise_by_simulation() -> None:
    probs = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    draws = torch.from_numpy(np.random.default_rng(0).multinomial(1000, probs.numpy(), size=500))
    seen = sum(statistics.histogram_variation(each, probs) for each in draws) / 500
    assert statistics.variation_of_noise(probs, 1000) == pytest.approx(seen, rel=0.05)


def test_small_cells_are_pooled() -> None:
    """100 draws: cells of expected 1, 2, 3 make one of 6; a lone cell of 3 takes in the next."""
    counts, probs = torch.tensor([0, 4, 5, 91]), torch.tensor([0.01, 0.02, 0.03, 0.94], dtype=torch.float64)
    found = statistics.chi_square(counts, probs)
    assert found.degrees == 1 and found.statistic == pytest.approx(9 / 6 + 9 / 94)
    lone = statistics.chi_square(torch.tensor([3, 37, 60]), torch.tensor([0.03, 0.37, 0.6], dtype=torch.float64))
    assert (lone.degrees, lone.statistic, lone.p_value) == (1, pytest.approx(0), pytest.approx(1))


def test_the_impossible_is_proof() -> None:
    """One draw of probability zero convicts; pooling must not hide it."""
    found = statistics.compare([(0,)] * 500 + [(1,)] * 500 + [(2,)], {(0,): 0.5, (1,): 0.5})
    assert (found.statistic, found.p_value) == (math.inf, 0.0)
    assert statistics.compare([(0,)] * 500 + [(1,)] * 500, {(0,): 0.5, (1,): 0.5, (2,): 0.0}).p_value == 1.0


@pytest.mark.parametrize(
    ("counts", "probs"), [([1, 2], [0.5, 0.25, 0.25]), ([0, 0], [0.5, 0.5]), ([5, 5], [0.5, 0.6]), ([9, 1], [0.9, 0.1])]
)
def test_refuses_what_cannot_be_tested(counts: list[int], probs: list[float]) -> None:
    with pytest.raises(ValueError, match="needs|one cell"):
        statistics.chi_square(torch.tensor(counts), torch.tensor(probs))


@pytest.mark.parametrize(("cells", "alpha", "power"), [(1, 0.05, 0.8), (5, 0.0, 0.8), (5, 0.9, 0.8), (5, 0.05, 1.0)])
def test_refuses_power_that_cannot_be(cells: int, alpha: float, power: float) -> None:
    with pytest.raises(ValueError, match="alpha < power"):
        statistics.detectable_bias(100, cells, alpha, power)


TARGET, DRAFT = TableModel(3, seed=1), TableModel(3, seed=2)
FILTERED = Sampling(temperature=0.9, top_p=0.95)


def pairs_of(tokens: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    return [tuple(row[:2]) for row in tokens]


def drawn(rule: Rule, sampling: Sampling) -> list[tuple[int, ...]]:
    made = speculative(
        TARGET, ModelDrafter(DRAFT), [PROMPT] * ROWS, k=2, max_new_tokens=3, sampling=sampling, rule=rule, trace="off"
    )
    return pairs_of(made.tokens)


@pytest.mark.parametrize("sampling", [Sampling(), FILTERED], ids=["plain", "filtered"])
def test_seeded_speculation_follows_the_target(sampling: Sampling) -> None:
    """Enumeration replaces the random numbers; here they are the real ones, in pairs of tokens."""
    truth = target_distribution(TARGET, PROMPT, max_new_tokens=2, sampling=sampling)
    found = statistics.compare(drawn(TokenRejection(), sampling), truth)
    assert found.p_value > ALPHA
    # What this would have seen: any bias of 6% of total variation or more, 999 times in 1,000.
    assert found.detectable_bias(ALPHA, POWER) < 0.06


def test_seeded_naive_decoding_follows_the_target() -> None:
    """The same numbers' other use: naive decoding draws from a round's last one alone."""
    made = autoregressive(TARGET, [PROMPT] * ROWS, max_new_tokens=2, trace="off")
    assert (
        statistics.compare(pairs_of(made.tokens), target_distribution(TARGET, PROMPT, max_new_tokens=2)).p_value > ALPHA
    )


def test_a_biased_rule_is_seen() -> None:
    """The negative control, with the power that its exactly enumerated bias predicts."""
    pairs = drawn(ResampleFromTarget(), Sampling())
    truth = target_distribution(TARGET, PROMPT, max_new_tokens=2)
    assert statistics.compare(pairs, truth).p_value < 1e-6
    biased: dict[tuple[int, ...], float] = {}
    whole = sequence_distribution(TARGET, ModelDrafter(DRAFT), PROMPT, k=2, max_new_tokens=3, rule=ResampleFromTarget())
    for text, p in whole.items():
        biased[text[:2]] = biased.get(text[:2], 0.0) + p
    p_true, p_claimed = (torch.tensor([d[pair] for pair in truth], dtype=torch.float64) for d in (biased, truth))
    assert statistics.power_of(ROWS, statistics.effect_size(p_true, p_claimed), len(truth), 1e-6) > 0.999999
    assert statistics.compare(pairs, biased).p_value > ALPHA  # what is drawn is exactly the enumerated bias
