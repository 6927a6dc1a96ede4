"""A batch decoded naively and speculatively, and what was predicted of it.

A batch shares each forward's fixed cost among its rows, which is what speculation shares among tokens;
the more rows, the less is left to share, and the more arithmetic a rejected token wastes. A batch also
waits for its slowest row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from ..drafters.model import ModelDrafter
from ..loading.pair import Pair
from ..sampling.distributions import Sampling
from ..theory.cost_model import Costs
from ..theory.replay import AcceptProbs, Replay, replay, steps_until_all_end
from .agreement import agreement
from .diagnosis import as_costs
from .phase_costs import time_opening, time_phases
from .phases import timed_run
from .timing import Spread, Timings, idle, interleave

NAIVE = "naive"


@dataclass(frozen=True)
class BatchSettings:
    """What the command line says."""

    batches: Sequence[int] = (1, 2, 4, 8, 16, 32)
    ks: Sequence[int] = (1, 2, 4)
    temperature: float = 0.0
    max_new_tokens: int = 64
    repeats: int = 5

    @property
    def prompts(self) -> int:
        return max(self.batches)


@dataclass
class Batch:
    """All runners at one batch size."""

    rows: int
    timings: Timings
    predicted: dict[int, float]  # times naive, for each k

    def measured(self, k: int) -> float:
        return self.timings.ratio(name(k), NAIVE).median

    @property
    def best(self) -> int:
        """The k that was fastest by the clock."""
        return max(self.predicted, key=self.measured)

    @property
    def gain(self) -> Spread:
        """Times naive, with that k."""
        return self.timings.ratio(name(self.best), NAIVE)


def name(k: int) -> str:
    return f"speculative K={k}"


def written(pair: Pair, prompts: list[list[int]], settings: BatchSettings) -> tuple[list[list[int]], list[AcceptProbs]]:
    """The target's own texts, and along each the chances of a draft."""
    sampling, drafter = Sampling(temperature=settings.temperature), ModelDrafter(pair.draft)
    alone = timed_run(
        pair.target, None, prompts, k=0, max_new_tokens=settings.max_new_tokens, sampling=sampling, seed=0
    )  # fmt: skip
    pairs = zip(alone.texts, alone.starts, strict=True)
    most = max(settings.ks)
    return alone.texts, [agreement(pair.target, drafter, *each, sampling, most).chances for each in pairs]


def predict(
    pair: Pair, texts: list[list[int]], chances: list[AcceptProbs], prompt: int, settings: BatchSettings
) -> dict[int, float]:
    """Times naive for each k, from the texts and the pieces at this batch size: no speculative run."""
    drafter, new, ks = ModelDrafter(pair.draft), settings.max_new_tokens, settings.ks
    sampling = Sampling(temperature=settings.temperature)
    costs: list[Costs] = []
    for turn in range(settings.repeats + 1):
        begun = [text[:prompt] for text in texts]
        alone = timed_run(pair.target, None, begun, k=0, max_new_tokens=new, sampling=sampling, seed=0)
        timed = time_phases(pair.target, drafter, texts, max(new // 2, *ks, 2), ks, sampling=sampling)
        opening = time_opening(pair.target, drafter, begun, new, max(ks))
        if turn > 0:  # the first warms up
            costs.append(as_costs(alone, [timed], opening))
    return {k: median(speed_up(chances, k, each) for each in costs) for k in ks}


def speed_up(chances: Sequence[AcceptProbs], k: int, costs: Costs) -> float:
    """Times naive for a batch of texts, whose steps all rows share until the last one ends."""
    new, steps = len(chances[0]), steps_until_all_end(chances, k)
    account = Replay()
    for each in chances:
        for part in replay(each, k):
            account.add(part)
    nobody_full = (1 - account.full / account.rounds) ** len(chances)  # the draft feeds two tokens if any row needs it
    pieces = sum(costs.piece(part, k) for part in ("draft", "verify", "sample", "synchronise"))
    step = pieces + costs.naive["rest"] + (1 - nobody_full) * costs.catch_up
    return (costs.opening + new * costs.step) / (costs.opening + costs.draft_opening + steps * step)


def contest(pair: Pair, prompts: list[list[int]], settings: BatchSettings) -> Timings:
    """Naive and speculative decoding of the whole batch, in turn, with new seeds each time."""
    drafter, sampling = ModelDrafter(pair.draft), Sampling(temperature=settings.temperature)

    def runner(k: int) -> Callable[[int, int], int]:
        return lambda case, turn: timed_run(
            pair.target, drafter, prompts, k=k, max_new_tokens=settings.max_new_tokens, sampling=sampling,
            seed=turn * len(prompts),
        ).new_tokens  # fmt: skip

    everyone = {NAIVE: runner(0)} | {name(k): runner(k) for k in settings.ks}
    return interleave(everyone, rounds=settings.repeats, wait=idle(pair.target.device))
