"""The exercises of notebook 01: what they call right is what the library counts, and mistakes are named.

`test_checks` runs what holds for every exercise, with the wrong answers below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from specdec_lite.bench.data_sheets import DEVICES, LLAMAS
from specdec_lite.bench.headroom import cost
from specdec_lite.bench.roofline_model import Ceiling
from specdec_lite.teaching import check

NAMES = ("layer_weights", "step_bytes", "verify_intensity", "ridge_point", "free_rows", "batch_cost")


def right(h: int, kv: int, inner: int) -> int:
    return 2 * h * h + 2 * h * kv + 3 * h * inner


def priced(w: int, wb: int, tb: int, batch: int, k: int, ridge: float) -> float:
    """By the clock of a machine that reads one byte a second."""
    step, verify = (max(wb, 2 * batch * rows * w / ridge) + batch * tb for rows in (1, k + 1))
    return verify / step


WRONG: dict[str, list[tuple[Callable[..., Any], str]]] = {
    "layer_weights": [
        (lambda h, kv, inner: h * h + 2 * h * kv + 3 * h * inner, "an output matrix"),
        (lambda h, kv, inner: 2 * h * h + 2 * h * kv + 2 * h * inner, "three matrices: gate, up and down"),
        (lambda h, kv, inner: 4 * h * h + 3 * h * inner, "narrower than queries"),
        (lambda h, kv, inner: 2 * right(h, kv, inner), "These are operations"),
        (lambda h, kv, inner: [h * h, h * kv, h * inner], "expected a number"),
    ],
    "step_bytes": [
        (lambda w, bits, layers, kv, c: w * bits + layers * 2 * kv * c * 2, "Eight of them make a byte"),
        (lambda w, bits, layers, kv, c: w * bits / 8, "The cache is forgotten"),
        (lambda w, bits, layers, kv, c: w * bits / 8 + layers * kv * c * 2, "there are keys and values"),
        (lambda w, bits, layers, kv, c: (w + layers * 2 * kv * c) * bits / 8, "its own precision"),
        (lambda w, bits, layers, kv, c: w * bits / 8 + 4 * kv * c, "Every layer keeps"),
    ],
    "verify_intensity": [
        (lambda w, wb, cb, k: 2 * k * w / (wb + cb), "K + 1 rows"),
        (lambda w, wb, cb, k: (k + 1) * w / (wb + cb), "a multiplication and an addition"),
        (lambda w, wb, cb, k: 2 * w / (wb + cb), "the weights are read once"),
        (lambda w, wb, cb, k: 2 * (k + 1) * w / wb, "The cache is read too"),
    ],
    "ridge_point": [
        (lambda t, g: t / g, "A factor of a thousand"),
        (lambda t, g: g / (1000 * t), "Upside down"),
        (lambda t, g: 2 * t * 1e12 / (g * 1e9), "count a multiplication and an addition as two"),
    ],
    "free_rows": [
        (lambda ridge, bits: int(ridge), "16 bits only"),
        (lambda ridge, bits: int(ridge * bits / 8), "two operations with each weight"),
        (lambda ridge, bits: round(ridge * bits / 16 + 0.5), "the last row must still fit"),
        (lambda ridge, bits: ridge * bits / 16, "A whole number of rows"),
    ],
    "batch_cost": [
        (
            lambda w, wb, tb, b, k, r: max(wb + b * tb, 2 * b * (k + 1) * w / r) / max(wb + b * tb, 2 * b * w / r),
            "One maximum over the whole pass",
        ),
        (lambda w, wb, tb, b, k, r: priced(w, wb, 0, b, k, r), "The caches are forgotten"),
        (lambda w, wb, tb, b, k, r: priced(w, wb, tb / b, b, k, r), "each has its own"),
        (lambda w, wb, tb, b, k, r: priced(w, wb, tb, b, k - 1, r), "K + 1 rows"),
        (lambda w, wb, tb, b, k, r: priced(w, wb, tb, b, k, 2 * r), "two operations"),
        (lambda w, wb, tb, b, k, r: max(wb, 2 * b * (k + 1) * w / r) + b * tb, "How many decoding steps"),
    ],
}


@pytest.mark.parametrize("name", NAMES)
def test_three_mistakes_or_more_are_tried(name: str) -> None:
    assert len(WRONG[name]) >= 3


@pytest.mark.parametrize(("name", "wrong", "told"), [(n, *each) for n, all_ in WRONG.items() for each in all_])
def test_a_wrong_answer_is_named(name: str, wrong: Callable[..., Any], told: str) -> None:
    verdict = getattr(check, name).judge(wrong)
    assert not verdict.passed
    assert told in verdict.text
    assert verdict.text.count("\n") <= 1


# What the library counts


def test_the_formulas_are_what_the_library_counts() -> None:
    llama = LLAMAS["Llama 8B"]
    shape = llama.shape()
    assert check.layer_weights.cases[-1].expected == llama.layer_weights
    weights, bits, layers, kv_width, context = check.step_bytes.cases[-2].arguments
    step = shape.work(1, context)
    expected = check.step_bytes.cases[-2].expected
    assert (layers, kv_width) == (llama.layers, llama.kv_heads * llama.head_dim)
    assert weights == shape.weights  # the embedding is looked up, not read
    assert expected == pytest.approx(step.bytes, rel=1e-4)  # which counts the new token's own keys and values too
    h100 = DEVICES["H100 SXM"]
    assert check.ridge_point.cases[-1].expected == pytest.approx(h100.ridge("bfloat16"))


def test_a_batch_costs_what_the_library_predicts() -> None:
    """Attention's own operations, and what new tokens write, are left out in the exercise."""
    shape, h100 = LLAMAS["Llama 8B"].shape(), Ceiling(3350e9, 989.4e12)
    for case in check.batch_cost.cases[-2:]:
        weights, size, text, batch, k, _ = case.arguments
        assert (weights, size) == (shape.weights, shape.weight_bytes)
        assert case.expected == pytest.approx(cost(h100, shape, batch, k, text // shape.cache_bytes), rel=0.01)
