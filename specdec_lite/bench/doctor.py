"""`specdec doctor`: what the examination found, in the terminal and as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

from ..draft import Drafter
from ..drafters import drafter_named
from ..drafters.eagle import EagleDrafter
from ..drafters.prompt_lookup import PromptLookupDrafter
from ..loading.pair import Pair
from ..loading.random_weights import is_random
from ..theory.cost_model import Interval
from .console import Ink, percent, table
from .demo import LOOKS_UP
from .diagnosis import Diagnosis, DoctorSettings, diagnose, remedy, verdict
from .machine import environment
from .phases import PARTS
from .prompt_files import prompts_for
from .synthetic import LABEL, SyntheticDrafter

BAR = 30  # characters of the longest


def check_agreement(sources: Sequence[str | None], agreement: float | None) -> None:
    """Refuse to look for agreement where there can be none.

    Raises:
        ValueError: a source has random weights, and no agreement is set.
    """
    made_up = next(filter(is_random, sources), None)
    if made_up and agreement is None:
        raise ValueError(
            f"{made_up} has random weights: its text means nothing and how often a draft agrees with it neither, "
            "so say with --agreement how often a draft token is to be accepted"
        )


def drafter(pair: Pair, kind: str, agreement: float | None) -> Drafter:
    """What `--drafter` and `--agreement` say."""
    return drafter_named(kind, pair.draft, pair.head) if agreement is None else SyntheticDrafter(pair.draft, agreement)


def run(
    pair: Pair,
    drafter: Drafter,
    settings: DoctorSettings,
    prompts_file: str | None = None,
    json_file: str | None = None,
) -> Diagnosis:
    """Examine, print, and write what `--json` asks for."""
    ink, progress = Ink(sys.stdout), Ink(sys.stderr)
    prompts = prompts_for(pair, settings, prompts_file)
    introduce(ink, pair, drafter, settings, prompts)
    found = diagnose(pair.target, drafter, prompts, settings, lambda what: progress.passing(f"  {what} ..."))
    progress.passing("")
    show(ink, found, isinstance(drafter, SyntheticDrafter))
    if json_file:
        with open(json_file, "w", encoding="utf-8") as file:
            json.dump(doctor_report(pair, drafter, found, prompts), file, indent=1)
    return found


def introduce(ink: Ink, pair: Pair, drafter: Drafter, settings: DoctorSettings, prompts: Sequence[list[int]]) -> None:
    """Who is examined, on which machine, and with what."""
    models = {"target": pair.target} if isinstance(drafter, PromptLookupDrafter) else pair.models
    rows = [[role, f"{each.layers} layers", f"{each.parameters / 1e6:.1f} M weights"] for role, each in models.items()]
    for line in table(rows):
        ink.line(line)
    if len(models) == 1:
        about = "is a head that reads the target" if isinstance(drafter, EagleDrafter) else LOOKS_UP
        ink.line(f"  drafter  {about}")
    ink.paragraph("", environment(), "note")
    how = "greedy" if settings.sampling.greedy else f"temperature {settings.temperature:g}, seed {settings.seed}"
    lengths = sorted({len(each) for each in prompts})
    sizes = str(lengths[0]) if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
    several = "prompt" if len(prompts) == 1 else "prompts"
    ink.line(f"  {how}; {len(prompts)} {several} of {sizes} tokens, {settings.max_new_tokens} new tokens each")
    ink.line()


def show(ink: Ink, found: Diagnosis, synthetic: bool = False) -> None:
    """Everything, in the order in which it was found."""
    naive = found.forecast.naive
    ink.line(ink("Now", "title"))
    ink.line(
        f"  naive decoding writes {found.measured.naive_rate.median:.1f} tokens a second; "
        f"a step takes {1000 * sum(naive.values()):.2f} ms"
    )
    if synthetic:
        ink.line(
            f"  {LABEL}: every draft token is accepted with chance {found.overlap.value:.2f}, whatever the models think"
        )
    elif found.overlap:
        places = sum(each is not None for text in found.agreements for each in text.overlap)
        ink.line(
            f"  the drafter overlaps with the target by {span(ink, found.overlap)}, at {places} places of its own text"
        )
    ink.line()
    show_outlooks(ink, found)
    show_budget(ink, found)
    made, said = found.measured, found.forecast.outlooks[found.measured.k]
    judged = ""
    if known := made.acceptance:
        judged = (
            f" Of the draft tokens verified {percent(known.value)} were accepted ({percent(known.low)} to "
            f"{percent(known.high)}), {percent(said.acceptance.value)} predicted."
        )
    ink.paragraph(
        "By the clock.",
        f"{made.speed_up.median:.2f} times as fast as naive (half of the turns lie in {made.speed_up.low:.2f} to "
        f"{made.speed_up.high:.2f}), {said.speed_up.value:.2f} predicted: the prediction is off by {found.error:+.0%}. "
        f"{made.tokens_per_round:.2f} tokens a round, {said.tokens_per_round.value:.2f} predicted.{judged}",
    )
    ink.paragraph("The advice.", verdict(found))
    ink.paragraph("What binds.", remedy(found))


def show_outlooks(ink: Ink, found: Diagnosis) -> None:
    """A line for each K; the best one stands out."""
    best, outlooks = found.forecast.best, found.forecast.outlooks
    ink.line(ink("What each K would give", "title") + ", predicted without a speculative run; 95 % intervals")
    rows = [["K", "times naive", "", "tokens a round", "accepted"]]
    for each in outlooks.values():
        gain = f"{each.speed_up.low:.2f} {ink.glyph('–', '-')} {each.speed_up.high:.2f}"
        rows.append([
            str(each.k), f"{each.speed_up.value:.2f}", gain, f"{each.tokens_per_round.value:.2f}",
            percent(each.acceptance.value),
        ])  # fmt: skip
    lines = table(rows)
    ink.line(ink(lines[0], "note"))
    for each, line in zip(outlooks.values(), lines[1:], strict=True):
        drawn = line + "  " + bar(ink, each.speed_up.value / best.speed_up.value)
        ink.line(ink(drawn, "title") if each is best else drawn)
    ink.line()


def show_budget(ink: Ink, found: Diagnosis) -> None:
    """Where a round's time goes, predicted and measured, each in naive steps of its own time."""
    made, naive = found.measured, sum(found.forecast.naive.values())
    said = found.forecast.outlooks[made.k].round
    shown = {part: (said[part] / naive, made.round[part]) for part in PARTS}
    rounds = [sum(each) for each in zip(*shown.values(), strict=True)]
    ink.line(ink(f"Where the time of a round goes at K = {made.k}", "title") + ", counted in naive steps")
    rows = [["", "predicted", "measured", "", "share"]]
    for name, (p, m) in [*shown.items(), ("round", rounds)]:
        row = [name, f"{p:.2f}", f"{m / made.step:.2f}", f"{1000 * m:.2f} ms", percent(m / rounds[1])]
        rows.append(row)
    lines = table(rows)
    ink.line(ink(lines[0], "note"))
    longest = max(m for _, m in shown.values())
    for part, line in zip(PARTS, lines[1:-1], strict=True):
        ink.line(line + "  " + bar(ink, shown[part][1] / longest))
    ink.line(ink(lines[-1], "title"))
    ink.line(f"  with the opening of each text these are the wall clock but for {abs(made.gap):.1%}")
    ink.line()


