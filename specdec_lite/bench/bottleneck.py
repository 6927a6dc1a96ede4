"""What a pass waits for, in a sentence, and what data sheets promise elsewhere."""

from __future__ import annotations

from dataclasses import asdict
from itertools import count
from typing import Any

from .bandwidth import last_level_cache
from .data_sheets import DEVICES
from .goals import GOALS
from .models_under_test import Subject
from .passes import Passes
from .roofline_model import Ceiling, Shape

FEW = 5  # rows: a round of K = 4
WANTED = {each.name: each.bound for each in GOALS if each.part == "roofline"}  # of the wide model
UNEXPLAINED = 2.0  # measured over predicted, beyond which the cause is none of the three
PARTED = 1.25  # measured over predicted, beyond which it is pointed out
WAITS = {
    "memory": "waits for its weights to come from memory",
    "dispatch": "waits for dispatch, the fixed cost of many small operations",
    "arithmetic": "waits for arithmetic",
}


def regime(subject: Subject) -> str:
    """What a pass over one row waits for, and from how many rows on something else decides."""
    best = subject.best
    causes = {n: best.ceiling.waits_for(best.shape.work(n, best.context)) for n in best.rows}
    parts = {name: 1000 * took for name, took in best.ceiling.parts(best.shape.work(1, best.context)).items()}
    listed = ", ".join(f"{name} {parts[name]:.2f} ms" for name in sorted(parts, key=parts.__getitem__, reverse=True))
    line = f"With the {best.engine} engine a pass over one row {WAITS[causes[1]]} ({listed})."
    later = next((n for n, cause in causes.items() if cause != causes[1]), None)
    if later:
        line += f" From {later} rows on it {WAITS[causes[later]]}."
    if (times := best.seconds(1).median / best.predicted(1)) > UNEXPLAINED:
        line += f" But it takes {times:.1f} times as long as these needs explain: mostly it waits for its own kernels."
    if best.shape.weight_bytes <= (last_level_cache(subject.module.device) or 0):
        line += " Its weights fit into the last cache, from which they come faster than from memory."
    return line


def parting(passes: Passes) -> str:
    """How far measurement and prediction are apart, and where most."""
    off = {n: passes.seconds(n).median / passes.predicted(n) for n in passes.rows}
    far = {n: ratio for n, ratio in off.items() if not 1 / PARTED <= ratio <= PARTED}
    if not far:
        return f"Nowhere by more than a quarter, with the {passes.engine} engine."
    worst = max(far, key=lambda n: max(far[n], 1 / far[n]))
    rows = "every number of" if len(far) == len(off) else ", ".join(str(n) for n in far)
    why = (
        "the kernels for so few rows reach neither the bandwidth of reading one block nor the arithmetic of a large "
        "product, and a layer's steps wait for each other"
        if off[worst] > 1
        else "the pass needs less than was counted: caches keep weights, or its kernels beat the product measured above"
    )
    plural = "s" * (len(far) == len(off) or list(far) != [1])
    return (
        f"At {rows} row{plural} by more than a quarter ({passes.engine} engine), most at {worst}, "
        f"{off[worst]:.2f} times the prediction: {why}."
    )


def serving_both(subject: Subject) -> Passes:
    """The engine to judge: it runs naive decoding and verification alike, so it is the fastest at both together."""
    return min(subject.passes.values(), key=lambda each: each.seconds(1).median + each.seconds(FEW).median)


def wanted(subject: Subject) -> dict[str, dict[str, Any]]:
    """The two targets for a model that waits for memory, with what was measured; nothing for other models."""
    if not subject.wide:
        return {}
    best = serving_both(subject)
    few, read = best.ratio(FEW), best.share(1)
    return {
        "five_rows": {
            "is": asdict(few), "at_most": WANTED["five_rows"], "met": few.median <= WANTED["five_rows"],
            "engine": best.engine,
        },
        "share_of_bandwidth": {
            "is": asdict(read), "quietest_quarter": best.quiet_share(), "at_least": WANTED["share_of_bandwidth"],
            "met": read.median >= WANTED["share_of_bandwidth"], "engine": best.engine,
        },
    }  # fmt: skip


def wanted_lines(subject: Subject) -> list[str]:
    figures = wanted(subject)
    if not figures:
        return []
    few, read = figures["five_rows"], figures["share_of_bandwidth"]
    verdict = {True: "met", False: "not met"}
    against = "copy " if subject.best.against == "copy" else ""
    return [
        f"A pass over {FEW} rows at most {few['at_most']} times one over a single row: {few['is']['median']:.2f}, "
        f"{verdict[few['met']]} ({few['engine']} engine).",
        f"One row reads weights at {read['at_least']:.0%} or more of the {against}bandwidth measured in the same "
        f"rounds: {read['is']['median']:.0%}, {verdict[read['met']]} ({read['engine']} engine; "
        f"{read['quietest_quarter']:.0%} in the quietest quarter of the rounds).",
    ]


def elsewhere(shape: Shape, context: int) -> list[dict[str, Any]]:
    """What data sheets promise for this model, dispatch left out: a ceiling, not a forecast."""
    made = []
    for device in DEVICES.values():
        precision = next(name for name in ("bfloat16", "float16", "float32") if name in device.tflops)
        stored = shape.stored(4 if precision == "float32" else 2)
        ceiling = Ceiling(1e9 * device.bandwidth_gb_s, 1e12 * device.tflops[precision])
        one, few = (ceiling.seconds(stored.work(n, context)) for n in (1, FEW))
        limit = next(n for n in count(1) if n > 1 << 14 or ceiling.waits_for(stored.work(n, context)) == "arithmetic")
        made.append(
            {
                "device": device.name, "precision": precision, "one_row_seconds": one, "five_rows": few / one,
                "arithmetic_from_rows": limit, "source": device.source, "date": device.date,
            }
        )  # fmt: skip
    return made
