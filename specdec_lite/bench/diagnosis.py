"""Whether speculation pays for a pair, with which k, and where the time goes.

First the target writes alone. Along its text the drafter is asked for its distributions, and at a few
places of it every piece of a round is timed; that is all a prediction uses. Only then is one k, the
recommended one, decoded for real and set beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from ..draft import Drafter
from ..models import LanguageModel
from ..sampling.distributions import Sampling
from ..theory.cost_model import Costs, Forecast, Interval, forecast, halved, halved_misses, mean_of_stretches
from .agreement import Agreement, agreement
from .phase_costs import PhaseCosts, time_opening, time_phases
from .phases import TimedRun, timed_run
from .timing import idle
from .trial import Measured, measure

PLACES = (0.25, 0.5, 0.75)  # of a text, where pieces are timed
LEVERS = ("draft", "verify", "other", "acceptance")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class DoctorSettings:
    """What the command line says.

    Raises:
        ValueError: texts too short for k_max.
    """

    k_max: int = 8
    max_new_tokens: int = 64
    temperature: float = 0.0
    prompts: int = 4
    repeats: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k_max >= self.max_new_tokens:
            raise ValueError(
                f"K = {self.k_max} is never drafted in texts of {self.max_new_tokens} new tokens: "
                f"give more new tokens, or a k_max of at most {self.max_new_tokens - 1}"
            )

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature)


@dataclass(frozen=True)
class Diagnosis:
    """Everything the doctor found."""

    settings: DoctorSettings
    agreements: list[Agreement]  # by text
    overlap: Interval | None  # mean over all places; None where nothing was ever proposed
    forecast: Forecast
    levers: dict[str, float]  # the best speed-up predicted if half of each went away
    measured: Measured

    @property
    def error(self) -> float:
        """Of the speed-up predicted for the k that was measured, as a share of the measured one."""
        return self.forecast.outlooks[self.measured.k].speed_up.value / self.measured.speed_up.median - 1

    @property
    def binds(self) -> str:
        """What it would help most to halve."""
        return max(self.levers, key=self.levers.get)


def diagnose(
    target: LanguageModel,
    drafter: Drafter,
    prompts: Sequence[list[int]],
    settings: DoctorSettings,
    progress: Progress = lambda what: None,
) -> Diagnosis:
    """Examine a pair on prompts given as token ids.

    Errors as for `speculative`.
    """
    ks = range(1, settings.k_max + 1)
    progress("the target writes alone")
    alone = [naive_run(target, prompt, settings, i) for i, prompt in enumerate(prompts)]
    progress("the drafter is compared with it, place by place")
    agreements = [
        agreement(target, drafter, run.texts[0], run.starts[0], settings.sampling, settings.k_max, settings.seed)
        for run in alone
    ]
    progress("the pieces of a round are timed")
    costs = time_costs(target, drafter, [run.texts[0] for run in alone], [len(each) for each in prompts], ks, settings)
    chances = [each.chances for each in agreements]
    predicted = forecast(chances, costs, ks)
    levers = {what: forecast(chances, [halved(c, what) for c in costs], ks, 0) for what in LEVERS[:-1]}
    levers["acceptance"] = forecast([halved_misses(each) for each in chances], costs, ks, 0)
    gains = {what: each.best.speed_up.value for what, each in levers.items()}
    progress(f"K = {predicted.best.k} is decoded for real, in turn with naive decoding")
    measured = measure(
        target, drafter, prompts, predicted.best.k, new=settings.max_new_tokens, sampling=settings.sampling,
        repeats=settings.repeats, seed=settings.seed,
    )  # fmt: skip
    return Diagnosis(
        settings, agreements, mean_of_stretches([each.overlap for each in agreements]), predicted, gains, measured
    )


def naive_run(target: LanguageModel, prompt: list[int], settings: DoctorSettings, seed: int) -> TimedRun:
    return timed_run(
        target, None, [prompt], k=0, max_new_tokens=settings.max_new_tokens, sampling=settings.sampling,
        seed=settings.seed + seed, wait=idle(target.device),
    )  # fmt: skip


def time_costs(
    target: LanguageModel,
    drafter: Drafter,
    texts: Sequence[list[int]],
    prompts: Sequence[int],
    ks: Sequence[int],
    settings: DoctorSettings,
) -> list[Costs]:
    """The pieces and a naive run on each text in turn, `repeats` times over. `prompts`: lengths."""
    costs = []
    for turn in range(settings.repeats + 1):
        for text, begin in zip(texts, prompts, strict=True):
            alone = naive_run(target, text[:begin], settings, 0)
            cuts = [max(2, *ks, int(settings.max_new_tokens * (1 - place))) for place in PLACES]
            timed = [time_phases(target, drafter, [text], cut, ks, sampling=settings.sampling) for cut in cuts]
            opening = time_opening(target, drafter, [text[:begin]], settings.max_new_tokens, max(ks))
            if turn > 0:  # the first warms up
                costs.append(as_costs(alone, timed, opening))
    return costs


def as_costs(alone: TimedRun, timed: Sequence[PhaseCosts], draft_opening: float) -> Costs:
    """One moment: a naive run, and the pieces at several places, whose middle counts."""
    naive = alone.per_step()
    drafted = {
        k: {part: median(each.by_drafted[k][part] for each in timed) for part in parts}
        for k, parts in timed[0].by_drafted.items()
    }
    naive["rest"] += naive.pop("draft")  # a naive step has a moment between its marks, and no draft
    catch_up = max(0.0, median(each.catch_up for each in timed))
    return Costs(naive, drafted, catch_up, alone.opening, draft_opening)


NO_GAIN = 1.0  # times naive decoding


def verdict(found: Diagnosis) -> str:
    """Whether to speculate, and with which K."""
    best, made = found.forecast.best, found.measured.speed_up
    said = best.speed_up
    span = f"{said.low:.2f} to {said.high:.2f}"
    if min(said.value, made.median) < NO_GAIN:
        return (
            f"Do not speculate: the best K tried, {best.k}, makes decoding {made.median:.2f} times as fast as naive "
            f"({said.value:.2f} predicted, {span})."
        )
    if said.low < NO_GAIN:
        return (
            f"It may not pay: K = {best.k} is {made.median:.2f} times as fast as naive, but the prediction of "
            f"{said.value:.2f} leaves {span} open. Try more prompts, like those you have."
        )
    which = f"between {found.forecast.best_low} and {found.forecast.best_high} with 95 % confidence"
    if found.forecast.best_low == found.forecast.best_high:
        which = "with 95 % confidence"
    return (
        f"Speculate with K = {best.k} ({which}): {made.median:.2f} times as fast as naive, {said.value:.2f} predicted."
    )


def remedy(found: Diagnosis) -> str:
    """What would help most, and how much."""
    best, lever = found.forecast.best, found.binds
    gain = f"{found.levers[lever]:.2f} times naive"
    if best.k == found.settings.k_max and found.levers[lever] >= NO_GAIN and lever != "verify":
        more = f" K = {best.k} is the largest that was tried: look further with --k-max."
    else:
        more = ""
    if lever == "draft":
        text = (
            f"The draft's time binds: a draft that takes half of it, and agrees as well, would give {gain}. "
            "A small model pays by the layer, a large one by the weight."
        )
    elif lever == "acceptance":
        text = (
            f"Acceptance binds: a draft that errs half as often would give {gain}. "
            "Train it on the target's own text, or decode at a lower temperature."
        )
    elif lever == "verify":
        steps = best.round["verify"] / sum(found.forecast.naive.values())
        text = (
            f"Verification binds: verifying up to {best.k + 1} tokens costs {steps:.2f} naive steps; at half of what "
            f"that is above one it would give {gain}. Products whose time is flat in a few rows, or a smaller batch, "
            "do that."
        )
    else:
        text = f"Neither model binds but what is around them: half of the sampling and book-keeping would give {gain}."
    return text + more
