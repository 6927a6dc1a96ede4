"""The exercises of notebook 05, seeing acceptance.

A round is a pair (drafted, accepted). What is right is asked of the library: of its traces, its
distributions and its closed forms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import torch

from ...acceptance import overlap
from ...sampling.distributions import Sampling, probabilities
from ...theory.acceptance_counts import counted
from ...theory.formulas import estimate_acceptance
from ...trace import Round
from ._framework import Case, Check

Rounds = list[tuple[int, int]]  # (drafted, accepted)

RUNS: tuple[tuple[Rounds, str], ...] = (
    ([(4, 1)], "one kept, the next rejected, two never judged"),
    ([(4, 4)], "everything was kept, so there is no rejection to count"),
    ([(4, 0)], ""),
    ([(4, 4), (4, 1), (4, 0)], ""),
    ([(2, 2), (2, 0), (2, 1)], ""),
    ([(3, 3), (0, 0), (3, 1)], "in the second round nothing was drafted"),
    ([(5, 2), (5, 5), (3, 3), (2, 0)], "near its end a text has room for fewer drafts"),
)


def as_rounds(rounds: Rounds) -> list[Round]:
    """What the library's own counting takes."""
    kinds = ["sampled" if not d else "bonus" if a == d else "corrected" for d, a in rounds]
    return [
        Round(0, i, 0, [0] * drafted, accepted, 0, kind, [0] * (accepted + 1), None)
        for i, ((drafted, accepted), kind) in enumerate(zip(rounds, kinds, strict=True))
    ]


def _judged(drafted: int, accepted: int) -> int:
    return min(drafted, accepted + 1)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


accepted_per_judged = Check(
    "accepted_per_judged",
    ("rounds",),
    [Case((rounds,), counted(as_rounds(rounds)).accepted_per_judged, about) for rounds, about in RUNS],
    {
        "That is accepted over drafted. Drafts after a rejection were never looked at: leave them out.": (
            lambda rounds: _ratio(sum(a for _, a in rounds), sum(d for d, _ in rounds))
        ),
        "You count a rejection in every round. A round that kept its whole draft has none.": (
            lambda rounds: _ratio(sum(a for _, a in rounds), sum(a + 1 for _, a in rounds))
        ),
        "You averaged the rounds' own shares. Add up both counts first, then divide once.": (
            lambda rounds: _ratio(sum(_ratio(a, _judged(d, a)) for d, a in rounds), sum(d > 0 for d, _ in rounds))
        ),
        "You counted the corrected and bonus tokens as accepted. Nobody drafted those.": (
            lambda rounds: _ratio(sum(a + 1 for _, a in rounds), sum(_judged(d, a) for d, a in rounds))
        ),
    },
    praise="Nothing that was never looked at is held against the draft.",
    hint="How many drafts of a round got a verdict: those kept, and one more if there was a rejection.",
)


def _rates(rounds: Rounds) -> list[float | None]:
    return [None if math.isnan(rate) else rate for rate in counted(as_rounds(rounds)).rates]


def _by_position(rounds: Rounds, whole: Any, none: Any = None) -> list[Any]:
    most = max(d for d, _ in rounds)
    found = []
    for i in range(most):
        count = sum(1 for d, a in rounds if whole(i, d, a))
        found.append(sum(a > i for _, a in rounds) / count if count else none)
    return found


rate_by_position = Check(
    "rate_by_position",
    ("rounds",),
    [Case((rounds,), _rates(rounds), about if "room" in about else "") for rounds, about in RUNS],
    {
        "You divided by all rounds. A position counts only where it got a verdict.": (
            lambda rounds: _by_position(rounds, lambda i, d, a: True)
        ),
        "You divided by the rounds that drafted the position. Some of these drafts were never judged.": (
            lambda rounds: _by_position(rounds, lambda i, d, a: d > i)
        ),
        "A position that was never judged has no rate: put None there. 0 would say that all of them failed.": (
            lambda rounds: _by_position(rounds, lambda i, d, a: _judged(d, a) > i, none=0)
        ),
        "You divided by the rounds that accepted the position before: but there, too, a draft may have ended.": (
            lambda rounds: _by_position(rounds, lambda i, d, a: a >= i)
        ),
    },
    praise="Each position is asked only where it had its say.",
    hint="Position i has a verdict in a round if it was drafted there and all before it were kept.",
)

