"""How an exercise answers: a student's function meets real cases, and one or two lines say what is wrong.

A checker never raises, never hangs and never shows a solution. The function runs in a thread of its
own with a budget of steps, which is the same on a fast and a slow machine, and with a limit of time
for what no budget of steps sees (a sleep). One thing cannot be stopped: a single call into compiled
code that never returns and never lets go of the interpreter.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import dis
import inspect
import linecache
import math
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Number
from types import FrameType
from typing import Any

LINES = 200_000  # of Python in one call, those of libraries included
INSTRUCTIONS = 1_000_000  # of the student's own code: `while True: pass` has no second line
SECONDS = 5.0  # for all cases of one check
TOLERANCE = 1e-6  # float32 will do
LONGEST = 90  # characters of a value that is shown

Function = Callable[..., Any]
# Instructions of a body that is `...`, `pass` or `return None`, in any Python from 3.11 on.
IDLE = {"RESUME", "NOP", "CACHE", "POP_TOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST", "COPY_FREE_VARS"}


@dataclass(frozen=True)
class Case:
    """One call, and what it must give."""

    arguments: tuple[Any, ...]
    expected: Any  # a value, or a function from an answer to what is wrong with it, "" for nothing
    about: str = ""  # what this case is about, when that helps


@dataclass(frozen=True)
class Verdict:
    """What a check found."""

    passed: bool
    text: str  # one or two lines
    attempted: bool = True


class OutOfSteps(BaseException):
    """The budget of steps is spent."""


@dataclass
class CheckResult:
    """What one call did."""

    value: Any = None
    error: BaseException | None = None
    changed: str = ""  # the argument that was changed in place


@dataclass(frozen=True)
class Check:
    """One exercise. `check(function)` prints the verdict, `check.judge(function)` returns it.

    Args:
        name: of the exercise, and of the function in the solutions.
        parameters: names of the arguments, for messages.
        cases: smallest first, so that the first failure is the smallest one.
        mistakes: what a wrong answer means -> a function that makes this mistake. The first that
            agrees with the student on every case gives the second line.
        praise: what the student has now shown.
        hint: second line when no mistake is recognised.
    """

    name: str
    parameters: Sequence[str]
    cases: Sequence[Case]
    mistakes: Mapping[str, Function] = field(default_factory=dict)
    praise: str = ""
    hint: str = ""
    seconds: float = SECONDS

    def __call__(self, function: Function) -> None:
        print(self.judge(function).text)

    def judge(self, function: Function) -> Verdict:
        """Try every case until one fails."""
        if not callable(function):
            return self._no(
                f"expected the function itself, got {shown(function)}.",
                f"Write check.{self.name}(your_function), without calling it.",
            )
        if told := self._arguments(function):
            return self._no(told)
        outcomes = call_all(function, [case.arguments for case in self.cases], self.seconds, self.parameters)
        for case, outcome in zip(self.cases, outcomes, strict=False):
            if verdict := self._look(function, case, outcome, outcomes):
                return verdict
        if len(outcomes) < len(self.cases):
            where = self._call(self.cases[len(outcomes)])
            return self._no(f"{where} had given no answer after {self.seconds:g} seconds: does it wait for something?")
        return Verdict(
            True, f"{self.name}: correct, {len(self.cases)} cases of {len(self.cases)}. {self.praise}".strip()
        )

    def _arguments(self, function: Function) -> str:
        """What is wrong with the number of arguments, if anything."""
        try:
            inspect.signature(function).bind(*self.cases[0].arguments)
        except TypeError:
            return f"the function must take {len(self.parameters)} arguments: {', '.join(self.parameters)}."
        except Exception:
            return ""  # a callable that hides its signature: the call will tell
        return ""

    def _look(
        self, function: Function, case: Case, outcome: CheckResult, outcomes: Sequence[CheckResult]
    ) -> Verdict | None:
        """The verdict on one call; None when it is right."""
        if type(outcome.error) is NotImplementedError or (outcome.error is None and empty(function, outcome.value)):
            return Verdict(False, f"{self.name}: not attempted yet. Write the body, then run this cell again.", False)
        where = self._call(case)
        if isinstance(outcome.error, OutOfSteps):
            return self._no(f"{where} came to no end: is there a loop that never stops?")
        if outcome.error is not None:
            return self._no(f"{where} raised {trouble(outcome.error)}", place(function, outcome.error))
        if outcome.value is None:
            return self._no(f"{where} gave None: is a `return` missing?")
        if told := differs(outcome.value, case.expected):
            about = f" ({case.about})" if case.about else ""
            return self._no(f"{where}{about} {told}.", self._recognise(outcomes) or self.hint)
        if outcome.changed:
            return self._no(f"{where} is right, but it changed its argument {outcome.changed}. Work on a copy.")
        return None

    def _recognise(self, outcomes: Sequence[CheckResult]) -> str:
        """The known mistake that explains every answer."""
        for meaning, wrong in self.mistakes.items():
            made = call_all(wrong, [case.arguments for case in self.cases], self.seconds, self.parameters)
            if len(made) == len(outcomes) and all(map(alike, outcomes, made)):
                return meaning
        return ""

    def _call(self, case: Case) -> str:
        told = ", ".join(f"{name}={shown(value)}" for name, value in zip(self.parameters, case.arguments, strict=True))
        return f"{self.name}({told})"

    def _no(self, line: str, second: str = "") -> Verdict:
        first = line if line.startswith(f"{self.name}(") else f"{self.name}: {line}"
        return Verdict(False, f"{first}\n{second}" if second else first)


# Running what somebody else wrote


def call_all(
    function: Function, calls: Sequence[tuple[Any, ...]], seconds: float, parameters: Sequence[str]
) -> list[CheckResult]:
    """Outcomes up to the first error, fewer than calls when time was up."""
    outcomes: list[CheckResult] = []
    done = threading.Event()

    def work() -> None:
        for arguments in calls:
            outcome = call(function, arguments, parameters, park)
            outcomes.append(outcome)
            if outcome.error is not None:
                break
        done.set()

    def park() -> None:
        """Wait for ever, at no cost: an exception could be swallowed by the function, this can't."""
        outcomes.append(CheckResult(error=OutOfSteps()))
        done.set()
        threading.Event().wait()

    worker = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
    worker.start()
    with contextlib.suppress(KeyboardInterrupt):  # the student pressed stop: that is an answer too
        done.wait(seconds)
    return list(outcomes)


