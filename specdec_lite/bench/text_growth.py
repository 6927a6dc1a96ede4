"""What the next token costs as the text grows: with a cache one token is fed, without one the whole text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch

from ..models import LanguageModel
from .timing import TimedCall, idle, interleave


@dataclass(frozen=True)
class Growth:
    """Median seconds of one pass, for each length of the text in tokens."""

    cached: dict[int, float]  # over the last token, the others' keys and values being there
    whole: dict[int, float]  # over all tokens: a step without a cache, and also a prefill


@torch.inference_mode()
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
        steps[f"cached {n}"] = _last_token(model, n)
        steps[f"whole {n}"] = _every_token(model, n)
    timings = interleave(steps, rounds=rounds, warm_up=1, wait=idle(model.device))
    cached, whole = (
        {n: median(each[0] for each in timings.seconds[f"{kind} {n}"]) for n in lengths} for kind in ("cached", "whole")
    )
    return Growth(cached, whole)


def _text(model: LanguageModel, n: int) -> torch.Tensor:
    return torch.ones(1, n, dtype=torch.long, device=model.device)


def _last_token(model: LanguageModel, n: int) -> TimedCall:
    cache, text = model.new_cache(1, n), _text(model, n)
    model.forward(text[:, 1:], cache, last_only=True)

    @torch.inference_mode()
    def step(case: int, turn: int) -> int:
        model.forward(text[:, :1], cache, last_only=True)
        cache.rewind([1])
        return 1

    return step


def _every_token(model: LanguageModel, n: int) -> TimedCall:
    cache, text = model.new_cache(1, n), _text(model, n)

    @torch.inference_mode()
    def step(case: int, turn: int) -> int:
        model.forward(text, cache, last_only=True)
        cache.rewind([n])
        return n

    return step
