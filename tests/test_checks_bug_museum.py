"""The exercises of notebook 07: what students write. `test_checks` runs what holds for every exercise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from specdec_lite.teaching import check
from specdec_lite.teaching.checks.bug_museum import READINGS
from specdec_lite.teaching.museum.mystery import CASES, opened


def first_shares(t: Any, c: Any) -> list[Any]:
    left, out = 1, []
    for x in c:
        out.append(left * t[x])
        left -= t[x]
    return out


WRONG: dict[str, list[tuple[Callable[..., Any], str]]] = {
    "goes_on": [
        (lambda text, end: text[-1] != end, "its budget was spent"),
        (lambda text, end: end in text, "no bug by itself"),
        (lambda text, end: text.index(end) < len(text) - 1, "raised ValueError"),
        (lambda text, end: text.count(end) > 1, "One end is enough"),
        (lambda text, end: end in text and text[-1] != end, "look at the first one"),
    ],
    "triage": [
        (
            lambda off, kept, promised, p: (
                "biased" if off > 1e-6 else "exact but slow" if kept < promised - 0.05 else "exact"
            ),
            "do not listen to p_value",
        ),
        (lambda off, kept, promised, p: "biased" if off > 0 else "exact", "p_value=0.08) gave 'biased'"),
        (
            lambda off, kept, promised, p: (
                "biased" if off > 1e-6 or p < 1e-6 else "exact but slow" if kept < 0.95 else "exact"
            ),
            "on purpose",
        ),
        (
            lambda off, kept, promised, p: (
                "biased" if off > 1e-6 or p < 0.05 else "exact but slow" if kept < promised - 0.1 else "exact"
            ),
            "one in a million",
        ),
        (
            lambda off, kept, promised, p: (
                "exact but slow" if kept < promised - 0.05 else "biased" if off > 1e-6 or p < 1e-6 else "exact"
            ),
            "at once is biased",
        ),
        (lambda off, kept, promised, p: "slow", "gave 'slow', expected 'exact'"),
    ],
    "wrong_line": [
        (lambda version: 0, "Five of the six"),
        (lambda version: {"A": 8, "B": 4, "C": 9, "D": -1, "E": 7, "F": 3}[version], "the bug is in another line"),
        (lambda version: {"A": 9, "B": 5, "C": 10, "D": 8, "E": 8, "F": 4}[version], "gave 8, but that line is as it"),
        (lambda version: {"A": 9, "B": 5, "C": 0, "D": 0, "E": 8, "F": 4}[version], "gave 0, but there is a bug in it"),
        (lambda version: "line 9", "expected the number of a line"),
    ],
    "chances_in_turn": [
        (lambda t, c: [t[x] for x in c], "left its place to the others"),
        (first_shares, "how often a candidate is written"),
        (lambda t, c: [t[x] / (1 - t[c[i - 1]]) if i else t[x] for i, x in enumerate(c)], "not only the last one"),
        (lambda t, c: [min(1, t[x] / sum(t[y] for y in c[i:])) for i, x in enumerate(c)], "expected [1/2]"),
    ],
    "diagnose": [
        (lambda n: ("exact", None), "all exact"),
        (lambda n: "biased", "expected a class of"),
        (lambda n: ("biased", "twin"), "is not what makes a decoder 'biased'"),
        (
            lambda n: ("exact", None) if opened(n).caught_by == "dice" else (opened(n).kind, opened(n).caught_by),
            "replaces the dice",
        ),
        (
            lambda n: ("exact but slow", "twin") if n == 21 else (opened(n).kind, opened(n).caught_by),
            "keep little on purpose",
        ),
        (lambda n: ("biased", "dice") if opened(n).kind == "biased" else ("exact", None), "does enumeration ring"),
    ],
}


def test_a_checker_never_tells_the_answer() -> None:
    """Neither the class of a mystery nor the number of a line."""
    for number in CASES:
        for said in (("exact", None), ("biased", "enumeration"), ("exact but slow", "twin")):
            told = check.diagnose.judge(lambda n, number=number, said=said: said if n == number else answer(n)).text
            assert opened(number).name not in told
            assert answer(number) == said or repr(answer(number)[0]) not in told.replace(repr(said), "")


def answer(number: int) -> tuple[str, str | None]:
    return opened(number).kind, opened(number).caught_by


def test_the_readings_have_every_class_and_the_hard_ones() -> None:
    assert {kind for _, kind in READINGS} == {"biased", "exact but slow", "exact"}
    assert any(kind == "exact" and readings[1] < 0.8 for readings, kind in READINGS)
