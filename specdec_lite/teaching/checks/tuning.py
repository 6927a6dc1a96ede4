"""The exercises of notebook 06, K, cost and alignment. What is right is asked of `theory.formulas`.

Costs are in naive steps: a round that drafts k tokens costs 1 + k * (draft_cost + verify_cost).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ...theory import formulas
from ._framework import Case, Check

MOST = 12  # the largest k that exercises choose


def _speed(acceptance: float, k: int, draft_cost: float, verify_cost: float) -> float:
    return formulas.speedup(acceptance, k, draft_cost, lambda n: 1 + n * verify_cost)


def _powers(acceptance: float, first: int, last: int) -> float:
    return sum(acceptance**i for i in range(first, last + 1))


mean_tokens = Check(
    "mean_tokens",
    ("acceptance", "k"),
    [
        Case((a, k), formulas.expected_tokens(a, k), about)
        for a, k, about in (
            (0.5, 0, "nothing drafted"),
            (0.5, 1, ""),
            (0.5, 2, ""),
            (0.0, 3, "nothing is ever kept"),
            (1.0, 3, "everything is kept"),
            (0.8, 5, ""),
            (0.25, 12, ""),
        )
    ],
    {
        "You counted the kept drafts. Every round also writes one corrected or bonus token.": (
            lambda a, k: _powers(a, 1, k)
        ),
        "A draft counts only if all before it were kept too: draft i is reached with chance a to the power i - 1.": (
            lambda a, k: 1 + k * a
        ),
        "The bonus token is missing: a round that keeps all k drafts writes k + 1 tokens.": (
            lambda a, k: _powers(a, 0, k - 1) if k else 1
        ),
        "That is as if every draft were kept.": lambda a, k: k + 1,
    },
    praise="Equation 1 of Leviathan et al.",
    hint="One token always comes. Draft i adds one more with the chance that drafts 1 to i are all kept.",
)

PLACES = (
    (0.5, 1, 0.25, 0.0),
    (0.8, 4, 0.1, 0.0),
    (0.8, 4, 0.1, 0.05),
    (0.6, 3, 0.0, 0.5),
    (1.0, 8, 0.125, 0.0),
    (0.0, 2, 0.1, 0.1),
)

speed_up = Check(
    "speed_up",
    ("acceptance", "k", "draft_cost", "verify_cost"),
    [Case(place, _speed(*place)) for place in PLACES],
    {
        "The target's own forward is missing from the cost: the 1 in 1 + k * (draft_cost + verify_cost).": (
            lambda a, k, c, v: _powers(a, 0, k) / (k * (c + v))
        ),
        "k tokens are drafted one after another, so the draft is paid k times.": (
            lambda a, k, c, v: _powers(a, 0, k) / (1 + c + k * v)
        ),
        "The rows that are judged cost something too: verify_cost for each of the k.": (
            lambda a, k, c, v: _powers(a, 0, k) / (1 + k * c)
        ),
        "The first row is what a naive step pays as well: only the other k cost extra, not k + 1.": (
            lambda a, k, c, v: _powers(a, 0, k) / (1 + k * c + (k + 1) * v)
        ),
        "That is how many times as long it takes. Turn it round.": (
            lambda a, k, c, v: (1 + k * (c + v)) / _powers(a, 0, k)
        ),
        "These are the tokens. Divide them by what the round costs.": lambda a, k, c, v: _powers(a, 0, k),
    },
    praise="Theorem 3.8 of Leviathan et al., with a price for every judged row.",
    hint="Tokens a round, divided by 1 + k * (draft_cost + verify_cost).",
)

SETTINGS = ((0.8, 0.1, 0.0), (0.5, 0.2, 0.0), (0.2, 0.3, 0.0), (0.9, 0.05, 0.05), (0.95, 0.0, 0.0), (0.5, 0.5, 0.0))


def _best(
    acceptance: float, draft_cost: float, verify_cost: float, first: int = 0, worth: Callable[..., float] = _speed
) -> int:
    return max(range(first, MOST + 1), key=lambda k: (worth(acceptance, k, draft_cost, verify_cost), -k))


best_k = Check(
    "best_k",
    ("acceptance", "draft_cost", "verify_cost"),
    [Case(each, _best(*each)) for each in SETTINGS],
    {
        "Where no K is faster than naive decoding the answer is 0: do not draft.": lambda a, c, v: _best(a, c, v, 1),
        "That K brings the most tokens a round, whatever they cost.": (
            lambda a, c, v: _best(a, c, v, 0, lambda a, k, c, v: _powers(a, 0, k))
        ),
        "That is the speed-up. Which K reaches it?": lambda a, c, v: _speed(a, _best(a, c, v), c, v),
        "That stops when a draft's chance to count falls below its own price. Below its price times the speed so far "
        "it already slows the rest down.": (
            lambda a, c, v: _best(a, c, v, 0, lambda a, k, c, v: _powers(a, 0, k) - k * (c + v))
        ),
    },
    praise="One more draft pays while its chance to count exceeds its price times the speed so far.",
    hint=f"Try K = 0 to {MOST} and keep the fastest; of equals the smallest.",
)

break_even = Check(
    "break_even",
    ("k", "draft_cost", "verify_cost"),
    [
        Case((k, c, v), formulas.break_even(k, c, lambda n, v=v: 1 + n * v))
        for k, c, v in ((1, 0.25, 0.0), (1, 0.1, 0.2), (2, 0.1, 0.0), (4, 0.1, 0.05), (8, 0.05, 0.05), (12, 0.5, 0.0))
    ]
    + [Case((2, 0.9, 0.3), math.inf, "a draft and its row cost more than a token is worth: no acceptance is enough")],
    {
        "That is the answer for K = 1. With more drafts each is reached less often than the one before.": (
            lambda k, c, v: c + v
        ),
        "That is what all drafts of a round cost, not the acceptance that pays for them.": lambda k, c, v: k * (c + v),
        "Not even acceptance 1 is enough for the last one: then no number from 0 to 1 is the answer.": (
            lambda k, c, v: min(1.0, formulas.break_even(k, c, lambda n: 1 + n * v))
        ),
        "The rows that are judged cost something too.": lambda k, c, v: formulas.break_even(k, c),
    },
    praise="Below it, every round loses time.",
    hint="Where does a + a^2 + ... + a^k equal k * (draft_cost + verify_cost)? Halve the interval 0 to 1, 40 times.",
)

Rounds = Sequence[tuple[int, int]]
HISTORY: list[tuple[int, int]] = [(4, 4), (4, 1), (4, 0), (3, 3), (2, 0), (1, 1), (4, 4), (4, 4)]
FAILS = [(8, 0)] * 8


def _estimate(rounds: Rounds, censored: bool = True) -> float:
    judged = sum(min(accepted + 1, drafted) if censored else drafted for drafted, accepted in rounds)
    return (3 + sum(accepted for _, accepted in rounds)) / (4 + judged)


def _adaptive(rounds: Rounds, draft_cost: float, censored: bool = True) -> int:
    return _best(_estimate(rounds, censored), draft_cost, 0.0)


adaptive_k = Check(
    "adaptive_k",
    ("rounds", "now", "draft_cost"),
    [
        Case((rounds, now, cost), _adaptive(rounds[:now], cost), about)
        for rounds, now, cost, about in (
            ([], 0, 0.1, "nothing is known: the imagined tokens alone decide"),
            ([(4, 4)], 1, 0.1, ""),
            ([(4, 1)], 1, 0.1, ""),
            ([(8, 2), (8, 2), (8, 3)], 3, 0.1, ""),
            ([(4, 4), *FAILS], 1, 0.1, "only round 0 is over; what comes later must not matter"),
            ([(4, 4), (8, 8), (8, 8)], 1, 0.1, "the same past, another future"),
            (FAILS, 8, 0.3, "nothing was ever kept"),
            (HISTORY, 6, 0.05, ""),
        )
    ],
    {
        "That looks at rounds that are still to come. K may depend on rounds[:now] only.": (
            lambda rounds, now, cost: _adaptive(rounds, cost)
        ),
        "That looks at round `now` itself, which has not happened yet.": (
            lambda rounds, now, cost: _adaptive(rounds[: now + 1], cost)
        ),
        "Drafts after a rejection were never judged: they say nothing about the draft. Divide by the judged ones.": (
            lambda rounds, now, cost: _adaptive(rounds[:now], cost, censored=False)
        ),
        "That looks at the last round alone. All rounds that are over count.": (
            lambda rounds, now, cost: _adaptive(rounds[max(0, now - 1) : now], cost)
        ),
    },
    praise="A rule that sees the past only is exact, whatever it makes of it.",
    hint="Judged in a round: accepted + 1, but no more than drafted. Then (3 + accepted) / (4 + judged) into best_k.",
)
