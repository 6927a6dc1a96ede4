"""Fair timing: runners take turns in one process, so that a machine's moods hit all alike.

A machine drifts (heat, neighbours, clocks). Runs that follow each other within seconds see the
same machine, so runners are timed round by round, every round begins with another one, and
a ratio is formed inside each round before the median is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

import torch

from ..models import LanguageModel, prefill

TimedCall = Callable[[int, int], int]  # (case, round) -> tokens made
TURN = 0.02  # seconds that something short is repeated for, to be timed well


@dataclass(frozen=True)
class Spread:
    """The middle of several measurements, and where their middle half lies."""

    median: float
    low: float  # first quartile
    high: float  # third quartile

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        values = list(values)
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, middle, high = quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high)


@dataclass
class Timings:
    """Raw results of a contest: `seconds[name][round][case]`, and tokens made likewise."""

    seconds: dict[str, list[list[float]]] = field(default_factory=dict)
    tokens: dict[str, list[list[int]]] = field(default_factory=dict)

    def rates(self, name: str) -> list[float]:
        """Tokens a second in each round, all its cases together."""
        pairs = zip(self.tokens[name], self.seconds[name], strict=True)
        return [sum(tokens) / sum(seconds) for tokens, seconds in pairs]

    def rate(self, name: str) -> Spread:
        """Tokens a second over the rounds."""
        return Spread.of(self.rates(name))

    def ratio(self, name: str, other: str) -> Spread:
        """How many times as fast as `other`, compared within each round."""
        return Spread.of([mine / its for mine, its in zip(self.rates(name), self.rates(other), strict=True)])

    def of(self, cases: Sequence[int]) -> Timings:
        """Of some cases alone."""
        kept = (
            {name: [[turn[i] for i in cases] for turn in each] for name, each in made.items()}
            for made in (self.seconds, self.tokens)
        )
        return Timings(*kept)

    def tokens_made(self, name: str) -> int:
        return sum(map(sum, self.tokens[name]))


def interleave(
    runners: Mapping[str, TimedCall],
    cases: int = 1,
    rounds: int = 5,
    warm_up: int = 1,
    wait: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] = lambda done, of: None,
    every_case: bool = False,
) -> Timings:
    """Let every runner do every case in every round; runners take turns on each case.

    Args:
        runners: by name. Each is called with a case and a round, and returns the tokens it made.
        cases: for instance prompts.
        rounds: how often all of it is repeated.
        warm_up: untimed calls of each runner beforehand, with the first case.
        wait: returns when the device is idle (`idle(device)`).
        progress: called after each call with how many are done, and of how many.
        every_case: warm up with all cases, since each may bring shapes of its own, to be recorded once.
    """
    names, timings = list(runners), Timings({name: [] for name in runners}, {name: [] for name in runners})
    warm_cases = cases if every_case else 1
    of = len(names) * (warm_up * warm_cases + rounds * cases)
    done = 0
    for turn in range(-warm_up, rounds):
        for case in range(cases if turn >= 0 else warm_cases):
            first = (turn * cases + case) % len(names)  # nobody always follows the same neighbour's caches
            for name in names[first:] + names[:first]:
                wait()
                began = time.perf_counter()
                tokens = runners[name](case, max(turn, 0))
                wait()
                passed = time.perf_counter() - began
                if turn >= 0:
                    if case == 0:
                        timings.seconds[name].append([])
                        timings.tokens[name].append([])
                    timings.seconds[name][turn].append(passed)
                    timings.tokens[name][turn].append(tokens)
                done += 1
                progress(done, of)
    return timings


def repeated(call: Callable[[], object], made: int, wait: Callable[[], None]) -> tuple[TimedCall, int]:
    """A turn that calls as often as fills `TURN`, and how often: so that starting and ending it count for nothing.

    `made` is what one call makes: rows, bytes.
    """
    count = max(1, round(TURN / second_call(call, wait)))

    def turn(case: int, turn: int) -> int:
        for _ in range(count):
            call()
        return count * made

    return turn, count


def second_call(call: Callable[[], object], wait: Callable[[], None]) -> float:
    """Seconds of a call, after one that warms up."""
    call()
    wait()
    began = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - began


def interleave_options(device: torch.device) -> dict[str, Any]:
    """How `interleave` times a device: it waits until all is done; what can be recorded is recorded before."""
    return {"wait": idle(device), "every_case": device.type == "cuda"}


def idle(device: torch.device) -> Callable[[], None]:
    """A call that returns when everything queued on the device is done."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    if device.type == "mps":
        return torch.mps.synchronize
    return lambda: None


def forward_seconds(
    models: Mapping[str, LanguageModel], tokens: Mapping[str, Sequence[int]], cached: int = 128, rounds: int = 30
) -> dict[str, dict[int, float]]:
    """Median seconds of one forward, for each model and number of tokens fed, measured in turn.

    Args:
        models: by role, for instance "target" and "draft".
        tokens: for each role, the numbers of tokens to feed.
        cached: tokens that the cache holds before.
    """
    steps = {}
    for role, model in models.items():
        room = model.context or cached + 1 + max(tokens[role])
        held = max(1, min(cached, room - max(tokens[role])))
        for n in tokens[role]:
            steps[f"{role} {n}"] = pass_over(model, 1, n, held)
    device = next(iter(models.values())).device
    timings = interleave(steps, rounds=rounds, warm_up=3, wait=idle(device))
    return {role: {n: median(s[0] for s in timings.seconds[f"{role} {n}"]) for n in tokens[role]} for role in models}


def pass_over(model: LanguageModel, batch: int, rows: int, cached: int, last_only: bool = False) -> TimedCall:
    """A forward over `rows` tokens of each of `batch` texts, behind `cached` tokens that are not timed."""
    cache = model.new_cache(batch, cached + rows)
    block = torch.zeros(batch, rows, dtype=torch.long, device=model.device)
    with torch.inference_mode():
        prefill(model, cache, [[0] * (cached + 1)] * batch)

    @torch.inference_mode()
    def step(case: int, turn: int) -> int:
        model.forward(block, cache, last_only=last_only)
        cache.rewind([rows] * batch)
        return rows

    return step