def call(
    function: Function, arguments: tuple[Any, ...], parameters: Sequence[str], spent: Callable[[], None]
) -> CheckResult:
    """One call on copies of the arguments; `spent` is called when its budget of steps is."""
    given, outcome = copy.deepcopy(arguments), CheckResult()
    left = {"line": LINES, "opcode": INSTRUCTIONS}
    home = getattr(function, "__globals__", None)

    def count(frame: FrameType, event: str, _: Any) -> Any:
        if event == "call":
            frame.f_trace_opcodes = frame.f_globals is home
        elif event in left:
            left[event] -= 1
            if left[event] < 0:
                spent()
        return count

    before = sys.gettrace()  # of this thread alone
    sys.settrace(count)
    try:
        outcome.value = function(*given)
    except BaseException as error:  # SystemExit too
        outcome.error = error
    finally:
        sys.settrace(before)
    changed = [name for name, now, was in zip(parameters, given, arguments, strict=False) if differs(now, was)]
    outcome.changed = changed[0] if changed else ""
    return outcome


def empty(function: Function, value: Any) -> bool:
    """Whether this is a stub: `...`, `pass`, `return`, and nothing else."""
    if value is Ellipsis:
        return True
    code = getattr(function, "__code__", None)
    return value is None and code is not None and {each.opname for each in dis.get_instructions(code)} <= IDLE


def trouble(error: BaseException) -> str:
    """An exception in a few words."""
    try:
        said = " ".join(str(error).split())
    except Exception:
        said = ""
    said = said if len(said) <= LONGEST else said[:LONGEST] + " ..."
    return f"{type(error).__name__}: {said}" if said else f"{type(error).__name__}"


def place(function: Function, error: BaseException) -> str:
    """The line of the student's own code that was running."""
    home = getattr(function, "__globals__", {}).get("__name__")
    found, trace = None, error.__traceback__
    while trace is not None:
        if home is not None and trace.tb_frame.f_globals.get("__name__") == home:
            found = trace
        trace = trace.tb_next
    if found is None:
        return ""
    line = linecache.getline(found.tb_frame.f_code.co_filename, found.tb_lineno).strip()
    return f"in line {found.tb_lineno} of its cell" + (f": {line}" if line else "")


# Comparing


def differs(got: Any, expected: Any) -> str:
    """What is wrong with an answer, "" when nothing is. Numbers may be of any kind."""
    try:
        return expected(plain(got)) if callable(expected) else _differs(plain(got), expected)
    except Exception:  # an object with interleave_options of its own
        return f"gave {shown(got)}" + ("" if callable(expected) else f", expected {shown(expected)}")


def _differs(got: Any, expected: Any) -> str:
    apart = f"gave {shown(got)}, expected {shown(expected)}"
    if isinstance(expected, Mapping):
        if not isinstance(got, Mapping):
            return f"gave {kind(got)}, expected {kind(expected)} with the keys {shown(list(expected))}"
        same = got.keys() == expected.keys()
        return "" if same and not any(_differs(plain(got[key]), expected[key]) for key in expected) else apart
    if isinstance(expected, (list, tuple)):
        if not isinstance(got, (list, tuple)):
            return f"gave {kind(got)}, expected a list of {len(expected)} numbers"
        if len(got) != len(expected):
            return f"gave {shown(got)} with {len(got)} values, expected {shown(expected)} with {len(expected)}"
        return apart if any(_differs(plain(one), other) for one, other in zip(got, expected, strict=True)) else ""
    if isinstance(expected, Number) and not isinstance(expected, bool):
        if not isinstance(got, Number):
            return f"gave {kind(got)}, expected a number"
        if isinstance(got, complex) or math.isnan(got):
            return f"gave {shown(got)}, not a number"
        return "" if got == expected or abs(got - expected) <= TOLERANCE else apart  # infinities are equal too
    return "" if got == expected else apart


def alike(one: CheckResult, other: CheckResult) -> bool:
    """Whether two functions did the same on a case."""
    if one.error is not None or other.error is not None:
        return type(one.error) is type(other.error)
    return not differs(one.value, plain(other.value))


def plain(value: Any) -> Any:
    """Arrays and tensors as lists and numbers; generators and the like as lists."""
    if hasattr(value, "tolist"):
        return value.detach().tolist() if hasattr(value, "detach") else value.tolist()
    if isinstance(value, (range, type({}.values()), type({}.keys()))):
        return list(value)
    return value


def kind(value: Any) -> str:
    names = {dict: "a dict", list: "a list", tuple: "a tuple", str: "a text", bool: "True or False", set: "a set"}
    return names.get(type(value), f"a {type(value).__name__}")


def shown(value: Any) -> str:
    """A value in a few characters: fractions as 1/3, floats short."""
    try:
        text = _shown(plain(value))
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _shown(value: Any) -> str:
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_shown(each)}" for key, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        inside = ", ".join(_shown(plain(each)) for each in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    return " ".join(repr(value).split())
