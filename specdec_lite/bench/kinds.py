"""`specdec bench` of a chat model: questions of six kinds, since a mean over kinds hides the story.

Greedy and sampled, naive decoding against every drafter at several K and against transformers, all in turn on the same
prompts. Answers go on to the same number of tokens, so that all do the same work.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..loading.pair import Pair
from ..prompts import to_token_ids
from ..sampling.distributions import Sampling
from .compare import progress_on, time_runners
from .console import Ink, table
from .demo import describe
from .machine import environment
from .runners import Runner, own, theirs
from .timing import Spread, Timings

QUESTIONS: dict[str, list[str]] = json.loads(
    (Path(__file__).parents[1] / "smollm2" / "questions.json").read_text(encoding="utf-8")
)


@dataclass(frozen=True)
class KindsSettings:
    """What the command line says."""

    drafters: Sequence[str]
    ks: Sequence[int] = (1, 2, 3, 4, 6)
    temperatures: Sequence[float] = (0.0, 1.0)
    per_kind: int = 4
    max_new_tokens: int = 96
    repeats: int = 3
    only: str | None = None


def questions(pair: Pair, per_kind: int) -> dict[str, list[list[int]]]:
    """Prompts by kind, in the target's chat template."""
    return {
        kind: [to_token_ids([{"role": "user", "content": each}], pair.target)[0] for each in some[:per_kind]]
        for kind, some in QUESTIONS.items()
    }


@dataclass
class KindsContest:
    """All runners at one temperature, on every question."""

    temperature: float
    kinds: list[str]  # of each case
    runners: list[Runner]
    timings: Timings

    def cases(self, kind: str | None) -> list[int]:
        return [i for i, each in enumerate(self.kinds) if kind in (None, each)]

    def rate(self, name: str, kind: str | None = None) -> Spread:
        """Tokens a second over the questions of a kind; by turn."""
        return self.timings.of(self.cases(kind)).rate(name)

    def ratio(self, name: str, base: str, kind: str | None = None) -> Spread:
        return self.timings.of(self.cases(kind)).ratio(name, base)

    def best(self, family: str, kind: str | None = None) -> str:
        """The K that is fastest for a drafter, over all questions or those of a kind."""
        names = [each.name for each in self.runners if each.family == family]
        return max(names, key=lambda name: self.rate(name, kind).median)

    @property
    def families(self) -> list[str]:
        return list(dict.fromkeys(each.family for each in self.runners))


def contest(pair: Pair, settings: KindsSettings, temperature: float, ink: Ink) -> KindsContest:
    asked = questions(pair, settings.per_kind)
    prompts, kinds = [each for some in asked.values() for each in some], [kind for kind in asked for _ in asked[kind]]
    sampling, runners = Sampling(temperature=temperature), []
    if settings.only != "transformers":
        for name in settings.drafters:
            mine = own(pair, settings.ks, settings.max_new_tokens, sampling, name)
            runners += mine[bool(runners) :]  # naive once
    if settings.only != "own":
        runners += theirs(pair, settings.ks, settings.max_new_tokens, sampling)
    timings = time_runners(pair, runners, prompts, settings.repeats, progress_on(ink))
    return KindsContest(temperature, kinds, runners, timings)


def run(pair: Pair, settings: KindsSettings, json_file: str | None = None) -> list[KindsContest]:
    """Tables on standard output, progress on standard error."""
    ink, made = Ink(sys.stdout), []
    describe(ink, pair.models, " and ".join(settings.drafters))
    ink.paragraph(
        "",
        f"{settings.per_kind} questions of each kind, held out of training; {settings.max_new_tokens} new tokens each; "
        f"medians over {settings.repeats} turns",
    )
    ink.line()
    for temperature in settings.temperatures:
        made.append(contest(pair, settings, temperature, Ink(sys.stderr)))
        show(ink, made[-1])
    if json_file:
        Path(json_file).write_text(json.dumps(report(settings, made), indent=1), encoding="utf-8")
    return made


def show(ink: Ink, found: KindsContest) -> None:
    """For each way of decoding its best K over all kinds, and with it the speed-up over naive by kind."""
    base = found.runners[0].name
    kinds = list(dict.fromkeys(found.kinds))
    title = "greedy" if found.temperature == 0 else f"temperature {found.temperature:g}"
    rows = [[f"{title}, times {base}", "tokens/s", "all", *kinds, "tokens/round"]]
    for family in found.families:
        name = found.best(family)
        runner = next(each for each in found.runners if each.name == name)
        ratios = [f"{found.ratio(name, base, kind).median:.2f}" for kind in (None, *kinds)]
        per_round = [f"{runner.trace.tokens_per_round_with_bonus:.2f}"] if runner.rounds else []
        rows.append([name, f"{found.rate(name).median:.1f}", *ratios, *per_round])
    for i, line in enumerate(table(rows)):
        ink.line(ink(line, "title") if i == 0 else line)
    ink.line()


def report(settings: KindsSettings, made: Sequence[KindsContest]) -> dict[str, Any]:
    """What `--json` writes: seconds and tokens by turn, then by question."""
    return {
        "machine": environment(),
        "settings": asdict(settings),
        "contests": [
            {
                "temperature": each.temperature,
                "kinds": each.kinds,
                "runners": [
                    {
                        "name": runner.name,
                        "family": runner.family,
                        "k": runner.k,
                        "seconds": each.timings.seconds[runner.name],
                        "tokens": each.timings.tokens[runner.name],
                        "tokens_per_round": runner.trace.tokens_per_round_with_bonus if runner.rounds else None,
                    }
                    for runner in each.runners
                ],
            }
            for each in made
        ],
    }
