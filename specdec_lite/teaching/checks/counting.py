"""The exercises of notebook 01, why decoding waits for memory.

What they call right is a few lines of arithmetic; the tests compare it with `hardware.roofline`, which
counts real models.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ._framework import Case, Check


def _layer(hidden: int, kv_width: int, inner: int) -> int:
    return 2 * hidden * hidden + 2 * hidden * kv_width + 3 * hidden * inner


SIZES = (
    (2, 2, 4, "as many key heads as query heads"),
    (4, 2, 8, "two query heads share a key head"),
    (4, 1, 6, ""),
    (1024, 1024, 2816, "the wide Llama of this notebook"),
    (4096, 1024, 14336, "Llama 8B"),
)

layer_weights = Check(
    "layer_weights",
    ("hidden", "kv_width", "inner"),
    [Case((h, kv, inner), _layer(h, kv, inner), about) for h, kv, inner, about in SIZES],
    {
        "One matrix is missing: what attention has mixed goes through an output matrix, as wide as the queries'.": (
            lambda h, kv, inner: _layer(h, kv, inner) - h * h
        ),
        "A Llama's feed-forward part has three matrices: gate, up and down. You counted two.": (
            lambda h, kv, inner: _layer(h, kv, inner) - h * inner
        ),
        "Keys and values may be narrower than queries, where several query heads share one key head.": (
            lambda h, kv, inner: 4 * h * h + 3 * h * inner
        ),
        "Only keys or only values: both have a matrix.": lambda h, kv, inner: _layer(h, kv, inner) - h * kv,
        "These are operations for one row, two for each weight. How many weights are there?": (
            lambda h, kv, inner: 2 * _layer(h, kv, inner)
        ),
    },
    praise="Times the layers, plus the table of the vocabulary, that is nearly the whole model.",
    hint="Seven matrices: queries, keys, values, attention output, gate, up, down; each has outputs x inputs weights.",
)


def _step(weights: int, bits: int, layers: int, kv_width: int, context: int) -> float:
    return weights * bits / 8 + layers * 2 * kv_width * context * 2


STEPS = (
    (8, 8, 1, 1, 0, "nothing is cached"),
    (8, 16, 1, 1, 0, "nothing is cached"),
    (8, 16, 1, 1, 3, "three tokens are cached"),
    (8, 4, 2, 3, 5, "short weights, but the cache keeps 2 bytes a number"),
    (8_030_000_000, 16, 32, 1024, 8192, "Llama 8B"),
    (8_030_000_000, 4, 32, 1024, 131_072, "Llama 8B in 4 bits, a long text"),
)

step_bytes = Check(
    "step_bytes",
    ("weights", "bits", "layers", "kv_width", "context"),
    [Case(tuple(given), _step(*given), about) for *given, about in STEPS],
    {
        "These are bits. Eight of them make a byte.": (
            lambda w, bits, layers, kv, c: w * bits + layers * 2 * kv * c * 2
        ),
        "The cache is forgotten: a step reads the keys and values of every token before it.": (
            lambda w, bits, layers, kv, c: w * bits / 8
        ),
        "Half of the cache is missing: there are keys and values, and each number has 2 bytes.": (
            lambda w, bits, layers, kv, c: w * bits / 8 + layers * kv * c * 2
        ),
        "Every layer keeps keys and values of its own.": lambda w, bits, layers, kv, c: w * bits / 8 + 2 * kv * c * 2,
        "The cache has its own precision: 2 bytes a number, however short the weights are.": (
            lambda w, bits, layers, kv, c: (w + layers * 2 * kv * c) * bits / 8
        ),
    },
    praise="Divide by the bandwidth, and you have the shortest time that a token can take.",
    hint="Two terms: the weights, and keys and values of the context in all layers.",
)

PASSES = (
    (10, 20, 0, 0, "a decoding step, nothing cached"),
    (10, 20, 0, 1, "one guess"),
    (10, 20, 5, 4, "four guesses and a cache"),
    (10, 5, 3, 4, "4-bit weights"),
    (7_500_000_000, 15_000_000_000, 134_000_000, 4, "Llama 8B, 1,024 tokens"),
)


def _intensity(weights: int, weight_bytes: int, cache_bytes: int, k: int) -> float:
    return 2 * (k + 1) * weights / (weight_bytes + cache_bytes)


verify_intensity = Check(
    "verify_intensity",
    ("weights", "weight_bytes", "cache_bytes", "k"),
    [Case((w, wb, cb, k), _intensity(w, wb, cb, k), about) for w, wb, cb, k, about in PASSES],
    {
        "K guesses need K + 1 rows: one before the first guess, one after each.": (
            lambda w, wb, cb, k: 2 * k * w / (wb + cb)
        ),
        "A weight costs each row two operations, a multiplication and an addition.": (
            lambda w, wb, cb, k: (k + 1) * w / (wb + cb)
        ),
        "Then nothing would be gained: the weights are read once, however many rows use them.": (
            lambda w, wb, cb, k: 2 * (k + 1) * w / ((k + 1) * (wb + cb))
        ),
        "The cache is read too.": lambda w, wb, cb, k: 2 * (k + 1) * w / wb,
        "Upside down: operations for each byte, not bytes for each operation.": (
            lambda w, wb, cb, k: (wb + cb) / (2 * (k + 1) * w)
        ),
    },
    praise="Nearly K + 1 times a decoding step's, for nearly the same bytes: that is what speculation spends.",
    hint="Operations of all rows, divided by bytes that are read once.",
)

MACHINES = (
    (0.43, 100, "a laptop"),
    (8.1, 320, "T4, float32"),
    (312, 2039, "A100, bfloat16"),
    (989.4, 3350, "H100, bfloat16"),
)

ridge_point = Check(
    "ridge_point",
    ("tflops", "gb_s"),
    [Case((t, g), 1000 * t / g, about) for t, g, about in MACHINES],
    {
        "A factor of a thousand: tera is 10^12, giga 10^9.": lambda t, g: t / g,
        "Upside down: how many operations fit into the time of one byte?": lambda t, g: g / (1000 * t),
        "Upside down, and tera is 10^12 where giga is 10^9.": lambda t, g: g / t,
        "Data sheets already count a multiplication and an addition as two operations.": lambda t, g: 2000 * t / g,
    },
    praise="Left of it a pass waits for memory, right of it for arithmetic.",
    hint="Operations a second divided by bytes a second.",
)

ROWS = (
    (4.5, 16, ""),
    (4.5, 8, "each weight is half as many bytes"),
    (4.6, 32, ""),
    (25.3, 16, "T4, float32's ridge"),
    (295.3, 16, "H100"),
    (295.3, 4, "H100, 4-bit weights"),
)

free_rows = Check(
    "free_rows",
    ("ridge", "bits"),
    [Case((ridge, bits), math.floor(ridge * bits / 16), about) for ridge, bits, about in ROWS],
    {
        "That is right for 16 bits only: shorter weights arrive sooner and leave less time to compute.": (
            lambda ridge, bits: math.floor(ridge)
        ),
        "Each row does two operations with each weight.": lambda ridge, bits: math.floor(ridge * bits / 8),
        "Eight bits make a byte.": lambda ridge, bits: math.floor(ridge * bits / 2),
        "Rounded up: the last row must still fit.": lambda ridge, bits: math.ceil(ridge * bits / 16),
        "A whole number of rows, please: the largest that still fits.": lambda ridge, bits: ridge * bits / 16,
        "The other way round: longer weights take longer to read, so more rows are free.": (
            lambda ridge, bits: math.floor(ridge * 16 / bits)
        ),
    },
    praise="That budget is shared by all that makes rows: guesses, texts of a batch, prefill.",
    hint="n rows do 2 n operations with each weight. Its bytes give time for how many?",
)


def _limit(weights: int, weight_bytes: int, cache_bytes: int, k: int, ridge: float) -> float:
    room = 2 * (k + 1) * weights - ridge * cache_bytes
    return math.floor(ridge * weight_bytes / room) + 1 if room > 0 else math.inf


TEXTS = (
    (10, 20, 0, 1, 3.5, "one guess, nothing cached"),
    (10, 20, 0, 2, 3.5, "two guesses"),
    (10, 20, 2, 1, 3.5, "a cache for each text"),
    (10, 20, 2, 1, 50.0, "a high ridge"),
    (7_500_000_000, 15_000_000_000, 134_000_000, 4, 295.3, "Llama 8B on H100, 1,024 tokens"),
    (7_500_000_000, 15_000_000_000, 1_074_000_000, 4, 295.3, "the same, 8,192 tokens"),
)


def _never(answer: Callable[..., float]) -> Callable[..., float]:
    """Right about texts without end, wrong elsewhere."""
    return lambda *given: math.inf if _limit(*given) == math.inf else answer(*given)


def _plain(w: int, wb: int, cb: int, k: int, ridge: float) -> int:
    return math.floor(ridge * wb / (2 * (k + 1) * w - ridge * cb)) + 1


def _half(w: int, wb: int, cb: int, k: int, ridge: float) -> float:
    room = (k + 1) * w - ridge * cb
    return math.floor(ridge * wb / room) + 1 if room > 0 else math.inf


batch_limit = Check(
    "batch_limit",
    ("weights", "weight_bytes", "cache_bytes", "k", "ridge"),
    [Case(tuple(given), _limit(*given), about) for *given, about in TEXTS],
    {
        "The cache is forgotten: every text brings its own, and reads it in every pass.": (
            lambda w, wb, cb, k, ridge: math.floor(ridge * wb / (2 * (k + 1) * w)) + 1
        ),
        "You counted one cache for all texts: each has its own.": (
            lambda w, wb, cb, k, ridge: math.floor(ridge * (wb + cb) / (2 * (k + 1) * w)) + 1
        ),
        "Where a text's cache takes longer than its arithmetic, no batch is too large: answer math.inf.": _plain,
        "K guesses need K + 1 rows.": _never(lambda w, wb, cb, k, r: math.floor(r * wb / (2 * k * w - r * cb)) + 1),
        "That batch is still free. The next one is the first that is not.": _never(lambda *given: _plain(*given) - 1),
        "A weight costs each row two operations.": _half,
    },
    praise="With long texts the limit disappears: then caches are what a pass waits for.",
    hint="Write both times for B texts. Which B makes arithmetic's the longer one? Can no B do that?",
)
