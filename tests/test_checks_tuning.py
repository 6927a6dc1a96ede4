"""The exercises of notebook 06: wrong answers as students write them, with a part of what they are told.

`test_checks` runs what holds for every exercise, with these answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from specdec_lite.teaching import check


def tokens(a: float, k: int) -> float:
    return sum(a**i for i in range(k + 1))


def best(a: float, c: float, v: float = 0.0, first: int = 0) -> int:
    return max(range(first, 13), key=lambda k: (tokens(a, k) / (1 + k * (c + v)), -k))


def estimated(rounds: Any, drafted: bool = False) -> float:
    judged = sum(d if drafted else min(a + 1, d) for d, a in rounds)
    return (3 + sum(a for _, a in rounds)) / (4 + judged)


def halved(k: int, c: float, v: float) -> float:
    """Bisection that never asks whether its upper end is enough."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if tokens(middle, k) < 1 + k * (c + v) else (low, middle)
    return high


WRONG: dict[str, list[tuple[Callable[..., Any], str]]] = {
    "mean_tokens": [
        (lambda a, k: 1 + k * a, "only if all before it were kept"),
        (lambda a, k: sum(a**i for i in range(1, k + 1)), "one corrected or bonus token"),
        (lambda a, k: sum(a**i for i in range(max(k, 1))), "The bonus token is missing"),
        (lambda a, k: (1 - a ** (k + 1)) / (1 - a), "ZeroDivisionError"),
        (lambda a, k: [a**i for i in range(k + 1)], "expected a number"),
    ],
    "speed_up": [
        (lambda a, k, c, v: tokens(a, k) / (1 + c + k * v), "paid k times"),
        (lambda a, k, c, v: tokens(a, k) / (1 + k * c + (k + 1) * v), "not k + 1"),
        (lambda a, k, c, v: tokens(a, k) / (1 + k * c), "rows that are judged"),
        (lambda a, k, c, v: (1 + k * c + k * v) / tokens(a, k), "Turn it round"),
    ],
    "best_k": [
        (lambda a, c, v: best(a, c, v, first=1), "do not draft"),
        (lambda a, c, v: 12, "expected 6"),
        (lambda a, c, v: max(range(13), key=lambda k: tokens(a, k)), "whatever they cost"),
        (lambda a, c, v: tokens(a, 5) / (1 + 5 * (c + v)), "expected 6"),
    ],
    "break_even": [
        (lambda k, c, v: c + v, "answer for K = 1"),
        (lambda k, c, v: k * (c + v), "all drafts of a round cost"),
        (halved, "Not even acceptance 1"),
        (lambda k, c, v: next(a / 100 for a in range(101) if tokens(a / 100, k) >= 1 + k * (c + v)), "expected 0."),
    ],
    "adaptive_k": [
        (lambda rounds, now, c: best(estimated(rounds), c), "still to come"),
        (lambda rounds, now, c: best(estimated(rounds[: now + 1]), c), "not happened yet"),
        (lambda rounds, now, c: best(estimated(rounds[:now], drafted=True), c), "never judged"),
        (lambda rounds, now, c: best(sum(a for _, a in rounds[:now]) / sum(d for d, _ in rounds[:now]), c), "Zero"),
        (lambda rounds, now, c: 4, "the imagined tokens alone decide"),
    ],
}


@pytest.mark.parametrize("future", [[(8, 0)] * 4, [(8, 8)] * 4])
def test_a_rule_that_peeks_is_right_until_the_future_matters(future: Any) -> None:
    """The peeker passes every case whose rounds are all over, so the cases with a future are what catches it."""
    cases = check.adaptive_k.cases
    assert any(len(case.arguments[0]) > case.arguments[1] for case in cases)
    over = [case for case in cases if len(case.arguments[0]) == case.arguments[1]]
    assert all(best(estimated(rounds), c) == case.expected for case in over for rounds, _, c in [case.arguments])
