"""The exercises of notebook 02: what they call right is what the library does, and mistakes are named.

`test_checks` runs what holds for every exercise, with the wrong answers below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from specdec_lite.kv_cache import KVCache
from specdec_lite.sampling.distributions import Sampling, probabilities
from specdec_lite.teaching import check
from specdec_lite.teaching.checks.naive import DRAWS, FITS, LOGITS, TEXTS
from specdec_lite.teaching.toys import Reader


def plain_softmax(logits: Sequence[float], temperature: float, times: bool = False) -> list[float]:
    if temperature == 0:
        return [float(i == logits.index(max(logits))) for i in range(len(logits))]
    weights = [math.exp(each * temperature if times else each / temperature) for each in logits]
    return [each / sum(weights) for each in weights]


def spread_over_ties(logits: list[float], temperature: float) -> list[float]:
    """Safe, but at temperature 0 as at 1."""
    top = max(logits)
    weights = [math.exp((each - top) / (temperature or 1)) for each in logits]
    return [each / sum(weights) for each in weights]


def walk(probs: list[float], uniform: float, at: bool = False, last: bool = True) -> int | None:
    reached = 0.0
    for token, p in enumerate(probs):
        reached += p
        if uniform <= reached if at else uniform < reached:
            return token
    return len(probs) - 1 if last else None


def loop(
    model: Reader, prompt: list[int], new: int, *, again: bool = False, one: bool = False, short: bool = False,
    prompt_too: bool = False, after: bool = False, fresh: bool = False,
) -> Any:  # fmt: skip
    """Right with the defaults; each switch is something that students do."""
    text, feed = list(prompt), list(prompt)
    if one:  # prefill token by token
        for token in prompt[:-1]:
            model.read([token])
        feed = prompt[-1:]
    if short:
        feed = prompt[-1:]
    for _ in range(new):
        if fresh:
            model.rewind(model.held)
        text.append(int(model.read(feed)[-1].argmax()))
        feed = list(text) if again or fresh else text[-1:]
    if after:
        model.read(feed)
    return text if prompt_too else text[len(prompt) :]


def unstretched(probs: list[float], u: float) -> int:
    """Never a token of probability 0, but the bar's end is taken to be 1."""
    possible = [x for x, p in enumerate(probs) if p > 0]
    return next((x for x in possible if u < sum(probs[: x + 1])), possible[-1])


