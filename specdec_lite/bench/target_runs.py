"""The parts of `specdec targets`: each runs what another command runs and returns its figures.

A part knows no bound. It takes its models from the workbench and measures nothing that another
module measures already.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from ..draft import Drafter
from ..drafters.model import ModelDrafter
from ..drafters.prompt_lookup import PromptLookupDrafter
from ..loading.pair import Pair
from .bandwidth import streams
from .bottleneck import wanted
from .compare import BenchSettings, contest, prompts_for
from .compare import entry as contestant_entry
from .diagnosis import Diagnosis, diagnose
from .doctor import doctor_report
from .models_under_test import subjects
from .overhead import outside, tracing
from .passes import time_passes
from .roofline import entry as roofline_entry
from .roofline_model import shape_of
from .synthetic import LABEL, NOISE, SyntheticDrafter, noisy_draft
from .timing import Spread, idle, interleave
from .workbench import AGREEMENT, Workbench

K = 4  # of the round that is taken apart


@dataclass
class Found:
    """What a part measured."""

    figures: dict[str, Spread] = field(default_factory=dict)  # by the names that goals have
    raw: dict[str, Any] = field(default_factory=dict)


def roofline(bench: Workbench) -> Found:
    """Passes over one row and a few, of a random model that waits for memory."""
    asked, sizes = bench.settings, bench.settings.sizes
    bench.tell("passes of a model that waits for memory are timed")
    subject = subjects(None, asked.device, asked.dtype, asked.threads)[-1]
    subject.passes = time_passes(subject.module, sizes.rows, sizes.context, sizes.passes)
    return Found({name: Spread(**each["is"]) for name, each in wanted(subject).items()}, roofline_entry(subject))


def contests(bench: Workbench) -> Found:
    """Naive and speculative decoding against transformers' own, greedy and at temperature 1."""
    pair, sizes, found = bench.pair, bench.settings.sizes, Found(raw={"contests": []})
    settings = BenchSettings(ks=sizes.ks, prompts=sizes.prompts, max_new_tokens=sizes.new, repeats=sizes.repeats)
    prompts = prompts_for(pair, settings)
    for how, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        bench.tell(f"all ways of decoding take turns, {how}")
        made = contest(pair, settings, temperature, prompts, lambda done, of: None)
        heads = made.headlines()
        for other in ("over_naive", "over_assisted"):
            head = heads[f"speculative_{other}"]
            found.figures[f"{other}_{how}"] = Spread(head["median"], head["low"], head["high"])
        entries = [contestant_entry(made, each) for each in made.runners]
        found.raw["contests"].append({"temperature": temperature, "contestants": entries, "headlines": heads})
    return found


def examined(bench: Workbench, pair: Pair, drafter: Drafter) -> tuple[Found, Diagnosis]:
    """What the doctor finds: the error of its prediction, the clock over the prediction, what the parts leave."""
    settings = bench.settings.sizes.doctor
    prompts = prompts_for(pair, settings)
    found = diagnose(pair.target, drafter, prompts, settings, bench.tell)
    said, clock = found.forecast.outlooks[found.measured.k].speed_up.value, found.measured.speed_up
    figures = {
        "error": Spread(found.error, said / clock.high - 1, said / clock.low - 1),
        "clock": Spread(clock.median / said, clock.low / said, clock.high / said),
        "gap": Spread.of([found.measured.gap]),
    }
    return Found(figures, doctor_report(pair, drafter, found, prompts)), found


def own_draft(bench: Workbench) -> Found:
    """The pair as it is."""
    return examined(bench, bench.pair, ModelDrafter(bench.pair.draft))[0]


def lookup(bench: Workbench) -> Found:
    """The pair's target, with guesses from the text itself."""
    return examined(bench, bench.pair, PromptLookupDrafter())[0]


def bad_draft(bench: Workbench) -> Found:
    """The pair's target, with noise in the draft's weights."""
    target, bad = bench.pair.target, noisy_draft(bench.pair.draft)
    found, _ = examined(bench, Pair(target, bad, bench.pair.tokenizer), ModelDrafter(bad))
    found.raw["noise"] = NOISE
    return found


def wide(bench: Workbench) -> Found:
    """A random pair with synthetic acceptance, and its naive decoding as a share of copying."""
    pair = bench.wide_pair()
    found, diagnosis = examined(bench, pair, SyntheticDrafter(pair.draft, AGREEMENT))
    bench.tell("copying is timed")
    calls = {"copy": streams(bench.device)["copy"]}
    copying = median(interleave(calls, rounds=7, warm_up=1, wait=idle(bench.device)).rates("copy"))
    cached = len(found.raw["prompts"][0]) + diagnosis.settings.max_new_tokens // 2  # in the middle of a text
    needs, made = shape_of(pair.target).work(1, cached).bytes, diagnosis.measured
    share, rate = needs / made.step / copying, made.naive_rate
    found.figures["naive_share"] = Spread(share, share * rate.low / rate.median, share * rate.high / rate.median)
    found.raw |= {"label": LABEL, "sources": bench.wide_sources, "copy_bytes_per_second": copying, "step_bytes": needs}
    return found


def around(bench: Workbench) -> Found:
    """The time of a round outside both models' forwards, and what keeping a trace costs."""
    pair, sizes = bench.pair, bench.settings.sizes
    how: dict[str, Any] = dict(k=K, new=sizes.new, repeats=sizes.repeats)
    prompts = prompts_for(pair, sizes.doctor)
    bench.tell("the time outside the forwards is taken")
    share = outside(pair.target, pair.draft, prompts, **how)
    bench.tell("decoding with a trace and without take turns")
    cost = tracing(pair.target, pair.draft, prompts, **how)
    return Found({"outside": share, "tracing": cost}, how)


@dataclass(frozen=True)
class Part:
    """One part: what runs it, and the command that gives the same alone."""

    run: Callable[[Workbench], Found]
    words: tuple[str, ...]  # of that command, without models and machine
    given: bool = True  # whether it runs the pair that was given, or a random one


# In the order of what would be missed most.
PARTS = {
    "roofline": Part(roofline, ("roofline",), given=False),
    "bench": Part(contests, ("bench",)),
    "doctor": Part(own_draft, ("doctor",)),
    "wide": Part(wide, ("doctor", "--agreement", str(AGREEMENT)), given=False),
    "outside": Part(around, ("targets", "--only", "outside")),
    "lookup": Part(lookup, ("doctor", "--drafter", "lookup")),
    "bad-draft": Part(bad_draft, ("targets", "--only", "bad-draft")),
}


def command(bench: Workbench, name: str) -> str:
    """What gives a part alone. Folders go by their last name: a file that is kept tells nobody's paths."""
    part, asked = PARTS[name], bench.settings
    words = ["specdec", *part.words]
    pair = (asked.target, asked.draft) if part.given else bench.wide_sources if name == "wide" else (None, None)
    options = {"--target": pair[0], "--draft": pair[1]}
    if part.given:
        options |= {"--revision": asked.revision, "--draft-revision": asked.draft_revision}
    if name != "roofline" and asked.engine != "auto":
        options["--engine"] = asked.engine
    options |= {"--device": None if asked.device == "cpu" else asked.device, "--dtype": asked.dtype}
    options["--threads"] = asked.threads and str(asked.threads)
    for option, value in options.items():
        words += [option, bare(value)] if value else []
    return shlex.join(words)


def bare(word: str) -> str:
    """A path by its last name; anything else as it is."""
    return Path(word).name if os.path.isabs(word) or os.path.exists(word) else word
