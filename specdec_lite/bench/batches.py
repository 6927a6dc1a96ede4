"""`specdec bench --batch`: where a growing batch ends the gain, measured and predicted."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..loading.pair import Pair
from .batch_trial import NAIVE, Batch, BatchSettings, contest, name, predict, written
from .compare import prompts_for
from .console import Ink, table
from .demo import describe
from .machine import environment


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