def bar(ink: Ink, share: float) -> str:
    """A bar of characters, never empty."""
    return ink.glyph("█", "#") * max(1, round(BAR * share))


def span(ink: Ink, value: Interval) -> str:
    return f"{value.value:.2f} ({value.low:.2f} to {value.high:.2f})"


def doctor_report(pair: Pair, drafter: Drafter, found: Diagnosis, prompts: Sequence[list[int]]) -> dict[str, Any]:
    """What `--json` writes."""
    predicted = found.forecast
    synthetic = isinstance(drafter, SyntheticDrafter)
    return {
        "machine": environment(),
        "pair": {role: each.parameters for role, each in pair.models.items()},
        "drafter": type(drafter).__name__,
        "synthetic_acceptance": drafter.rule.agreement if synthetic else None,
        "settings": asdict(found.settings),
        "prompts": list(prompts),
        "overlap": found.overlap and asdict(found.overlap),
        "naive_step_seconds": predicted.naive,
        "predicted": [finite(asdict(each)) for each in predicted.outlooks.values()],
        "best_k": {"value": predicted.best.k, "low": predicted.best_low, "high": predicted.best_high},
        "if_halved": found.levers,
        "binds": found.binds,
        "measured": finite(asdict(found.measured)) | {"gap": found.measured.gap},
        "error": found.error,
        "advice": [verdict(found), remedy(found)],
    }


def finite(value: Any) -> Any:
    """JSON has no NaN and nothing infinite."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value
