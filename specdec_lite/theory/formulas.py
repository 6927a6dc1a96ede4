"""What speculation is worth, in closed form.

Symbols: `acceptance` is a drafted token's chance to be kept (alpha in Leviathan et al. 2023), `k`
the tokens drafted a round (their gamma), costs are in units of one target forward over one row
(so `draft_cost` is their c). Sources: Leviathan, Kalman, Matias, "Fast inference from transformers
via speculative decoding", ICML 2023, arXiv:2211.17192; Wilson, JASA 22, 1927.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from torch import Tensor

from ..acceptance import overlap
from ..trace import Round

Cost = float | Callable[[int], float]  # a number, or a number for each k


def total_variation(p_target: Tensor, p_draft: Tensor) -> Tensor:
    """Half the absolute difference, summed. [..., vocab] twice -> [...].

    Leviathan et al. 2023, definition 3.2 and lemma 3.3 (their D_LK).
    """
    return (p_target - p_draft).abs().sum(-1) / 2


def acceptance(p_target: Tensor, p_draft: Tensor) -> Tensor:
    """Chance that `TokenRejection` keeps a token drawn from p_draft. [..., vocab] twice -> [...].

    sum(p_draft * min(1, p_target / p_draft)) = sum(min(p_target, p_draft)) = 1 - total variation
    (Leviathan et al. 2023, theorem 3.5). No exact rule keeps more at one place.
    """
    return overlap(p_target, p_draft)


def match_acceptance(p_target: Tensor, p_draft: Tensor) -> Tensor:
    """Chance that `SampleAndMatch` keeps it: two independent draws agree. [..., vocab] twice -> [...]."""
    return (p_target * p_draft).sum(-1)


def expected_tokens(acceptance: float, k: int) -> float:
    """New tokens a round, the corrected or bonus one counted: (1 - a^(k+1)) / (1 - a), and k + 1 at a = 1.

    Leviathan et al. 2023, equation 1; every position accepts alike and independently. Computed as
    the sum 1 + a + ... + a^k, which needs no special case at a = 1 and loses no digits near it.

    Raises:
        ValueError: acceptance outside 0 to 1, or k below 0.
    """
    _check(acceptance, k)
    return expected_tokens_by_position([acceptance] * k)


def expected_tokens_without_bonus(acceptance: float, k: int) -> float:
    """New tokens a round when full acceptance earns no bonus: (1 - a^k) / (1 - a), and k at a = 1.

    Equation 1 less the chance a^k of full acceptance. Errors as for `expected_tokens`.
    """
    return expected_tokens(acceptance, k) - acceptance**k


def expected_tokens_by_position(acceptances: Sequence[float]) -> float:
    """New tokens a round when position i accepts with its own chance, given that those before did.

    1 + a_1 + a_1 a_2 + ...: position i is kept when all up to it are. Equation 1 of Leviathan et
    al. 2023 is the case of equal chances.

    Raises:
        ValueError: an acceptance outside 0 to 1.
    """
    total, reach = 1.0, 1.0
    for each in acceptances:
        _check(each, 0)
        reach *= each
        total += reach
    return total


def speedup(acceptance: float, k: int, draft_cost: float, verify_cost: Cost = 1.0, overhead: float = 0.0) -> float:
    """Times as fast as naive decoding: tokens a round over what a round costs.

    (1 - a^(k+1)) / ((1 - a) (k c + v + o)). With v = 1 and o = 0 this is theorem 3.8 of Leviathan
    et al. 2023. That a forward over k + 1 rows costs no more than over one (v = 1) is an assumption
    about the machine, and where it fails speculation fails with it.

    Args:
        acceptance: chance to keep a drafted token, 0 to 1.
        k: tokens drafted, 0 or more.
        draft_cost: c, one forward of the draft.
        verify_cost: v, the target's forward over k + 1 rows; or a function of k.
        overhead: o, a round's other work beyond that of a naive step.

    Raises:
        ValueError: acceptance or k out of range, a negative cost, a round that costs nothing.
    """
    verify = verify_cost(k) if callable(verify_cost) else verify_cost
    cost = k * draft_cost + verify + overhead
    if min(draft_cost, verify, overhead) < 0 or cost <= 0:
        raise ValueError(
            f"costs must be 0 or more, not all 0: got draft {draft_cost}, verify {verify}, rest {overhead}"
        )
    return expected_tokens(acceptance, k) / cost


def best_k(
    acceptance: float,
    draft_cost: float,
    verify_cost: Cost = 1.0,
    overhead: float = 0.0,
    ks: Sequence[int] = range(1, 17),
) -> tuple[int, float]:
    """The k with the largest speed-up, and that speed-up; below 1 it is better not to speculate.

    Leviathan et al. 2023, section 3.5. Of equals the smallest k. Arguments and errors as for `speedup`.
    """
    gains = [(speedup(acceptance, k, draft_cost, verify_cost, overhead), -k) for k in ks]
    gain, k = max(gains)
    return -k, gain


def break_even(k: int, draft_cost: float, verify_cost: Cost = 1.0, overhead: float = 0.0) -> float:
    """The acceptance at which drafting k tokens is as fast as naive decoding; infinity where none suffices.

    Found by bisection: the speed-up only rises with the acceptance. For k = 1 it is draft_cost + verify_cost
    + overhead - 1. Errors as for `speedup`.
    """
    low, high = 0.0, 1.0
    if speedup(high, k, draft_cost, verify_cost, overhead) < 1:
        return float("inf")
    for _ in range(60):
        middle = (low + high) / 2
        enough = speedup(middle, k, draft_cost, verify_cost, overhead) >= 1
        low, high = (low, middle) if enough else (middle, high)
    return high


@dataclass(frozen=True)
class Estimate:
    """A share with its confidence interval."""

    value: float
    low: float
    high: float
    judged: int


def estimate_acceptance(accepted: int, judged: int, confidence: float = 0.95) -> Estimate:
    """Maximum-likelihood acceptance from counts, with Wilson's score interval.

    A round that keeps n of k tokens has likelihood a^n (1 - a), or a^k when it keeps all: tokens
    after a rejection were never judged and say nothing (they are censored). The product over
    rounds is largest at a = accepted / judged. Dividing by all drafted tokens instead gives a
    smaller number that falls with k although the draft is no worse. Interval: Wilson 1927.

    Raises:
        ValueError: nothing judged, more accepted than judged, or a confidence outside 0 to 1.
    """
    if not 0 <= accepted <= judged or judged == 0:
        raise ValueError(f"needs 0 <= accepted <= judged and judged > 0, got {accepted} of {judged}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    value = accepted / judged
    shrink = 1 + z * z / judged
    middle = (value + z * z / (2 * judged)) / shrink
    half = z / shrink * (value * (1 - value) / judged + z * z / (4 * judged * judged)) ** 0.5
    # rounding must not push the end off the estimate itself at 0 or 1
    return Estimate(value, max(0.0, min(value, middle - half)), min(1.0, max(value, middle + half)), judged)


def acceptance_of(rounds: Iterable[Round], confidence: float = 0.95) -> Estimate:
    """`estimate_acceptance` of a trace's rounds. Errors the same."""
    every = list(rounds)
    return estimate_acceptance(sum(r.accepted for r in every), sum(r.judged for r in every), confidence)


def _check(acceptance: float, k: int) -> None:
    if not 0 <= acceptance <= 1:
        raise ValueError(f"acceptance must lie between 0 and 1, got {acceptance}")
    if k < 0:
        raise ValueError(f"k must be 0 or more, got {k}")
