"""The exercises of notebook 07, how it goes wrong: read alarms, find lines, tell decoders without a label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction as F
from typing import Any

from ..museum.alarms import EXACT, LEVEL, MISSING
from ..museum.exhibits import VERSIONS
from ..museum.mystery import CASES, opened
from ._framework import Case, Check, shown

KINDS = ("biased", "exact but slow", "exact")

goes_on = Check(
    "goes_on",
    ("text", "end"),
    [
        Case(([0], 0), False, "nothing comes after the end"),
        Case(([1], 0), False, "the budget was spent, and no end came"),
        Case(([1, 0], 0), False, "nothing comes after the end"),
        Case(([0, 1], 0), True, "something comes after the end"),
        Case(([2, 1, 2], 0), False, "the budget was spent, and no end came"),
        Case(([1, 0, 0], 0), True, "an end comes after the end"),
        Case(([1, 0, 2, 0], 0), True, "the last token is an end, but not the first one"),
        Case(([3, 7, 7], 7), True, "an end comes after the end"),
        Case(([5, 3, 3, 3], 7), False, "the budget was spent, and no end came"),
    ],
    {
        "An end inside a text is no bug by itself: every text may have one, as its last token.": lambda x, e: e in x,
        "A text without any end is right too: its budget was spent.": lambda x, e: x[-1] != e,
        "One end is enough to go wrong: what matters is whether anything follows the first.": lambda x, e: (
            x.count(e) > 1
        ),
        "A text that goes on may end with an end all the same: look at the first one, not at the last.": lambda x, e: (
            e in x and x[-1] != e
        ),
    },
    praise="No target is needed for this test: it would have caught the bug in any server's log.",
    hint="Where is the first end, and how many tokens should stand behind it?",
)

Readings = tuple[float, float, float, float]
READINGS: tuple[tuple[Readings, str], ...] = (
    ((0.0, 1.0, 1.0, 0.42), "exact"),
    ((0.22, 1.0, 1.0, 1e-200), "biased"),
    ((5e-17, 1.0, 1.0, 0.08), "exact"),
    ((5e-17, 0.67, 1.0, 0.08), "exact but slow"),
    ((7e-17, 0.61, 0.60, 0.80), "exact"),
    ((5e-17, 1.0, 1.0, 1e-180), "biased"),
    ((0.37, 0.65, 1.0, 1e-130), "biased"),
    ((2e-17, 0.73, 0.74, 0.03), "exact"),
    ((0.025, 1.0, 1.0, 0.08), "biased"),
    ((3e-17, 0.41, 0.60, 0.55), "exact but slow"),
)


def _triage(
    exact: float = EXACT,
    level: float = LEVEL,
    slow: Callable[[float, float], bool] = lambda kept, promised: kept < promised - MISSING,
    slow_first: bool = False,
) -> Callable[[float, float, float, float], str]:
    """The order of questions, with one exchanged."""

    def told(off: float, kept: float, promised: float, p_value: float) -> str:
        if slow_first and slow(kept, promised):
            return "exact but slow"
        if off > exact or p_value < level:
            return "biased"
        return "exact but slow" if slow(kept, promised) else "exact"

    return told


triage = Check(
    "triage",
    ("off", "kept", "promised", "p_value"),
    [Case(readings, kind) for readings, kind in READINGS],
    {
        "A total variation of 5e-17 is rounding in the last digit, not a bias.": _triage(exact=0.0),
        "You do not listen to p_value: enumeration brings its own dice, so it cannot hear a bug in the dice.": (
            _triage(level=0.0)
        ),
        "Of a hundred honest decoders five have a p_value below 0.05: the level is one in a million.": (
            _triage(level=0.05)
        ),
        "A rule may keep little on purpose: compare `kept` with what the rule promises, not with 1.": (
            _triage(slow=lambda kept, promised: kept < 1 - MISSING)
        ),
        "`kept` is a mean over some hundred verdicts: a difference of 0.01 is luck. Leave 0.05.": (
            _triage(slow=lambda kept, promised: kept < promised)
        ),
        "Slow and biased at once is biased: first ask whether the text is right.": _triage(slow_first=True),
    },
    praise="First whether the text is right, then whether it is slow.",
    hint=f"One of {', '.join(map(repr, KINDS))}. Which question comes first, and which readings answer it?",
)

wrong_line = Check(
    "wrong_line",
    ("version",),
    [Case((version,), lambda got, line=line: _line(got, line)) for version, (line, _) in VERSIONS.items()],
    {
        "You call every version right. Five of the six are not.": lambda version: 0,
        "Counted from 0? The listing counts its lines from 1.": lambda version: VERSIONS[version][0] - 1,
    },
    praise="Five bugs of one line each, and one innocent.",
    hint="Go through the three steps for each: the chance of keeping, the replacement, the bonus token.",
)


def _line(got: Any, line: int) -> str:
    """What is wrong with a line number, without telling the right one."""
    if isinstance(got, bool) or not isinstance(got, int) or not 0 <= got <= 10:
        return f"gave {shown(got)}, expected the number of a line, or 0 for none"
    if got == line:
        return ""
    if line == 0:
        return f"gave {got}, but that line is as it should be"
    return f"gave {got}, but " + ("there is a bug in it" if got == 0 else "the bug is in another line")


Probs = Sequence[F]
LISTS: tuple[tuple[Probs, list[int]], ...] = (
    ([F(1, 2), F(1, 2)], [0]),
    ([F(1, 2), F(1, 2)], [1, 0]),
    ([F(1, 2), F(1, 3), F(1, 6)], [0, 1]),
    ([F(1, 2), F(1, 3), F(1, 6)], [2, 1, 0]),
    ([F(0), F(1, 4), F(3, 4)], [0, 1]),
    ([F(1, 10), F(2, 10), F(3, 10), F(4, 10)], [3, 0, 2]),
    ([F(1, 10), F(2, 10), F(3, 10), F(4, 10)], []),
)


def in_turn(p_target: Probs, candidates: Sequence[int]) -> list[F]:
    """With which chance each candidate is kept when its turn comes."""
    return [p_target[x] / (1 - sum(p_target[y] for y in candidates[:i])) for i, x in enumerate(candidates)]


chances_in_turn = Check(
    "chances_in_turn",
    ("p_target", "candidates"),
    [Case(pair, in_turn(*pair)) for pair in LISTS],
    {
        "Without scaling up the later candidates come too rarely: a refused one has left its place to the others.": (
            lambda t, c: [t[x] for x in c]
        ),
        "That is how often a candidate is written. Given that its turn has come, with which chance is it kept?": (
            lambda t, c: [t[x] * (1 - sum(t[y] for y in c[:i])) for i, x in enumerate(c)]
        ),
        "All refused candidates have left their place, not only the last one.": (
            lambda t, c: [t[x] / (1 - (t[c[i - 1]] if i else 0)) for i, x in enumerate(c)]
        ),
        "The mask is on the candidates still to come: scale by what is left after the refused ones.": (
            lambda t, c: [
                t[x] / sum(t[y] for y in c[i:]) if sum(t[y] for y in c[i:]) else F(0) for i, x in enumerate(c)
            ]
        ),
    },
    praise="So each candidate is written with its own probability, in any order: the list is a way to throw one die.",
    hint="After a refusal, mask the refused token and let what is left sum to 1 again.",
)

WHY = {"biased": ("enumeration", "dice"), "exact but slow": ("twin",), "exact": (None,)}


def _answer(number: int) -> tuple[str, str | None]:
    exhibit = opened(number)
    return exhibit.kind, exhibit.caught_by


def _diagnosis(number: int) -> Callable[[Any], str]:
    """What is wrong with a diagnosis: a question back, never the answer."""
    kind, alarm = _answer(number)

    def told(got: Any) -> str:
        if not isinstance(got, (list, tuple)) or len(got) != 2 or got[0] not in KINDS:
            return f"gave {shown(got)}, expected a class of {KINDS} and the alarm that proves it, or None"
        said, why = got
        if why not in WHY[said]:
            return f"gave {shown(got)}: a ring of {why!r} is not what makes a decoder {said!r}"
        if said == kind:
            return "" if why == alarm else f"gave {shown(got)}: the class is right; does enumeration ring?"
        question = {
            "biased": "by how much is it off, and is that more than rounding or luck",
            "exact but slow": "is the text right, and what does its own rule promise",
            "exact": "have you rung all three alarms",
        }
        return f"gave {shown(got)}: {question[said]}?"

    return told


diagnose = Check(
    "diagnose",
    ("number",),
    [Case((number,), _diagnosis(number)) for number in CASES],
    {
        "You call them all exact. Ring the alarms and see.": lambda number: ("exact", None),
        "You call them all biased. An alarm that rings for everything proves nothing.": (
            lambda number: ("biased", "enumeration")
        ),
        "Silent under enumeration is not yet exact: enumeration replaces the dice.": (
            lambda number: ("exact", None) if _answer(number)[1] == "dice" else _answer(number)
        ),
        "What a twin keeps is to be compared with what the rule promises: some keep little on purpose.": (
            lambda number: (
                ("exact but slow", "twin")
                if opened(number).name in ("sample and match", "candidates tried in turn")
                else _answer(number)
            )
        ),
    },
    praise="Three alarms, three classes: you can tell a decoder that you have never seen.",
    hint="Give a class and the alarm that proves it, or None where no alarm rings.",
)
