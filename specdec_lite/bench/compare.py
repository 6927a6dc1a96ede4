"""`specdec bench`: this library against the tool that people would use instead, transformers.

Every runner decodes the same prompts to the same length under the same sampling, in turn,
in one process.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..loading.pair import Pair
from ..loading.random_weights import made_up
from ..pocket.prompts import held_out_prompts
from ..sampling.distributions import Sampling
from .console import Ink, percent, table
from .demo import describe
from .machine import environment
from .race import number
from .runners import Runner, own, theirs
from .timing import Timings, forward_seconds, interleave, interleave_options

PROMPT_TOKENS = 96


@dataclass(frozen=True)
class BenchSettings:
    """What the command line says."""

    ks: Sequence[int] = (1, 2, 3, 4, 5, 6, 8)
    temperatures: Sequence[float] = (0.0, 1.0)
    prompts: int = 4
    max_new_tokens: int = 64
    repeats: int = 5
    only: str | None = None  # "own" or "transformers"


@dataclass
class Contest:
    """All runners at one temperature."""

    temperature: float
    runners: list[Runner]
    timings: Timings

    def best(self, family: str) -> str | None:
        """The fastest runner of a family, None where it did not take part."""
        names = [each.name for each in self.runners if each.family == family]
        return max(names, key=lambda name: self.timings.rate(name).median, default=None)

    def headlines(self) -> dict[str, dict[str, Any]]:
        """The three ratios that matter, as far as both sides took part."""
        naive, fast = self.best("own naive"), self.best("own speculative")
        plain, assisted = (
            self.best("transformers generate"),
            self.best("transformers assisted") or self.best("transformers lookup"),
        )
        pairs = {
            "speculative_over_naive": (fast, naive),
            "naive_over_generate": (naive, plain),
            "speculative_over_assisted": (fast, assisted),
        }
        return {
            title: {"of": one, "over": other, **asdict(self.timings.ratio(one, other))}
            for title, (one, other) in pairs.items()
            if one and other
        }


def contest(
    pair: Pair,
    settings: BenchSettings,
    temperature: float,
    prompts: list[list[int]],
    progress: Callable[[int, int], None],
) -> Contest:
    """Let everyone decode every prompt `repeats` times, in turn, with a new seed each time."""
    sampling = Sampling(temperature=temperature)
    sides = {"own": own, "transformers": theirs}
    runners = [
        each
        for side, make in sides.items()
        if settings.only in (None, side)
        for each in make(pair, settings.ks, settings.max_new_tokens, sampling)
    ]

    return Contest(temperature, runners, time_runners(pair, runners, prompts, settings.repeats, progress))


def time_runners(
    pair: Pair,
    runners: Sequence[Runner],
    prompts: Sequence[list[int]],
    repeats: int,
    progress: Callable[[int, int], None],
) -> Timings:
    """Every runner on every prompt in turn, with a new seed each time.

    Raises:
        RuntimeError: they made different numbers of tokens.
    """

    def as_call(runner: Runner) -> Callable[[int, int], int]:
        return lambda case, turn: len(runner.run(prompts[case], turn * len(prompts) + case))

    calls = {each.name: as_call(each) for each in runners}
    how = interleave_options(pair.target.device)
    timings = interleave(calls, len(prompts), repeats, warm_up=1, progress=progress, **how)
    made = {name: timings.tokens_made(name) for name in calls}
    if len(set(made.values())) != 1:
        raise RuntimeError(f"runners made different numbers of tokens, so their times do not compare: {made}")
    return timings


def run(pair: Pair, settings: BenchSettings, json_file: str | None = None) -> None:
    """The whole benchmark: tables on standard output, progress on standard error."""
    ink, prompts = Ink(sys.stdout), prompts_for(pair, settings)
    describe(ink, pair.models)
    ink.paragraph(
        "",
        f"prompts: {len(prompts)} of {len(prompts[0])} tokens, from standard library files held out of training; "
        f"{settings.max_new_tokens} new tokens each; medians over {settings.repeats} rounds in which all take turns, "
        "of ratios within each round",
    )
    if random_weights(pair):
        ink.paragraph("Random weights.", "What they accept means nothing, and neither do the ratios that rest on it.")
    ink.line()
    forward = forward_costs(pair, settings)
    show_forwards(ink, forward)
    contests = []
    for temperature in settings.temperatures:
        contests.append(contest(pair, settings, temperature, prompts, progress_on(Ink(sys.stderr))))
        show(ink, contests[-1])
    if json_file:
        with open(json_file, "w", encoding="utf-8") as file:
            json.dump(bench_report(pair, settings, prompts, forward, contests), file, indent=1)


def prompts_for(pair: Pair, settings: BenchSettings) -> list[list[int]]:
    """Prompts that leave room for the new tokens in the target's context.

    Raises:
        ValueError: the context is too small for that.
    """
    room = room_for(pair, settings.max_new_tokens)
    return held_out_prompts(pair.tokenizer, settings.prompts, min(PROMPT_TOKENS, room))


def room_for(pair: Pair, new: int) -> int:
    """The longest prompt that leaves room for `new` tokens in the target's context. Errors as for `prompts_for`."""
    room = (pair.target.context or 10**9) - new
    if room < 1:
        raise ValueError(f"{new} new tokens do not fit into the target's context of {pair.target.context}")
    return room


