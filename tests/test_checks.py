"""Exercises that check themselves: the worked solution passes, a stub is not attempted, mistakes are named."""

from __future__ import annotations

import ast
import json
import math
import time
from collections.abc import Callable
from fractions import Fraction as F
from pathlib import Path
from typing import Any

import pytest
import torch
from test_checks_acceptance import WRONG as OF_NOTEBOOK_05
from test_checks_bug_museum import WRONG as OF_NOTEBOOK_07
from test_checks_counting import WRONG as OF_NOTEBOOK_01
from test_checks_draft_then_verify import WRONG as OF_NOTEBOOK_03
from test_checks_naive import WRONG as OF_NOTEBOOK_02
from test_checks_tuning import WRONG as OF_NOTEBOOK_06

from specdec_lite.teaching import check
from specdec_lite.teaching.checks import _framework
from specdec_lite.teaching.checks._framework import Case, Check

SOLUTIONS = Path(__file__).parents[1] / "notebooks/solutions"
CHECKS = {name: each for name in check.__all__ if isinstance(each := getattr(check, name), Check)}
every_check = pytest.mark.parametrize("name", CHECKS)


def solutions() -> dict[str, Callable[..., Any]]:
    """The functions and imports of the solution notebooks; their other code stays out."""
    names: dict[str, Any] = {}
    for path in sorted(SOLUTIONS.glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        tree = ast.parse(code)
        tree.body = [each for each in tree.body if isinstance(each, (ast.Import, ast.ImportFrom, ast.FunctionDef))]
        exec(compile(tree, path.name, "exec"), names)
    return names


def test_a_check_has_the_name_it_is_found_by() -> None:
    assert CHECKS
    assert all(each.name == name for name, each in CHECKS.items())


@pytest.mark.skipif(not SOLUTIONS.exists(), reason="this copy of the suite came without its solutions")
@every_check
def test_the_worked_solution_passes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    CHECKS[name](solutions()[name])
    assert capsys.readouterr().out.startswith(f"{name}: correct, {len(CHECKS[name].cases)} cases")


def dots(*_: Any): ...


def passes(*_: Any):
    """With a docstring."""
    pass  # noqa: PIE790


def refuses(*_: Any):
    raise NotImplementedError("later")


def returns_nothing(*_: Any):
    return


def returns_dots(*_: Any):
    return ...


@pytest.mark.parametrize("stub", [dots, passes, refuses, returns_nothing, returns_dots], ids=lambda each: each.__name__)
@every_check
def test_a_stub_is_not_attempted(name: str, stub: Callable[..., Any]) -> None:
    verdict = CHECKS[name].judge(stub)
    assert "not attempted" in verdict.text
    assert not verdict.passed
    assert not verdict.attempted


@every_check
def test_every_recorded_mistake_is_recognised_and_told_in_two_lines(name: str) -> None:
    for meaning, wrong in CHECKS[name].mistakes.items():
        verdict = CHECKS[name].judge(wrong)
        assert not verdict.passed
        assert verdict.text.endswith(f"\n{meaning}")
        assert verdict.text.count("\n") == 1


# What students write. The worked solutions are in the notebook.


def norm(left: list[F]) -> list[F]:
    return [each / sum(left) for each in left]


def pick(probs: list[F], uniform: F) -> int:
    return next(x for x in range(len(probs)) if uniform < sum(probs[: x + 1]))


def left_of(t: list[F], d: list[F]) -> list[F]:
    return norm([max(a - b, F(0)) for a, b in zip(t, d, strict=True)])


def round_(t: Any, d: Any, drafted: Any, u: Any, last: Any, *, lost: str) -> list[int]:
    """A round by somebody who has lost one part of it."""
    out = []
    for i, x in enumerate(drafted):
        low, high = u[i], t[i][x] / d[i][x]
        if (low <= high) if lost == "strict" else (low < high):
            out.append(x)
        elif lost != "stop":
            return [*out, pick(t[i] if lost == "residual" else left_of(t[i], d[i]), last)]
    if lost == "bonus" and drafted:
        return out
    return [*out, pick(t[len(drafted)], last)]


WRONG: dict[str, list[tuple[Callable[..., Any], str]]] = {
    "overlap": [
        (lambda t, d: sum(t[i] * d[i] for i in range(len(t))), "two independent draws"),
        (lambda t, d: sum(abs(t[i] - d[i]) for i in range(len(t))) / 2, "total variation"),
        (lambda t, d: min(min(t), min(d)), "token by token"),
        (lambda t, d: [min(a, b) for a, b in zip(t, d, strict=True)], "expected a number"),
    ],
    "keep_chance": [
        (lambda t, d, x: float(t[x]) / float(d[x]), "above 1"),
        (lambda t, d, x: t[x] > d[x] or t[x] == d[x], "yes or no"),
        (lambda t, d, x: min(t[x], d[x]), "drafted already"),
        (lambda t, d, x: t[x], "SampleAndMatch"),
    ],
    "residual": [
        (lambda t, d: [max(a - b, 0) for a, b in zip(t, d, strict=True)], "does not sum to 1"),
        (lambda t, d: t, "beside what is missing"),
        (lambda t, d: left_of(t, d), "ZeroDivisionError"),
        (lambda t, d: left_of(d, t) if t != d else t, "too much of"),
    ],
    "tokens_a_round": [
        (lambda a: 1 + sum(a), "all before it"),
        (lambda a: sum(math.prod(a[: i + 1]) for i in range(len(a))), "one corrected or bonus token"),
        (lambda a: 1 + len(a), "as if every draft were kept"),
        (lambda a: (1 - (m := sum(a) / len(a)) ** (len(a) + 1)) / (1 - m), "ZeroDivisionError"),
    ],
    "speculative_round": [
        (lambda *given: round_(*given, lost="residual"), "came from p_target"),
        (lambda *given: round_(*given, lost="stop"), "no longer exists"),
        (lambda *given: round_(*given, lost="bonus"), "(kept, so a bonus token follows)"),
        (lambda *given: round_(*given, lost="strict"), "not when it equals it"),
    ],
    "another_rule": [
        (lambda t, d: [1 for _ in t], "nothing can undo that"),
        (lambda t, d: [0 for _ in t], "keeps nothing at all"),
        (lambda t, d: [min(1, a / b) if b else 0 for a, b in zip(t, d, strict=True)], "the founding rule"),
        (lambda t, d: t, "SampleAndMatch"),
        (lambda t, d: [2 * a for a in t], "between 0 and 1"),
        (lambda t, d: 0.5, "expected a list"),
    ],
}

WRONG |= OF_NOTEBOOK_02 | OF_NOTEBOOK_01 | OF_NOTEBOOK_03 | OF_NOTEBOOK_05 | OF_NOTEBOOK_06 | OF_NOTEBOOK_07


@every_check
def test_there_are_three_typical_mistakes(name: str) -> None:
    assert len(WRONG[name]) >= 3


@pytest.mark.parametrize(("name", "wrong", "told"), [(n, *each) for n, all_ in WRONG.items() for each in all_])
def test_a_typical_mistake_is_named(name: str, wrong: Callable[..., Any], told: str) -> None:
    verdict = CHECKS[name].judge(wrong)
    assert not verdict.passed
    assert told in verdict.text
    assert verdict.text.count("\n") <= 1


def test_the_first_failing_case_is_the_smallest() -> None:
    """Right for two tokens, wrong for three: the case of three tokens is shown."""
    told = check.overlap.judge(lambda t, d: sum(map(min, t, d)) if len(t) == 2 else 0).text
    assert "p_target=[1/2, 1/3, 1/6], p_draft=[1/4, 1/4, 1/2]) gave 0, expected 2/3." in told


@pytest.mark.parametrize("number", [float, lambda x: torch.tensor(float(x)), F], ids=["float", "tensor", "fraction"])
def test_numbers_of_any_kind_will_do(number: Callable[[F], Any]) -> None:
    assert check.overlap.judge(lambda t, d: number(sum(map(min, t, d)))).passed
    half = [lambda t, d: [number(min(F(1), a / b) / 2) if b else 0 for a, b in zip(t, d, strict=True)]]
    assert check.another_rule.judge(half[0]).passed


# The framework, with an exercise of its own

ADD = Check("add", ("numbers",), [Case(([1, 2],), 3), Case(([5, 5],), 10)], seconds=3)


def divides(numbers: list[int]) -> float:
    total = sum(numbers)
    return total / 0


def loops(numbers: list[int]) -> int:
    while True:
        numbers = list(numbers)


def loops_in_one_line(numbers: list[int]) -> int:
    while True: pass  # fmt: skip # noqa: E701


def loops_and_swallows(numbers: list[int]) -> int:
    while True:
        try:
            while True:
                numbers = list(numbers)
        except:  # noqa: E722
            continue


def sleeps(numbers: list[int]) -> int:
    time.sleep(60)
    return sum(numbers)


def recurs(numbers: list[int]) -> int:
    return recurs(numbers)


def leaves(numbers: list[int]) -> int:
    raise SystemExit(3)


def changes(numbers: list[int]) -> int:
    total = sum(numbers)
    numbers.append(0)
    return total


def forgets(numbers: list[int]) -> None:
    sum(numbers)


class Rude(Exception):
    """Cannot be shown, told or compared."""

    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None


def is_rude(numbers: list[int]) -> int:
    raise Rude


ANSWERS: list[tuple[Callable[..., Any], str]] = [
    (divides, "add(numbers=[1, 2]) raised ZeroDivisionError: division by zero\nin line "),
    (divides, ": return total / 0"),
    (loops, "came to no end"),
    (loops_in_one_line, "came to no end"),
    (loops_and_swallows, "came to no end"),
    (sleeps, "had given no answer after 3 seconds"),
    (recurs, "raised RecursionError"),
    (leaves, "raised SystemExit: 3"),
    (changes, "is right, but it changed its argument numbers"),
    (forgets, "gave None: is a `return` missing?"),
    (is_rude, "raised Rude"),
    (lambda numbers: Rude(), "gave a Rude, expected a number"),
    (lambda numbers: float("nan"), "gave nan, not a number"),
    (lambda numbers: 3j, "not a number"),
    (lambda numbers: "3", "gave a text, expected a number"),
    (lambda numbers: [3], "gave a list, expected a number"),
    (lambda numbers: torch.ones(2), "gave a list, expected a number"),
    (lambda: 3, "the function must take 1 arguments: numbers"),
    (lambda a, b: 3, "the function must take 1 arguments: numbers"),
    (3, "expected the function itself, got 3.\nWrite check.add(your_function)"),
    (None, "expected the function itself, got None"),
    (lambda numbers: undefined, "raised NameError: name 'undefined' is not defined"),  # noqa: F821
]


@pytest.mark.parametrize(("function", "told"), ANSWERS, ids=lambda each: getattr(each, "__name__", ""))
def test_whatever_a_student_hands_in_is_answered_in_two_lines(function: Any, told: str) -> None:
    began = time.monotonic()
    verdict = ADD.judge(function)
    assert told in verdict.text
    assert not verdict.passed
    assert verdict.text.count("\n") <= 1
    assert time.monotonic() - began < 30  # a hanging answer would never get here


def test_a_check_after_a_hanging_one_works() -> None:
    ADD.judge(sleeps)
    ADD.judge(loops_and_swallows)
    assert ADD.judge(sum).passed


def test_the_cases_are_never_changed() -> None:
    ADD.judge(changes)
    assert ADD.cases[0].arguments == ([1, 2],)


def test_a_debugger_keeps_its_hook() -> None:
    """The budget is counted in the checker's own thread."""
    import sys

    before = sys.gettrace()
    ADD.judge(loops)
    assert sys.gettrace() is before


def test_lists_are_compared_by_length_and_value() -> None:
    differs = _framework.differs
    assert differs([1, 2.0], [1, 2]) == differs((1, 2), [1, 2]) == differs(torch.tensor([1, 2]), [1, 2]) == ""
    assert differs([1], [1, 2]) == "gave [1] with 1 values, expected [1, 2] with 2"
    assert differs({"a": 0.5}, {"a": F(1, 2)}) == ""
    assert differs({"b": 1}, {"a": 1}) == "gave {'b': 1}, expected {'a': 1}"
    assert "a map" in differs(map(int, []), [1])
    assert differs([float("nan")], [1]) == "gave [nan], expected [1]"
