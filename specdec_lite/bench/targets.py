"""`specdec targets`: everything that this library wants to reach on a machine, measured in one command.

Parts run in turn. One that fails says why and the rest goes on, and the file of `--json` is written after
each, so that what was measured is kept when the time runs out.
"""

from __future__ import annotations

import datetime
import gc
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from .console import Ink
from .doctor import finite
from .goals import Goal, goals_for
from .machine import environment, hardware, versions
from .target_runs import PARTS, Found, bare, command
from .workbench import TargetsSettings, Workbench


@dataclass
class TargetResult:
    """How a part went."""

    seconds: float
    found: Found = field(default_factory=Found)
    why: str | None = None  # it was not measured

    def judge(self, goal: Goal) -> tuple[bool | None, str | None]:
        """Whether the goal is met, or None and why that is not known."""
        if goal.name in self.found.figures:
            return goal.met(self.found.figures[goal.name].median), None
        return None, self.why or "the part gave no such figure"


def run(
    settings: TargetsSettings, only: Sequence[str] = (), json_file: str | None = None, argv: Sequence[str] = ()
) -> None:
    """Measure, and print a line for each goal as soon as its part is done.

    Args:
        only: names of parts; all without any.
        argv: the command line, for the file.

    Raises:
        ValueError: as for `Workbench`.
    """
    ink, progress = Ink(sys.stdout), Ink(sys.stderr)
    bench = Workbench(settings, lambda what: progress.passing(f"  {what} ..."))
    goals = [each for each in goals_for(bench.device.type) if not only or each.part in only]
    outcomes: dict[str, TargetResult] = {}
    ink.line(ink("What is wanted, and what this machine gives", "title"))
    ink.paragraph("", environment(), "note")
    ink.line()
    widths = [max((len(getattr(each, what)) for each in goals), default=0) for what in ("title", "wanted")]
    ink.line(ink(line(widths, "figure", "wanted", "is", "middle half", "verdict", "the command for it alone"), "title"))
    for name in (each for each in PARTS if not only or each in only):
        outcomes[name] = attempt(name, bench)
        progress.passing("")
        show(ink, widths, [each for each in goals if each.part == name], outcomes[name], command(bench, name))
        if json_file:
            write(json_file, targets_report(settings, bench, goals, outcomes, only, argv))
    ink.line()
    verdicts = [outcomes[each.part].judge(each)[0] for each in goals]
    ink.line(f"  {verdicts.count(True)} met, {verdicts.count(False)} not met, {verdicts.count(None)} not measured")


def attempt(name: str, bench: Workbench) -> TargetResult:
    """Run a part; whatever it raises becomes its reason."""
    part, before, began = PARTS[name], torch.get_num_threads(), time.perf_counter()
    torch.set_num_threads(bench.threads(part.given))
    try:
        found, why = part.run(bench), None
    except Exception as error:  # a model, a driver and a full memory have no error in common
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        found, why = Found(), kind + (str(error).strip().splitlines() or ["no reason given"])[0]
        for source in filter(None, (bench.settings.target, bench.settings.draft)):
            why = why.replace(source, bare(source))
    torch.set_num_threads(before)
    gc.collect()  # the models of a part that failed hang on its traceback
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()
    return TargetResult(time.perf_counter() - began, found, why)


def show(ink: Ink, widths: Sequence[int], goals: Sequence[Goal], outcome: TargetResult, alone: str) -> None:
    """A line for each goal of a part."""
    for each in goals:
        met, why = outcome.judge(each)
        if why:
            ink.line(line(widths, each.title, each.wanted, "", "", "not measured:", why))
            continue
        found = outcome.found.figures[each.name]
        span = f"{each.formatted(found.low)} {ink.glyph('–', '-')} {each.formatted(found.high)}"
        made = line(
            widths, each.title, each.wanted, each.formatted(found.median), span, "met" if met else "not met", alone
        )  # fmt: skip
        ink.line(made if met else ink(made, "title"))


def line(widths: Sequence[int], title: str, wanted: str, value: str, span: str, verdict: str, rest: str) -> str:
    """Its columns are known beforehand, since lines come one by one."""
    return f"  {title:<{widths[0]}}  {wanted:>{widths[1]}}  {value:>7}  {span:>15}  {verdict:<12}  {rest}"


def targets_report(
    settings: TargetsSettings,
    bench: Workbench,
    goals: Sequence[Goal],
    outcomes: dict[str, TargetResult],
    only: Sequence[str],
    argv: Sequence[str],
) -> dict[str, Any]:
    """What `--json` writes. Parts that are still to come are `None`."""
    names = [each for each in PARTS if not only or each in only]
    sources = {role: bare(getattr(settings, role) or "") or None for role in ("target", "draft")}
    return {
        "what": "specdec targets",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["specdec", *map(bare, argv)]),
        "hardware": hardware(bench.device),
        "versions": versions(),
        "settings": asdict(settings) | sources,
        "sizes": asdict(settings.sizes),
        "complete": all(each in outcomes for each in names),
        "goals": [judged(each, outcomes.get(each.part), command(bench, each.part)) for each in goals],
        "parts": {name: name in outcomes and entry(outcomes[name]) or None for name in names},
    }


def judged(goal: Goal, outcome: TargetResult | None, alone: str) -> dict[str, Any]:
    """One goal, its figure and the verdict."""
    met, why = outcome.judge(goal) if outcome else (None, "its part was not reached")
    found = outcome.found.figures.get(goal.name) if outcome else None
    return {
        "name": goal.name, "part": goal.part, "title": goal.title, "kind": goal.kind, "bound": goal.bound,
        "sentence": goal.sentence, "is": found and asdict(found), "met": met, "why": why, "command": alone,
    }  # fmt: skip


def entry(outcome: TargetResult) -> dict[str, Any]:
    figures = {name: asdict(each) for name, each in outcome.found.figures.items()}
    return {"seconds": outcome.seconds, "why": outcome.why, "figures": figures, "raw": outcome.found.raw}


def write(file: str, found: dict[str, Any]) -> None:
    """In one stroke: a run that is stopped while it writes leaves the file before."""
    beside = f"{file}.partial"
    with open(beside, "w", encoding="utf-8") as out:
        json.dump(finite(found), out, indent=1)
    os.replace(beside, file)