WRONG: dict[str, list[tuple[Callable[..., Any], str]]] = {
    "softmax": [
        (plain_softmax, "raised OverflowError"),
        (lambda logits, t: plain_softmax([each - max(logits) for each in logits], t, times=True), "Upside down"),
        (spread_over_ties, "temperature 0: all of it on the largest logit"),
        (lambda logits, t: spread_over_ties(logits, 1) if t else plain_softmax(logits, 0), "makes no difference here"),
        (lambda logits, t: [math.exp((each - max(logits)) / (t or 1)) for each in logits], "expected [0.5, 0.5]"),
        (lambda logits, t: max(logits), "gave a float, expected a list of 2 numbers"),
        (lambda logits, t: [each / t for each in logits], "expected [0.5, 0.5]"),
    ],
    "draw": [
        (lambda probs, u: walk(probs, u, at=True), "The comparison takes"),
        (walk, "gave 3, a token of probability 0, expected 2"),
        (lambda probs, u: walk(probs, u, last=False), "gave None"),
        (unstretched, "multiply it by the sum"),
        (lambda probs, u: probs.index(max(probs)), "likeliest token, whatever the number says"),
        (lambda probs, u: next(x for x, p in enumerate(probs) if u < p), "raised StopIteration"),
        (lambda probs, u: walk(sorted(probs, reverse=True), u), "expected 1"),
        (lambda probs, u: probs[walk(probs, u)], "gave 0.5, expected 0"),
    ],
    "token_forwards": [
        (lambda m, n: [sum(range(m, m + n)), m + n], "the last one never"),
        (lambda m, n: [sum(range(m, m + n)), n], "The prompt has to be fed"),
        (lambda m, n: [n, n], "These are forwards"),
        (lambda m, n: [m + n - 1, sum(range(m, m + n))], "the other way round"),
        (lambda m, n: [(m + n) ** 2, m + n - 1], "expected [1, 1]"),
        (lambda m, n: m + n - 1, "gave a int, expected a list of 2 numbers"),
    ],
    "texts_that_fit": [
        (lambda m, w, la, h, d, b, n: max(0, (m - w) // (la * h * d * b * n)), "there are values"),
        (lambda m, w, la, h, d, b, n: max(0, (m - w) // (2 * h * d * b * n)), "Every layer"),
        (lambda m, w, la, h, d, b, n: max(0, (m - w) // (2 * la * h * d * n)), "How many bytes"),
        (lambda m, w, la, h, d, b, n: m // (2 * la * h * d * b * n), "same memory"),
        (lambda m, w, la, h, d, b, n: (m - w) // (2 * la * h * d * b * n), "the answer is 0"),
        (lambda m, w, la, h, d, b, n: max(0, (m - w) / (2 * la * h * d * b * n)), "round down"),
        (lambda m, w, la, h, d, b, n: 2 * la * h * d * b * n, "expected 3"),
    ],
    "greedy_with_cache": [
        (lambda model, prompt, new: loop(model, prompt, new, again=True), "fed again although"),
        (lambda model, prompt, new: loop(model, prompt, new, fresh=True), "as slow as without a cache"),
        (lambda model, prompt, new: loop(model, prompt, new, short=True), "earlier tokens were never fed"),
        (lambda model, prompt, new: loop(model, prompt, new, prompt_too=True), "return the new tokens alone"),
        (lambda model, prompt, new: loop(model, prompt, new, one=True), "forwards, and 4 will do"),
        (lambda model, prompt, new: loop(model, prompt, new, after=True), "wrote the right tokens in 2 forwards"),
        (lambda model, prompt, new: loop(model, prompt, new)[0], "expected a list of 1 new tokens"),
    ],
}


def test_every_exercise_of_the_notebook_has_wrong_answers() -> None:
    assert set(WRONG) == {"softmax", "draw", "token_forwards", "texts_that_fit", "greedy_with_cache"}


@pytest.mark.parametrize(("logits", "temperature", "about"), LOGITS)
def test_softmax_is_right_where_nothing_overflows(logits: list[float], temperature: float, about: str) -> None:
    wanted = probabilities(torch.tensor(logits, dtype=torch.float64), Sampling(temperature)).tolist()
    try:
        assert plain_softmax(logits, temperature) == pytest.approx(wanted)
    except OverflowError:
        assert "overflow" in about


def test_the_right_token_is_never_one_of_probability_zero() -> None:
    for case, (probs, uniform, _) in zip(check.draw.cases, DRAWS, strict=True):
        right = [token for token in range(len(probs)) if case.expected(token) == ""]
        assert len(right) == 1 and probs[right[0]] > 0
        assert 0 <= uniform < 1


def test_tokens_fed_are_counted_by_loops_that_feed_them() -> None:
    from specdec_lite.models import TableModel

    for (prompt, new, _), case in zip(TEXTS, check.token_forwards.cases, strict=True):
        if prompt + new > 80:
            continue
        readers = [Reader(TableModel(3, 100), 100) for _ in range(2)]
        loop(readers[0], [0] * prompt, new, fresh=True)
        loop(readers[1], [0] * prompt, new)
        assert [sum(each.reads) for each in readers] == case.expected


def test_texts_that_fit_fit_and_one_more_does_not() -> None:
    for (memory, weights, layers, kv_heads, head_dim, size, tokens, _), case in zip(
        FITS, check.texts_that_fit.cases, strict=True
    ):
        one = torch.empty(1, kv_heads, 1, head_dim, dtype={1: torch.int8, 2: torch.bfloat16}[size], device="meta")
        cache = KVCache(1, tokens, "meta")
        cache.reserve(1)
        for layer in range(layers):
            cache.update(one, one, layer)
        room = memory - weights
        assert case.expected * cache.nbytes <= max(0, room) and (case.expected + 1) * cache.nbytes > room
