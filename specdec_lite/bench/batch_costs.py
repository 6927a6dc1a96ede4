"""What a batch does to the price of judging: passes of both models over several texts at once, timed in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch

from ..models import LanguageModel, prefill
from ..theory.formulas import speedup
from .timing import TimedCall, idle, interleave


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
    passes = {f"{b} {name}": _forward(model, b, n, cached) for b in batches for name, (model, n) in wanted.items()}
    times = interleave(passes, rounds=rounds, warm_up=1, wait=idle(target.device)).seconds
    made = []
    for b in batches:
        naive, drafting, verify = (median(each[0] for each in times[f"{b} {name}"]) for name in wanted)
        made.append(BatchCosts(b, k, naive, drafting / naive, verify / naive))
    return made


def _forward(model: LanguageModel, batch: int, n: int, cached: int) -> TimedCall:
    cache = model.new_cache(batch, cached + n + 1)
    block = torch.zeros(batch, n, dtype=torch.long, device=model.device)
    with torch.inference_mode():
        prefill(model, cache, [[0] * (cached + 1)] * batch)

    @torch.inference_mode()
    def step(case: int, turn: int) -> int:
        model.forward(block, cache)
        cache.rewind([n] * batch)
        return n

    return step