LOGITS: tuple[tuple[list[float], list[float], float], ...] = (
    ([1.0, 0.0], [0.0, 1.0], 1.0),
    ([1.0, 0.0], [0.0, 1.0], 0.5),
    ([1.0, 0.0], [0.0, 1.0], 2.0),
    ([2.0, 1.0, 0.0], [1.0, 1.5, 0.0], 0.5),
    ([2.0, 1.0, 0.0, -1.0], [2.0, 1.0, 0.0, -1.0], 0.7),
    ([0.5, -0.5, 1.5], [1.0, 0.0, -1.0], 1.3),
    ([900.0, 899.0, 898.0], [899.0, 900.0, 898.0], 0.5),
)


def _overlap(target: Sequence[float], draft: Sequence[float], t_target: float, t_draft: float) -> float:
    rows = (
        probabilities(torch.tensor(each, dtype=torch.float64), Sampling(temperature=t))
        for each, t in ((target, t_target), (draft, t_draft))
    )
    return overlap(*rows).item()


overlap_at = Check(
    "overlap_at",
    ("logits_target", "logits_draft", "temperature"),
    [
        Case((target, draft, t), _overlap(target, draft, t, t), "these logits are large" if max(target) > 100 else "")
        for target, draft, t in LOGITS
    ],
    {
        "The temperature changed nothing in your answer: divide the logits by it before the softmax.": (
            lambda target, draft, t: _overlap(target, draft, 1.0, 1.0)
        ),
        "Upside down: logits are divided by the temperature. A low one makes distributions sharper.": (
            lambda target, draft, t: _overlap(target, draft, 1 / t, 1 / t)
        ),
        "Only the target had its temperature. Both models are sampled at it.": (
            lambda target, draft, t: _overlap(target, draft, t, 1.0)
        ),
        "Only the draft had its temperature. Both models are sampled at it.": (
            lambda target, draft, t: _overlap(target, draft, 1.0, t)
        ),
        "That is the total variation, what the two do not share.": (
            lambda target, draft, t: 1 - _overlap(target, draft, t, t)
        ),
    },
    praise="This is the number that a run at this temperature has for its acceptance.",
    hint="exp(logit / temperature), scaled to sum to 1, for both; then the smaller of the two, token by token.",
)

Counts = dict[str, int]  # rounds, drafted, judged, accepted


def _counts(rounds: int, drafted: int, judged: int, accepted: int) -> Counts:
    return dict(rounds=rounds, drafted=drafted, judged=judged, accepted=accepted)


BEFORE = _counts(500, 2000, 1476, 1181)  # K = 4, 0.80 of the judged
DEPLOYED: tuple[tuple[Counts, Counts, str], ...] = (
    (BEFORE, _counts(500, 4000, 2080, 1664), "accepted over drafted fell from 0.59 to 0.42"),
    (BEFORE, _counts(500, 2000, 1266, 886), "accepted over drafted fell from 0.59 to 0.44"),
    (BEFORE, _counts(500, 1000, 900, 720), "accepted over drafted rose from 0.59 to 0.72"),
    (BEFORE, _counts(50, 200, 146, 113), "accepted over judged fell from 0.80 to 0.77, in 50 rounds"),
    (BEFORE, _counts(500, 4000, 1571, 1099), "accepted over drafted fell from 0.59 to 0.27"),
    (BEFORE, BEFORE, "the same run"),
    (BEFORE, _counts(800, 1600, 1432, 1131), "accepted over drafted rose from 0.59 to 0.71"),
    (BEFORE, _counts(5000, 20000, 13886, 10553), "accepted over judged fell from 0.80 to 0.76, in 5,000 rounds"),
)


