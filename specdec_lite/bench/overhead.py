"""What passes outside both models' forwards: sampling, verdicts, book-keeping, waiting; and what a trace costs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..decoding import speculative, start
from ..drafters.model import ModelDrafter
from ..models import LanguageModel
from ..sampling.distributions import Sampling
from ..stopping import Stop
from ..trace import Detail
from ..transfer import PhaseTimer
from .timing import Spread, TimedCall, idle, interleave, interleave_options


class Watched:
    """A model whose forwards are timed."""

    def __init__(self, model: LanguageModel) -> None:
        self.model, self.watch = model, PhaseTimer(model.device)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def forward(self, tokens: Tensor, cache: Any, last_only: bool = False) -> Tensor:
        self.watch.end("between")
        logits = self.model.forward(tokens, cache, last_only)
        self.watch.end("forward")
        return logits

    def inside(self) -> float:
        """Seconds of all forwards since the watch began."""
        self.watch.end("between")  # the last phase ends on the host, and is no forward
        return self.watch.seconds().get("forward", 0.0)


def outside(
    target: LanguageModel,
    draft: LanguageModel,
    prompts: Sequence[list[int]],
    *,
    k: int = 4,
    new: int = 64,
    repeats: int = 5,
    sampling: Sampling | None = None,
) -> Spread:
    """The share of a round, over so many turns through all prompts; one before them warms up.

    Errors as for `speculative`.
    """
    models, wait, shares = (Watched(target), Watched(draft)), idle(target.device), []
    how: dict[str, Any] = dict(k=k, max_new_tokens=new, sampling=sampling or Sampling(temperature=0), stop=Stop())
    for turn in range(repeats + 1):
        inside = whole = 0.0
        for case, prompt in enumerate(prompts):
            run = start(models[0], ModelDrafter(models[1]), [prompt], seed=turn * len(prompts) + case, **how)
            wait()
            began = time.perf_counter()
            for each in models:  # reading the prompt is no part of a round
                each.watch = PhaseTimer(target.device)
            while run.unfinished:
                run.round()
            wait()
            whole += time.perf_counter() - began
            inside += sum(each.inside() for each in models)
        if turn > 0:
            shares.append(1 - inside / whole)
    return Spread.of(shares)


def tracing(
    target: LanguageModel, draft: LanguageModel, prompts: Sequence[list[int]], *, k: int = 4, new: int = 64,
    repeats: int = 5,
) -> Spread:  # fmt: skip
    """What a trace costs: the time of greedy decoding with a summary of each round, over that with none, less one."""
    drafter = ModelDrafter(draft)
    how = dict(k=k, max_new_tokens=new, sampling=Sampling(temperature=0), stop=Stop())

    def runner(detail: Detail) -> TimedCall:
        return lambda case, turn: len(speculative(target, drafter, prompts[case], trace=detail, **how).tokens)

    calls = {detail: runner(detail) for detail in ("off", "summary")}
    timings = interleave(calls, len(prompts), repeats, warm_up=1, **interleave_options(target.device))
    with_and_without = zip(timings.rates("summary"), timings.rates("off"), strict=True)
    return Spread.of([off / summary - 1 for summary, off in with_and_without])
