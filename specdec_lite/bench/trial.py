"""One k decoded for real, in turn with naive decoding, to set beside what was predicted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from ..draft import Drafter
from ..models import LanguageModel
from ..sampling.distributions import Sampling
from ..theory.formulas import Estimate, acceptance_of
from .phases import PARTS, TimedRun, timed_run
from .timing import Spread, interleave, interleave_options

Turn = Sequence[TimedRun]  # the runs of one turn, one for each prompt


@dataclass(frozen=True)
class Measured:
    """What the clock said; every time is compared with naive decoding in the same turn."""

    k: int
    speed_up: Spread  # over the turns
    naive_rate: Spread  # tokens a second
    rate: Spread
    tokens_per_round: float
    acceptance: Estimate | None  # censored, with Wilson's interval; None where nothing was judged
    step: float  # seconds of a naive step
    round: dict[str, float]  # seconds of a mean round, by part, "opening" shared out among the rounds
    whole: float  # seconds of the wall clock for a round, opening included

    @property
    def gap(self) -> float:
        """The share of the wall clock that the parts leave unexplained, or, below 0, count twice."""
        return 1 - sum(self.round.values()) / self.whole


def measure(
    target: LanguageModel,
    drafter: Drafter,
    prompts: Sequence[list[int]],
    k: int,
    *,
    new: int,
    sampling: Sampling,
    repeats: int,
    seed: int = 0,
) -> Measured:
    """Both ways on every prompt, `repeats` times in turn, each time with new seeds. Errors as for `speculative`."""
    runs: dict[str, list[TimedRun]] = {"naive": [], "speculative": []}

    def runner(name: str) -> Callable[[int, int], int]:
        mine = drafter if name == "speculative" else None

        def run(case: int, turn: int) -> int:
            at = seed + turn * len(prompts) + case
            runs[name].append(
                timed_run(target, mine, [prompts[case]], k=k, max_new_tokens=new, sampling=sampling, seed=at)
            )
            return runs[name][-1].new_tokens

        return run

    calls = {name: runner(name) for name in runs}
    timings = interleave(calls, len(prompts), repeats, warm_up=1, **interleave_options(target.device))
    timed = {name: every[-repeats * len(prompts) :] for name, every in runs.items()}  # the first ones warmed up
    naive, fast = (
        [every[i : i + len(prompts)] for i in range(0, len(every), len(prompts))] for every in timed.values()
    )
    rounds = [each for run in timed["speculative"] for each in run.rounds]
    step, parts, whole = per_round(naive, fast)
    return Measured(
        k, timings.ratio("speculative", "naive"), timings.rate("naive"), timings.rate("speculative"),
        sum(len(each.kept) for each in rounds) / len(rounds),
        acceptance_of(rounds) if any(each.judged for each in rounds) else None, step, parts, whole,
    )  # fmt: skip


def per_round(naive: Sequence[Turn], fast: Sequence[Turn]) -> tuple[float, dict[str, float], float]:
    """Seconds of a naive step, of each part of a round, and of the wall clock for a round.

    A turn's rounds are counted in naive steps of the same turn, and the middle of the turns is taken,
    so that a turn in which the machine was slow says the same as the others.
    """
    steps = [sum(sum(run.parts.values()) for run in turn) / _steps(turn) for turn in naive]
    step = median(steps)

    def middle(seconds: Callable[[TimedRun], float]) -> float:
        each = zip(fast, steps, strict=True)
        return step * median(sum(map(seconds, turn)) / _steps(turn) / own for turn, own in each)

    parts = {part: middle(lambda run, part=part: run.parts[part]) for part in PARTS}
    return step, parts | {"opening": middle(lambda run: run.opening)}, middle(lambda run: run.seconds)


def _steps(turn: Turn) -> int:
    return sum(run.steps for run in turn)
