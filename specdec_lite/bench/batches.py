"""`specdec bench --batch`: where a growing batch ends the gain, measured and predicted."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from ..drafters.model import ModelDrafter
from ..loading.pair import Pair
from ..sampling.distributions import Sampling
from ..theory.cost_model import Costs
from ..theory.replay import AcceptProbs, Replay, replay, steps_until_all_end
from .agreement import agreement
from .compare import prompts_for
from .console import Ink, table
from .demo import describe
from .diagnosis import as_costs
from .machine import environment
from .phase_costs import time_opening, time_phases
from .phases import timed_run
from .timing import Spread, Timings, idle, interleave


def run(pair: Pair, settings: BatchSettings, json_file: str | None = None) -> None:
    """The whole benchmark at one temperature: a table on standard output, progress on standard error."""
    ink, progress = Ink(sys.stdout), Ink(sys.stderr)
    prompts = prompts_for(pair, settings)
    describe(ink, pair.models)
    how = "greedy" if settings.temperature == 0 else f"temperature {settings.temperature:g}"
    ink.paragraph(
        "",
        f"{how}; prompts of {len(prompts[0])} tokens, {settings.max_new_tokens} new tokens each; medians over "
        f"{settings.repeats} rounds in which all take turns",
    )
    ink.line()
    progress.passing("  the target writes alone, and the draft is compared with it ...")
    texts, chances = written(pair, prompts, settings)
    results = []
    for rows in settings.batches:
        progress.passing(f"  batch {rows} of {', '.join(map(str, settings.batches))} ...")
        predicted = predict(pair, texts[:rows], chances[:rows], len(prompts[0]), settings)
        results.append(Batch(rows, contest(pair, prompts[:rows], settings), predicted))
    progress.passing("")
    show(ink, results)
    if json_file:
        with open(json_file, "w", encoding="utf-8") as file:
            json.dump(batches_report(pair, settings, results), file, indent=1)


def ends_at(gains: Mapping[int, float]) -> float | None:
    """The batch at which the gain passes 1 for the last time, on a line through logarithms. None: it never does.

    gains: times naive, by batch size. Where already the smallest batch gains nothing, it is that size.
    """
    sizes = sorted(gains)
    if gains[sizes[-1]] >= 1:
        return None
    last = max((i for i, size in enumerate(sizes) if gains[size] >= 1), default=None)
    if last is None:
        return float(sizes[0])
    before, after = sizes[last], sizes[last + 1]
    above, below = math.log(gains[before]), math.log(gains[after])
    return before * (after / before) ** (above / (above - below))


def show(ink: Ink, results: list[Batch]) -> None:
    """The table, and where the gain ends."""
    dash = ink.glyph("–", "-")
    rows = [["batch", "naive tokens/s", "speculative", "K", "times naive", "middle half", "predicted"]]
    for each in results:
        naive, fast, gain = each.timings.rate(NAIVE), each.timings.rate(name(each.best)), each.gain
        span = f"{gain.low:.2f} {dash} {gain.high:.2f}"
        numbers = [f"{naive.median:.0f}", f"{fast.median:.0f}", str(each.best), f"{gain.median:.2f}", span]
        rows.append([str(each.rows), *numbers, f"{each.predicted[each.best]:.2f}"])
    lines = table(rows)
    ink.line(ink(lines[0], "title"))
    for each, line in zip(results, lines[1:], strict=True):
        ink.line(line if each.gain.median >= 1 else ink(line, "note"))
    ink.line()
    measured, predicted = ends(results)
    sizes = [each.rows for each in results]
    ink.paragraph("Where it ends.", f"By the clock {where(measured, sizes)}; predicted: {where(predicted, sizes)}.")


def ends(results: list[Batch]) -> tuple[float | None, float | None]:
    """Where the best K of each batch stops to gain: measured, predicted."""
    measured = {each.rows: each.gain.median for each in results}
    return ends_at(measured), ends_at({each.rows: max(each.predicted.values()) for each in results})


def where(end: float | None, sizes: Sequence[int]) -> str:
    if end is None:
        return f"speculation still pays at a batch of {max(sizes)}"
    if end <= min(sizes):
        return f"speculation does not pay even at a batch of {min(sizes)}"
    return f"speculation stops paying at a batch of about {end:.0f}"


def batches_report(pair: Pair, settings: BatchSettings, results: list[Batch]) -> dict[str, Any]:
    """What `--json` writes. `seconds` and `tokens` are raw, by round."""
    measured, predicted = ends(results)
    return {
        "machine": environment(),
        "pair": {role: each.parameters for role, each in pair.models.items()},
        "settings": asdict(settings),
        "batches": [
            {
                "batch": each.rows,
                "best_k": each.best,
                "naive_tokens_per_second": asdict(each.timings.rate(NAIVE)),
                "speculative": [
                    {
                        "k": k,
                        "tokens_per_second": asdict(each.timings.rate(name(k))),
                        "times_naive": asdict(each.timings.ratio(name(k), NAIVE)),
                        "predicted": each.predicted[k],
                    }
                    for k in each.predicted
                ],
                "seconds": {who: [sum(turn) for turn in every] for who, every in each.timings.seconds.items()},
                "tokens": {who: [sum(turn) for turn in every] for who, every in each.timings.tokens.items()},
            }
            for each in results
        ],
        "stops_paying_at": {"measured": measured, "predicted": predicted},
    }


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
