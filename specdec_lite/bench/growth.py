"""What a pass costs as the batch grows, and as the text does: timed in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from ..models import LanguageModel
from ..theory.formulas import speedup
from .timing import TimedCall, idle, interleave, pass_over


@dataclass(frozen=True)
class BatchCosts:
    """Costs at one batch size, each in the target's own pass over one token a text at this size."""

    batch: int
    k: int
    naive: float  # seconds of that pass
    draft: float  # the draft's pass over one token a text
    verify: float  # the target's pass over k + 1 tokens a text

    def speedup(self, acceptance: float) -> float:
        """Times as fast as naive decoding of the same batch, as long as no text has ended."""
        return speedup(acceptance, self.k, self.draft, self.verify)


def batch_costs(
    target: LanguageModel,
    draft: LanguageModel,
    batches: Sequence[int] = (1, 4, 16, 64),
    k: int = 4,
    cached: int = 64,
    rounds: int = 5,
) -> list[BatchCosts]:
    """Median times of `rounds` turns, every batch size in each turn; the texts hold `cached` tokens."""
    wanted = {"naive": (target, 1), "draft": (draft, 1), "verify": (target, k + 1)}
    passes = {f"{b} {name}": pass_over(model, b, n, cached) for b in batches for name, (model, n) in wanted.items()}
    times = interleave(passes, rounds=rounds, warm_up=1, wait=idle(target.device)).seconds
    made = []
    for b in batches:
        naive, drafting, verify = (median(each[0] for each in times[f"{b} {name}"]) for name in wanted)
        made.append(BatchCosts(b, k, naive, drafting / naive, verify / naive))
    return made


@dataclass(frozen=True)
class Growth:
    """Median seconds of one pass, for each length of the text in tokens."""

    cached: dict[int, float]  # over the last token, the others' keys and values being there
    whole: dict[int, float]  # over all tokens: a step without a cache, and also a prefill


def step_times(model: LanguageModel, lengths: Sequence[int], rounds: int = 5) -> Growth:
    """Time both kinds of step at each length, in turn.

    Args:
        model: any; what the text says makes no difference to the time.
        lengths: tokens in the text, each at least 2.
        rounds: timed passes of each kind and length.

    Raises:
        ValueError: a length below 2 or beyond the model's context.
    """
    most = model.context or max(lengths)
    if min(lengths) < 2 or max(lengths) > most:
        raise ValueError(f"lengths must lie between 2 and {most}, got {list(lengths)}")
    steps: dict[str, TimedCall] = {}
    for n in lengths:
        steps[f"cached {n}"] = pass_over(model, 1, 1, n - 1, last_only=True)
        steps[f"whole {n}"] = pass_over(model, 1, n, 0, last_only=True)
    timings = interleave(steps, rounds=rounds, warm_up=1, wait=idle(model.device))
    cached, whole = (
        {n: median(each[0] for each in timings.seconds[f"{kind} {n}"]) for n in lengths} for kind in ("cached", "whole")
    )
    return Growth(cached, whole)