def _moved(before: Counts, after: Counts, times: float = 3.0) -> bool:
    """Whether acceptance among the judged moved by more than luck."""
    accepted, judged = (before[name] + after[name] for name in ("accepted", "judged"))
    share = accepted / judged
    error = (share * (1 - share) * (1 / before["judged"] + 1 / after["judged"])) ** 0.5
    gap = before["accepted"] / before["judged"] - after["accepted"] / after["judged"]
    return abs(gap) > times * error


def _words(k: bool, draft: bool) -> str:
    return "both" if k and draft else "k" if k else "draft" if draft else "neither"


def _per_round(each: Counts) -> float:
    return each["drafted"] / each["rounds"]


def _diagnosis(before: Counts, after: Counts) -> str:
    return _words(_per_round(before) != _per_round(after), _moved(before, after))


def _by_drafted(before: Counts, after: Counts) -> str:
    one, other = (each["accepted"] / each["drafted"] for each in (before, after))
    return _words(_per_round(before) != _per_round(after), abs(one - other) > 0.02)


def _without_luck(before: Counts, after: Counts) -> str:
    one, other = (each["accepted"] / each["judged"] for each in (before, after))
    return _words(_per_round(before) != _per_round(after), abs(one - other) > 0.01)


what_changed = Check(
    "what_changed",
    ("before", "after"),
    [Case((before, after), _diagnosis(before, after), about) for before, after, about in DEPLOYED],
    {
        "You asked accepted over drafted about the draft. It falls with K alone.": _by_drafted,
        "You believed every difference. Some of them are luck: compare with three standard errors.": _without_luck,
        "K is what was drafted in a round. The number of rounds only says how long the run was.": (
            lambda before, after: _words(before["drafted"] != after["drafted"], _moved(before, after))
        ),
        "You looked only at K. Did the share among the judged move too?": (
            lambda before, after: _words(_per_round(before) != _per_round(after), False)
        ),
        "You looked only at the draft. Is a round still as long as it was?": (
            lambda before, after: _words(False, _moved(before, after))
        ),
    },
    praise="That is the question to ask of every dashboard that shows one number for acceptance.",
    hint="Two questions: is drafted / rounds the same? Did accepted / judged move by more than three standard errors?",
)

Z = 1.96
JUDGED = ((4, 5), (50, 100), (80, 100), (0, 10), (10, 10), (1181, 1476))


def _wald(accepted: int, judged: int, z: float) -> list[float]:
    share = accepted / judged
    half = z * (share * (1 - share) / judged) ** 0.5
    return [share - half, share + half]


def _wilson(accepted: int, judged: int, z: float) -> list[float]:
    found = estimate_acceptance(accepted, judged, 2 * NormalDist().cdf(z) - 1)
    return [found.low, found.high]


interval = Check(
    "interval",
    ("accepted", "judged", "z"),
    [Case((*each, Z), _wilson(*each, Z)) for each in JUDGED],
    {
        "That is the textbook's first interval (Wald's). It leaves 0 to 1, and has no width when all were kept.": _wald,
        "Wald's interval, cut to 0 to 1. It still has no width when all were kept: ten of ten is no certainty.": (
            lambda accepted, judged, z: [
                max(0.0, _wald(accepted, judged, z)[0]),
                min(1.0, _wald(accepted, judged, z)[1]),
            ]
        ),
        "The middle of the interval is not the share itself: it is drawn towards 1/2.": (
            lambda accepted, judged, z: [
                accepted / judged + sign * (_wilson(accepted, judged, z)[1] - _wilson(accepted, judged, z)[0]) / 2
                for sign in (-1, 1)
            ]
        ),
        "You forgot z: that is one standard error to both sides, which holds about two times in three.": (
            lambda accepted, judged, z: _wilson(accepted, judged, 1.0)
        ),
    },
    praise="Ten of ten kept: the draft may still fail one time in four.",
    hint="Solve (share - a)^2 = z^2 a (1 - a) / judged for a. It is a quadratic equation; both roots are the ends.",
)
