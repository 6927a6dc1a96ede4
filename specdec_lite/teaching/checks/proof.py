"""The exercises of notebook 04, why the output is exactly the target's.

Distributions are lists of fractions, one for each token. What is right is asked of the library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction as F
from math import prod
from typing import Any

import torch
from torch import Tensor

from ...acceptance import TokenRejection
from ...acceptance import overlap as library_overlap
from ...acceptance import residual as library_residual
from ...theory.formulas import expected_tokens_by_position
from ._framework import Case, Check, plain, shown

Probs = Sequence[F]

# Two tokens, then the three of the notebook, then corners, then five.
PAIRS: tuple[tuple[list[F], list[F]], ...] = (
    ([F(3, 4), F(1, 4)], [F(1, 2), F(1, 2)]),
    ([F(1, 2), F(1, 3), F(1, 6)], [F(1, 4), F(1, 4), F(1, 2)]),
    ([F(1, 3), F(2, 3)], [F(1, 3), F(2, 3)]),
    ([F(1), F(0)], [F(0), F(1)]),
    ([F(0), F(1, 5), F(4, 5)], [F(1, 2), F(1, 2), F(0)]),
    ([F(1, 20), F(6, 20), F(2, 20), F(8, 20), F(3, 20)], [F(4, 20), F(5, 20), F(5, 20), F(2, 20), F(4, 20)]),
)


def tensor(probs: Probs) -> Tensor:
    return torch.tensor([float(p) for p in probs], dtype=torch.float64)


def fraction(value: Any) -> Any:
    """What the library computes in float64, as the fraction with a small denominator that it is."""
    if isinstance(value, Tensor):
        return fraction(value.tolist())
    return [fraction(each) for each in value] if isinstance(value, list) else F(value).limit_denominator(10_000)


def scaled(left: Sequence[F]) -> list[F]:
    return [each / sum(left) for each in left]


overlap = Check(
    "overlap",
    ("p_target", "p_draft"),
    [Case(pair, fraction(library_overlap(*map(tensor, pair)))) for pair in PAIRS],
    {
        "That is the chance that two independent draws agree. Two areas share more than their product.": (
            lambda t, d: sum(a * b for a, b in zip(t, d, strict=True))
        ),
        "That is the total variation, what the two do not share. You are one subtraction away.": (
            lambda t, d: sum(abs(a - b) for a, b in zip(t, d, strict=True)) / 2
        ),
        "That is the sum of all differences, which is 0 for equal distributions; theirs should be 1.": (
            lambda t, d: sum(abs(a - b) for a, b in zip(t, d, strict=True))
        ),
        "That is the outline around both areas, which is 1 or more. What lies under both?": (
            lambda t, d: sum(map(max, t, d))
        ),
        "That is the smallest probability of all. Compare token by token, then add up.": lambda t, d: min([*t, *d]),
    },
    praise="Equal distributions share 1, disjoint ones 0.",
    hint="For each token, how much lies under both bars?",
)

keep_chance = Check(
    "keep_chance",
    ("p_target", "p_draft", "token"),
    [
        Case((t, d, x), fraction(TokenRejection().accept_prob(tensor(t), tensor(d), torch.tensor(x))))
        for t, d in PAIRS
        for x in range(len(t))
        if d[x] > 0
    ],
    {
        "A chance above 1: where the target wants a token more than the draft does, it is always kept.": (
            lambda t, d, x: t[x] / d[x]
        ),
        "Upside down: a token that the draft likes too much must be thinned out, not one it likes too little.": (
            lambda t, d, x: min(1, d[x] / t[x])
        ),
        "That is how much is drafted and kept. The token was drafted already: given that, how often is it kept?": (
            lambda t, d, x: min(t[x], d[x])
        ),
        "Never a plain yes or no: a token with half the probability it should have is kept half of the time.": (
            lambda t, d, x: int(t[x] >= d[x])
        ),
        "That keeps too little: it is exact (the rule `SampleAndMatch`), but it ignores p_draft.": lambda t, d, x: t[x],
    },
    praise="No exact rule that judges one draft at a time keeps more.",
    hint="p_draft times the chance must come to the smaller of the two probabilities.",
)

residual = Check(
    "residual",
    ("p_target", "p_draft"),
    [Case(pair, fraction(library_residual(*map(tensor, pair)))) for pair in PAIRS],
    {
        "Right shape, but it does not sum to 1, so nobody can draw from it.": (
            lambda t, d: [max(a - b, 0) for a, b in zip(t, d, strict=True)]
        ),
        "That is p_target itself: what was kept already would be written again here, beside what is missing.": (
            lambda t, d: list(t)
        ),
        "A negative entry is no probability: where the draft has more than the target, nothing is missing.": (
            lambda t, d: [a - b for a, b in zip(t, d, strict=True)]
        ),
        "That counts what the draft has too much of as missing too. Only one of the two differences is wanted.": (
            lambda t, d: scaled([abs(a - b) for a, b in zip(t, d, strict=True)]) if t != d else list(t)
        ),
        "That is what the draft has too much of. Which tokens does the target still miss?": (
            lambda t, d: scaled([max(b - a, 0) for a, b in zip(t, d, strict=True)]) if t != d else list(t)
        ),
    },
    praise="What is missing, and nothing else, is what a rejection pays for.",
    hint="What does the target want beyond what the draft delivers? Where nothing is left, give p_target.",
)

# A round, from given uniforms

T0, D0 = PAIRS[1]
T1, D1 = [F(1, 10), F(2, 10), F(7, 10)], [F(3, 10), F(6, 10), F(1, 10)]
T2, D2 = [F(2, 5), F(3, 5), F(0)], [F(1, 5), F(1, 5), F(3, 5)]
T3 = [F(0), F(1, 10), F(9, 10)]


def pick(probs: Probs, uniform: F) -> int:
    """The first token whose cumulative probability exceeds `uniform`: how one number draws one token."""
    reached = F(0)
    for token, p in enumerate(probs):
        reached += p
        if uniform < reached:
            return token
    return len(probs) - 1


def _drawn(probs: Tensor, uniform: F) -> int:
    return pick(fraction(probs), uniform)


def _chance(t: Probs, d: Probs, x: int) -> F:
    return fraction(TokenRejection().accept_prob(tensor(t), tensor(d), torch.tensor(x)).item())


def _mistaken(
    replace: Callable[[Probs, Probs], Tensor] = lambda t, d: library_residual(tensor(t), tensor(d)),
    keep: Callable[[F, F], bool] = lambda u, chance: u < chance,
    goes_on: bool = False,
    bonus: Callable[[Sequence[Probs]], Probs | None] = lambda t: t[-1],
    own: bool = True,
) -> Callable[..., list[int]]:
    """A round with one part exchanged."""

    def round_(t: Sequence[Probs], d: Sequence[Probs], drafted: list[int], u: list[F], last: F) -> list[int]:
        kept = []
        for i, x in enumerate(drafted):
            if keep(u[i] if own else u[0], _chance(t[i], d[i], x)):
                kept.append(x)
            elif not goes_on:
                return kept if replace is None else [*kept, _drawn(replace(t[i], d[i]), last)]
        return kept if bonus(t) is None else [*kept, pick(bonus(t), last)]

    return round_


speculative_round = Check(
    "speculative_round",
    ("p_target", "p_draft", "drafted", "uniforms", "last"),
    [
        Case(([T1], [], [], [], F(1, 4)), [1], "nothing drafted, so this is a naive step"),
        Case(([T0, T1], [D0], [0], [F(9, 10)], F(1, 2)), [0, 2], "kept, so a bonus token follows"),
        Case(([T0, T1], [D0], [2], [F(1, 5)], F(1, 5)), [2, 1], "kept, so a bonus token follows"),
        Case(([T0, T1], [D0], [2], [F(1, 2)], F(3, 5)), [0], "rejected, so a corrected token ends the round"),
        Case(([T0, T1], [D0], [2], [F(1, 3)], F(9, 10)), [1], "the uniform equals the chance, so it is not below"),
        Case(([T0, T1, T3], [D0, D1], [2, 2], [F(3, 4), F(1, 4)], F(3, 5)), [0], "the first of two is rejected"),
        Case(([T0, T1, T3], [D0, D1], [0, 1], [F(3, 4), F(1, 2)], F(1, 10)), [0, 2], "the second of two is rejected"),
        Case(([T0, T1, T3], [D0, D1], [0, 1], [F(1, 10), F(1, 2)], F(1, 2)), [0, 2], "the second of two is rejected"),
        Case(([T0, T1, T3], [D0, D1], [1, 2], [F(3, 4), F(1, 2)], F(1, 20)), [1, 2, 1], "both kept, then a bonus"),
        Case(
            ([T0, T1, T2, T3], [D0, D1, D2], [1, 2, 2], [F(0), F(0), F(0)], F(1, 2)),
            [1, 2, 1],
            "a token the target forbids",
        ),
    ],
    {
        "The replacement came from p_target. It must come from the residual at that place.": (
            _mistaken(replace=lambda t, d: tensor(t))
        ),
        "The replacement came from what the draft has too much of: the residual is p_target less p_draft.": (
            _mistaken(replace=lambda t, d: library_residual(tensor(d), tensor(t)))
        ),
        "A rejection ends the round: the drafts after it continued a text that no longer exists.": (
            _mistaken(goes_on=True)
        ),
        "A rejected draft must be replaced, by one draw from the residual with `last`.": _mistaken(replace=None),
        "When every draft is kept, one token more is free: draw it from the last entry of p_target.": (
            _mistaken(bonus=lambda t: None)
        ),
        "The bonus token has a distribution of its own, the last of p_target, which is one longer than p_draft.": (
            _mistaken(bonus=lambda t: t[max(0, len(t) - 2)])
        ),
        "Keep a draft when its uniform is below the chance, not when it equals it: a chance of 0 must never win.": (
            _mistaken(keep=lambda u, chance: u <= chance)
        ),
        "Each draft has a uniform of its own: the one at its place in `uniforms`.": _mistaken(own=False),
        "The comparison is the wrong way round: a large chance should keep often.": (
            _mistaken(keep=lambda u, chance: u > chance)
        ),
    },
    praise="That is the whole algorithm.",
    hint="From the left: keep while the uniform is below the chance. The first that fails is replaced; then stop.",
)

CHANCES: tuple[list[F], ...] = (
    [],
    [F(1, 2)],
    [F(1)],
    [F(1, 2), F(1, 2)],
    [F(0), F(1)],
    [F(1), F(0)],
    [F(9, 10), F(1, 2), F(1, 5)],
    [F(4, 5)] * 4,
)


def _reach(chances: Probs) -> list[F]:
    return [prod(chances[: i + 1]) for i in range(len(chances))]


tokens_a_round = Check(
    "tokens_a_round",
    ("chances",),
    [Case((chances,), F(expected_tokens_by_position(chances)).limit_denominator(10_000)) for chances in CHANCES],
    {
        "You counted the kept drafts. Every round also writes one corrected or bonus token.": (
            lambda a: sum(_reach(a))
        ),
        "A draft counts only if all before it were kept too: its own chance is not enough.": lambda a: 1 + sum(a),
        "That is the tokens at stake, as if every draft were kept.": lambda a: 1 + len(a),
        "That is the round in which everything is kept; shorter rounds bring tokens as well.": (
            lambda a: 1 + len(a) * prod(a)
        ),
        "The mean chance is not enough: an early rejection costs more than a late one, so the order matters.": (
            lambda a: sum((sum(a) / max(1, len(a))) ** i for i in range(len(a) + 1))
        ),
    },
    praise="With equal chances a it is 1 + a + ... + a^K, equation 1 of Leviathan et al.",
    hint="With which chance does the round reach the i-th draft and keep it? Add those up.",
)


def _exact(t: Probs, d: Probs) -> Callable[[Any], str]:
    """What is wrong with chances of keeping, one for each token, as a part of an exact rule."""

    def told(chances: Any) -> str:
        if not isinstance(chances, (list, tuple)) or len(chances) != len(t):
            return f"gave {shown(chances)}, expected a list of {len(t)} chances, one for each token"
        chances = [plain(each) for each in chances]
        for x, chance in enumerate(chances):
            if not 0 <= chance <= 1:
                return f"gave token {x} the chance {shown(chance)}, which does not lie between 0 and 1"
            if d[x] * chance > t[x] + 1e-9:
                kept = f"{d[x]} * {shown(chance)} = {shown(d[x] * chance)}"
                return (
                    f"writes token {x} with {kept} by keeping alone, more than p_target's {t[x]}: nothing can undo that"
                )
        if (
            max(chance * p for chance, p in zip(chances, d, strict=True))
            <= 0
            < fraction(library_overlap(tensor(t), tensor(d)).item())
        ):
            return f"gave {shown(list(chances))}: exact, but it keeps nothing at all"
        known = {
            "the founding rule": [_chance(t, d, x) if d[x] else chances[x] for x in range(len(t))],
            "SampleAndMatch": list(t),
        }
        for name, rule in known.items():
            if len(set(t)) > 1 and t != d and all(abs(a - b) < 1e-9 for a, b in zip(rule, chances, strict=True)):
                return f"gave {shown(list(chances))}: exact, but it is {name}, which we have"
        return ""

    return told


another_rule = Check(
    "another_rule",
    ("p_target", "p_draft"),
    [Case(pair, _exact(*pair)) for pair in PAIRS if max(map(min, *pair)) > 0],
    praise="Your rule is exact, once its correction draws what is still missing. It keeps less than the overlap.",
)
