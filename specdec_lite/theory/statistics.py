"""What samples can tell: chi-square goodness of fit, and how large a bias it would have seen.

A test that passes says little until its power is stated: a bias too small for the number of draws
passes too. Sources: Pearson 1900 for the test; Cohen, "Statistical power analysis for the behavioral
sciences", 2nd edition 1988, chapter 7, for effect size and power. Numbers of cells count those
left after pooling; the degrees of freedom are one fewer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST_EXPECTED = 5.0  # the usual rule (Cochran 1954): below it chi-square is a poor approximation


@dataclass(frozen=True)
class ChiSquare:
    """Result of a goodness-of-fit test."""

    statistic: float  # inf when something impossible was seen
    degrees: int
    p_value: float  # chance of a statistic at least so large if the claim is true
    draws: int

    def detectable_bias(self, alpha: float, power: float) -> float:
        """What this test would have seen: see `detectable_bias`."""
        return detectable_bias(self.draws, self.degrees + 1, alpha, power)


def chi_square(counts: Tensor, probs: Tensor) -> ChiSquare:
    """Do counts follow the claimed probabilities? counts [cells], probs [cells].

    Cells with an expected count below 5 are pooled, smallest first, until the pool reaches 5.

    Raises:
        ValueError: shapes differ, nothing counted, probs do not sum to 1, or all falls into one cell.
    """
    counts, probs = counts.double(), probs.double()
    if counts.shape != probs.shape or counts.ndim != 1:
        raise ValueError(
            f"needs one count and one probability a cell, got {list(counts.shape)} and {list(probs.shape)}"
        )
    draws = counts.sum().item()
    if draws <= 0 or abs(probs.sum().item() - 1) > 1e-6:
        raise ValueError(f"needs counts above 0 and probabilities that sum to 1, got {draws:g} and {probs.sum():.9f}")
    impossible = counts[probs == 0].sum().item()  # before pooling, which would hide it
    expected, order = (draws * probs[probs > 0]).sort()
    observed = counts[probs > 0][order]
    pool = int((expected < SMALLEST_EXPECTED).sum())
    while 0 < pool < len(expected) and expected[:pool].sum() < SMALLEST_EXPECTED:
        pool += 1
    if pool:
        expected = torch.cat([expected[:pool].sum(0, keepdim=True), expected[pool:]])
        observed = torch.cat([observed[:pool].sum(0, keepdim=True), observed[pool:]])
    degrees = len(expected) - 1
    if degrees == 0 and not impossible:
        raise ValueError("all falls into one cell, so any counts would fit: draw more, or use fewer cells")
    statistic = math.inf if impossible else ((observed - expected) ** 2 / expected).sum().item()
    return ChiSquare(statistic, degrees, 0.0 if impossible else tail(statistic, degrees), round(draws))


def compare(outcomes: Iterable[tuple[int, ...]], claimed: Mapping[tuple[int, ...], float]) -> ChiSquare:
    """`chi_square` of texts (or any outcomes) against a distribution, for instance `exact.target_distribution`."""
    seen = Counter(outcomes)
    cells = list(claimed.keys() | seen.keys())
    counts = torch.tensor([float(seen[cell]) for cell in cells], dtype=torch.float64)
    return chi_square(counts, torch.tensor([claimed.get(cell, 0.0) for cell in cells], dtype=torch.float64))


def histogram_variation(one: Tensor, other: Tensor) -> float:
    """Total variation of two histograms (counts or probabilities), each [cells]: 0 same, 1 disjoint."""
    return ((one / one.sum() - other / other.sum()).abs().sum() / 2).item()


def variation_of_noise(probs: Tensor, n: int) -> float:
    """Total variation that n honest draws have on average from their own distribution. probs [cells].

    A count is nearly normal, and a normal deviation is on average sqrt(2 / pi) of its standard one.
    A histogram's total variation means nothing until it is compared with this.
    """
    return (2 * probs * (1 - probs) / (math.pi * n)).sqrt().sum().item() / 2


def tail(statistic: float, degrees: int, noncentrality: float = 0.0) -> float:
    """Chance that a chi-square variable exceeds `statistic`; noncentral when the claim is wrong.

    The central one is the regularised upper incomplete gamma function Q(degrees / 2, x / 2), the
    noncentral one a Poisson mixture of those: Johnson, Kotz, Balakrishnan, "Continuous univariate
    distributions" vol. 2, 1995, equation 29.2.
    """
    mean = noncentrality / 2
    terms = torch.arange(1 + int(mean + 12 * math.sqrt(mean) + 40 * (mean > 0)), dtype=torch.float64)
    weights = torch.exp(terms * math.log(mean) - mean - torch.lgamma(terms + 1)) if mean > 0 else torch.ones(1)
    half = torch.tensor(statistic / 2, dtype=torch.float64).expand(len(terms))
    return min(1.0, (weights * torch.special.gammaincc(degrees / 2 + terms, half)).sum().item())


def critical_value(degrees: int, alpha: float) -> float:
    """The statistic above which a test at level alpha rejects."""
    return _where(lambda x: alpha - tail(x, degrees))


def needed_noncentrality(degrees: int, alpha: float, power: float) -> float:
    """The noncentrality n * w ** 2 at which a test at level alpha rejects with chance `power`.

    Raises:
        ValueError: not 0 < alpha < power < 1, or fewer than one degree of freedom.
    """
    if not 0 < alpha < power < 1 or degrees < 1:
        raise ValueError(f"needs 0 < alpha < power < 1 and 2 cells or more, got {alpha}, {power}, {degrees + 1} cells")
    critical = critical_value(degrees, alpha)
    return _where(lambda noncentrality: tail(critical, degrees, noncentrality) - power)


def effect_size(p_true: Tensor, p_claimed: Tensor) -> float:
    """Cohen's w = sqrt(sum((p_true - p_claimed)^2 / p_claimed)), [cells] twice (1988, formula 7.2.1).

    By Cauchy and Schwarz w >= 2 * total variation, with equality when all cells are off by the same share.
    """
    if (p_true[p_claimed == 0] > 0).any():
        return math.inf
    claimed = p_claimed > 0
    return ((p_true - p_claimed)[claimed] ** 2 / p_claimed[claimed]).sum().sqrt().item()


def power_of(n: int, effect: float, cells: int, alpha: float) -> float:
    """Chance that n draws reject the claim at level alpha when the truth is `effect` (Cohen's w) away."""
    return tail(critical_value(cells - 1, alpha), cells - 1, n * effect * effect)


def detectable_bias(n: int, cells: int, alpha: float, power: float) -> float:
    """The total variation from which on any bias is rejected at level alpha with at least this power.

    w = sqrt(needed_noncentrality / n) is what a chi-square test sees, and a bias with total variation
    t has w >= 2 t, so t = w / 2 suffices. It is the worst case: a bias that sits in rare cells has a
    larger w and shows sooner. Nothing is promised inside cells that are pooled. Errors as for
    `needed_noncentrality`.
    """
    return math.sqrt(needed_noncentrality(cells - 1, alpha, power) / n) / 2


def samples_needed(bias: float, cells: int, alpha: float, power: float) -> int:
    """Draws after which any bias of this total variation is seen so: the inverse of `detectable_bias`."""
    return math.ceil(needed_noncentrality(cells - 1, alpha, power) / (2 * bias) ** 2)


def _where(rising: Callable[[float], float]) -> float:
    """The zero of a rising function of a number from 0 up, by bisection."""
    low, high = 0.0, 1.0
    while rising(high) < 0:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return high
