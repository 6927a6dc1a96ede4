"""The exercises of notebook 05: what they call right is what traces and formulas say, and mistakes are named.

`test_checks` runs what holds for every exercise, with the wrong answers below.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tiny

import specdec_lite as sd
from specdec_lite.teaching import check
from specdec_lite.teaching.checks.acceptance import DEPLOYED, as_rounds


def softmax(logits: list[float], temperature: float) -> list[float]:
    weights = [math.exp(each / temperature) for each in logits]
    return [each / sum(weights) for each in weights]


def wald(accepted: int, judged: int, z: float) -> tuple[float, float]:
    share = accepted / judged
    half = z * math.sqrt(share * (1 - share) / judged)
    return share - half, share + half


def rates(rounds: list[tuple[int, int]], never: Any) -> list[Any]:
    out = []
    for i in range(max(d for d, _ in rounds)):
        judged = [a for d, a in rounds if d > i and a >= i]
        out.append(sum(a > i for a in judged) / len(judged) if judged else never)
    return out


def told_by_drafted(before: dict[str, int], after: dict[str, int]) -> str:
    k = before["drafted"] / before["rounds"] != after["drafted"] / after["rounds"]
    draft = abs(before["accepted"] / before["drafted"] - after["accepted"] / after["drafted"]) > 0.02
    return "both" if k and draft else "k" if k else "draft" if draft else "neither"


def told_without_luck(before: dict[str, int], after: dict[str, int]) -> str:
    k = before["drafted"] / before["rounds"] != after["drafted"] / after["rounds"]
    draft = round(before["accepted"] / before["judged"], 2) != round(after["accepted"] / after["judged"], 2)
    return "both" if k and draft else "k" if k else "draft" if draft else "neither"


WRONG: dict[str, list[tuple[Callable[..., Any], str]]] = {
    "accepted_per_judged": [
        (lambda rounds: sum(a for _, a in rounds) / sum(d for d, _ in rounds), "accepted over drafted"),
        (lambda rounds: sum(a for _, a in rounds) / sum(a + 1 for _, a in rounds), "whole draft has none"),
        (lambda rounds: sum(a / min(d, a + 1) for d, a in rounds) / len(rounds), "expected 0.714286"),
        (lambda rounds: sum(a + 1 for _, a in rounds) / sum(min(d, a + 1) for d, a in rounds), "Nobody drafted"),
    ],
    "rate_by_position": [
        (lambda rounds: [sum(a > i for _, a in rounds) / len(rounds) for i in range(max(rounds)[0])], "all rounds"),
        (lambda rounds: rates(rounds, 0), "put None there"),
        (
            lambda rounds: [
                sum(a > i for _, a in rounds) / sum(d > i for d, _ in rounds) for i in range(max(d for d, _ in rounds))
            ],
            "never judged",
        ),
        (lambda rounds: sum(a for _, a in rounds) / sum(min(d, a + 1) for d, a in rounds), "expected a list"),
    ],
    "overlap_at": [
        (lambda t, d, heat: sum(map(min, softmax(t, 1), softmax(d, 1))), "gave 0.537883, expected 0.238406"),
        (lambda t, d, heat: sum(map(min, softmax(t, heat), softmax(d, heat))), "OverflowError"),
        (lambda t, d, heat: sum(map(min, softmax(t, heat), softmax(d, 1))), "expected 0.238406"),
        (lambda t, d, heat: [min(a, b) for a, b in zip(softmax(t, heat), softmax(d, heat), strict=True)], "a number"),
    ],
    "what_changed": [
        (told_by_drafted, "falls with K alone"),
        (told_without_luck, "luck"),
        (lambda before, after: "draft", "expected 'k'"),
        (lambda before, after: before == after, "expected 'k'"),
    ],
    "interval": [
        (wald, "Wald"),
        (lambda a, n, z: [max(0, wald(a, n, z)[0]), min(1, wald(a, n, z)[1])], "no certainty"),
        (lambda a, n, z: a / n, "expected a list"),
        (lambda a, n, z: wald(a + 2, n + 4, z), "expected [0.375528"),
    ],
}


def test_an_interval_may_be_a_tuple_or_a_list() -> None:
    ends = {tuple(case.arguments): case.expected for case in check.interval.cases}
    for kind in (tuple, list):
        assert check.interval.judge(lambda *given, kind=kind: kind(ends[given])).passed


def test_rounds_as_pairs_are_counted_as_the_trace_counts() -> None:
    target, draft = tiny.table_pair(vocab=5, context=60)
    made = sd.speculative(target, sd.ModelDrafter(draft), [0], k=4, max_new_tokens=40, stop=sd.Stop(), seed=3).trace
    pairs = [(len(each.drafted), each.accepted) for each in made.rounds]
    rebuilt = sd.Trace(as_rounds(pairs), 4)
    assert rebuilt.accepted_per_judged == made.accepted_per_judged
    assert rebuilt.acceptance_by_position().equals(made.acceptance_by_position())


def test_the_deployed_counts_could_be_those_of_a_run() -> None:
    """Judged lies between accepted and what a rejection a round would allow; all four answers are wanted."""
    for run in (each for before, after, _ in DEPLOYED for each in (before, after)):
        assert run["accepted"] <= run["judged"] <= min(run["drafted"], run["accepted"] + run["rounds"])
    assert {case.expected for case in check.what_changed.cases} == {"k", "draft", "both", "neither"}
