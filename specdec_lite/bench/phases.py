"""Where the time of a run goes, seen through what the loop takes as arguments; the loop itself stays as it is.

Each piece marks the clock as it is entered or left, so the parts follow each other without a gap.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..decoding import start
from ..draft import Draft, Drafter
from ..engines.engine import Layers, Span
from ..kv_cache import KVCache
from ..models import LanguageModel
from ..randomness import AcceptedLength, Randomness, SeededStreams
from ..sampling.distributions import Sampling
from ..stopping import Stop
from ..trace import Round, first_of_step
from ..transfer import PhaseTimer
from .synthetic import SyntheticDrafter

PARTS = ("draft", "verify", "sample", "synchronise", "rest")  # of a round


@dataclass
class TimedRun:
    """One run and its times in seconds."""

    texts: list[list[int]]  # prompt and new tokens, by row
    starts: list[int]  # lengths of the prompts
    rounds: list[Round]
    seconds: float  # of the wall clock, around everything
    opening: float  # until the first round: prompts checked and read, caches made
    parts: dict[str, float]  # of all rounds together

    @property
    def steps(self) -> int:
        """Forwards of the target after the prompt: a batch's rows share them."""
        return sum(1 for _ in first_of_step(self.rounds))

    @property
    def new_tokens(self) -> int:
        return sum(len(each.kept) for each in self.rounds)

    @property
    def gap(self) -> float:
        """The share of the wall clock that the parts leave unexplained."""
        return 1 - (self.opening + sum(self.parts.values())) / self.seconds

    def per_step(self) -> dict[str, float]:
        """Seconds of each part in a mean round."""
        return {part: seconds / self.steps for part, seconds in self.parts.items()}


def timed_run(
    target: LanguageModel,
    drafter: Drafter | None,
    prompts: Sequence[list[int]],
    *,
    k: int,
    max_new_tokens: int,
    sampling: Sampling,
    seed: int,
    wait: Callable[[], None] = lambda: None,
) -> TimedRun:
    """Decode to the full length, without a stop, and time the parts. No drafter, or k = 0: naively.

    `wait` returns when the device is idle (`measure.idle`). Errors as for `speculative`.
    """
    wait()
    began = time.perf_counter()
    phases = PhaseClock(target.device)
    k = k if drafter else 0
    seeds = [seed + row for row in range(len(prompts))]
    run = start(
        Model(target, phases), Opener(drafter, phases) if k else None, list(prompts), k=k,
        max_new_tokens=max_new_tokens, sampling=sampling, stop=Marker(phases=phases),
        randomness=Draws(SeededStreams(seeds, k, target.device), phases),
    )  # fmt: skip
    if isinstance(drafter, SyntheticDrafter):
        run.rule = drafter.rule
    rounds: list[Round] = []
    while run.unfinished:
        rounds += run.round()
    phases.end("rest")
    wait()
    passed = time.perf_counter() - began
    times = phases.seconds()
    parts = {part: times.get(part, 0.0) for part in PARTS}
    return TimedRun(run.token_ids, run.prompt_lengths, rounds, passed, times["opening"], parts)


class PhaseClock(PhaseTimer):
    """A stopwatch that calls everything before the first round its opening."""

    begun = False

    def end(self, name: str) -> None:
        super().end(name if self.begun else "opening")


class Model:
    """The target: its forwards are the verification."""

    def __init__(self, model: LanguageModel, phases: PhaseClock) -> None:
        self.model, self.phases = model, phases

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def forward(self, tokens: Tensor, cache: Any, last_only: bool = False) -> Tensor:
        self.phases.end("rest")
        logits = self.model.forward(tokens, cache, last_only)
        self.phases.end("verify")
        return logits

    def forward_span(self, x: Tensor, cache: Any, span: Span, last_only: bool = False) -> Layers:
        """All layers are the verification of a drafter that reads the states; some are an early exit's draft."""
        if (span.start, span.stop) != (0, self.model.layers):
            return self.model.forward_span(x, cache, span, last_only)
        self.phases.end("rest")
        made = self.model.forward_span(x, cache, span, last_only)
        self.phases.end("verify")
        return made


class Opener:
    """A drafter and its session in one."""

    def __init__(self, drafter: Drafter, phases: PhaseClock) -> None:
        self.drafter, self.phases = drafter, phases

    def open(self, texts: Any, target: LanguageModel, cache: KVCache) -> Opener:
        self.session = self.drafter.open(texts, target, cache)
        self.max_draft_tokens = self.session.max_draft_tokens
        return self

    @property
    def states(self) -> tuple[int, ...]:
        return getattr(self.session, "states", ())

    def observe(self, hidden: Any) -> None:
        self.session.observe(hidden)

    def propose(self, texts: Any, k: int, sampler: Any, randomness: Any) -> Draft:
        self.phases.end("rest")
        draft = self.session.propose(texts, k, sampler, randomness)
        self.phases.end("draft")
        return draft


class Draws:
    """The randomness: asked for a round's last token, it ends the sampling."""

    def __init__(self, randomness: Randomness, phases: PhaseClock) -> None:
        self.randomness, self.phases, self.verified = randomness, phases, False

    def begin_round(self) -> None:
        self.phases.end("rest")
        self.phases.begun, self.verified = True, False
        self.randomness.begin_round()

    def accept(self, pass_probs: Tensor, accepted_length: AcceptedLength) -> tuple[Tensor, Tensor]:
        self.verified = True
        return self.randomness.accept(pass_probs, accepted_length)

    def sample(self, probs: Tensor) -> Tensor:
        token = self.randomness.sample(probs)
        if self.verified:
            self.phases.end("sample")
        return token


@dataclass(frozen=True)
class Marker(Stop):
    """A stop that never stops: the first row's turn ends the synchronisation."""

    phases: PhaseClock | None = None

    def cut(self, *arguments: Any) -> tuple[list[int], str | None]:
        self.phases.end("synchronise" if self.phases.names[-1] == "sample" else "rest")
        return super().cut(*arguments)
