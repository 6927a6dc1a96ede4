"""What the doctor says: one sentence on whether to speculate, one on what stands in the way."""

from __future__ import annotations

from .diagnosis import Diagnosis

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
            f"Verification binds: judging up to {best.k + 1} tokens costs {steps:.2f} naive steps; at half of what "
            f"that is above one it would give {gain}. Products whose time is flat in a few rows, or a smaller batch, "
            "do that."
        )
    else:
        text = f"Neither model binds but what is around them: half of the sampling and book-keeping would give {gain}."
    return text + more