def random_weights(pair: Pair) -> bool:
    """Whether one of the two was made with random weights."""
    return any(made_up(each.module) for each in pair.models.values())


def forward_costs(pair: Pair, settings: BenchSettings) -> dict[str, dict[int, float]]:
    """Seconds of a forward over one token for both models, and over K + 1 for the target."""
    fed = {"target": sorted({1, *(k + 1 for k in settings.ks)}), "draft": [1]}
    return forward_seconds(pair.models, fed)


def show_forwards(ink: Ink, forward: dict[str, dict[int, float]]) -> None:
    one = forward["target"][1]
    rows = [["one forward of the", "tokens", "ms", "in target steps"]]
    for role in reversed(forward):
        rows += [[role, str(n), f"{1000 * took:.2f}", f"{took / one:.2f}"] for n, took in forward[role].items()]
    lines = table(rows)
    ink.line(ink(lines[0], "title"))
    for line in lines[1:]:
        ink.line(line)
    ink.line()


def show(ink: Ink, result: Contest) -> None:
    """One temperature's table, and the ratios that matter."""
    timings, names = result.timings, {each.name for each in result.runners}
    dash = ink.glyph("–", "-")
    bases = {"own naive": "/ naive", "transformers generate": "/ generate"}
    bases = {name: short for name, short in bases.items() if name in names}
    title = "greedy" if result.temperature == 0 else f"temperature {result.temperature:g}"
    rows = [[title, "tokens/s", "middle half", *bases.values(), "tokens/round", "accepted", "overlap"]]
    for each in result.runners:
        rate, trace = timings.rate(each.name), each.trace
        row = [each.name, f"{rate.median:.1f}", f"{rate.low:.1f} {dash} {rate.high:.1f}"]
        row += [f"{timings.ratio(each.name, base).median:.2f}" for base in bases]
        if each.rounds:
            row += [f"{trace.tokens_per_round_with_bonus:.2f}", percent(trace.accepted_per_judged)]
            row += [f"{trace.mean_overlap:.2f}"]
        rows.append(row)
    best = {result.best(family) for family in ("own speculative", "transformers assisted")}
    for row, line in zip(rows, table(rows), strict=True):
        ink.line(ink(line, "title") if row is rows[0] or row[0] in best else line)
    ink.line()
    ratios = [
        [f"{each['of']} / {each['over']}", f"{each['median']:.2f}", f"{each['low']:.2f} {dash} {each['high']:.2f}"]
        for each in result.headlines().values()
    ]
    for line in table(ratios) if ratios else []:
        ink.line(line)
    ink.line()


def progress_on(ink: Ink) -> Callable[[int, int], None]:
    """A line that counts runs and guesses the time left; only on a terminal."""
    began = time.monotonic()

    def tell(done: int, of: int) -> None:
        minutes = (time.monotonic() - began) / done * (of - done) / 60
        ink.passing(f"  {done} of {of} runs, about {minutes:.0f} min left" if done < of else "")

    return tell


def bench_report(
    pair: Pair,
    settings: BenchSettings,
    prompts: list[list[int]],
    forward: dict[str, dict[int, float]],
    contests: list[Contest],
) -> dict[str, Any]:
    """What `--json` writes."""
    return {
        "machine": environment(),
        "pair": {role: each.parameters for role, each in pair.models.items()},
        "random_weights": random_weights(pair),
        "settings": asdict(settings),
        "prompts": prompts,
        "forward_seconds": forward,
        "contests": [
            {
                "temperature": each.temperature,
                "contestants": [entry(each, runner) for runner in each.runners],
                "headlines": each.headlines(),
            }
            for each in contests
        ],
    }


def entry(result: Contest, runner: Runner) -> dict[str, Any]:
    """One runner's numbers. `seconds` and `tokens` are raw: by round, then by prompt."""
    timings, name, trace = result.timings, runner.name, runner.trace
    return {
        "name": name,
        "family": runner.family,
        "k": runner.k,
        "tokens_per_second": asdict(timings.rate(name)),
        "seconds": timings.seconds[name],
        "tokens": timings.tokens[name],
        "tokens_per_round": number(trace.tokens_per_round_with_bonus),
        "acceptance": number(trace.accepted_per_judged),
        "mean_overlap": number(trace.mean_overlap),
    }
