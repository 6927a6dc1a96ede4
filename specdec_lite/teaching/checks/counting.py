"""The exercises of notebook 01, why decoding waits for memory.

What they call right is a few lines of arithmetic; the tests compare it with `bench.roofline_model`, which
counts real models.
"""

from __future__ import annotations

import math

from ._framework import Case, Check

READ = 7_504_924_672  # weights of Llama 8B that every pass reads: all but the embedding, which only is looked up
TOKEN = 131_072  # bytes that one token of it keeps in the cache, in all layers


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
    (READ, 16, 32, 1024, 8192, "Llama 8B"),
    (READ, 4, 32, 1024, 131_072, "Llama 8B in 4 bits, a long text"),
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
    (READ, 2 * READ, 1024 * TOKEN, 4, "Llama 8B, 1,024 tokens"),
)


def _intensity(weights: int, weight_bytes: int, text_bytes: int, k: int) -> float:
    return 2 * (k + 1) * weights / (weight_bytes + text_bytes)


verify_intensity = Check(
    "verify_intensity",
    ("weights", "weight_bytes", "text_bytes", "k"),
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


def _cost(weights: int, weight_bytes: int, text_bytes: int, batch: int, k: int, ridge: float) -> float:
    def needs(rows: int) -> float:  # in bytes: so many could be read in that time
        return max(weight_bytes, 2 * rows * weights / ridge) + batch * text_bytes

    return needs(batch * (k + 1)) / needs(batch)


def _one_maximum(w: int, wb: int, tb: int, batch: int, k: int, ridge: float) -> float:
    def needs(rows: int) -> float:
        return max(wb + batch * tb, 2 * rows * w / ridge)

    return needs(batch * (k + 1)) / needs(batch)


BATCHES = (
    (10, 20, 0, 1, 1, 4.0, "one text, nothing cached"),
    (10, 20, 0, 3, 1, 4.0, "three texts, nothing cached"),
    (10, 20, 2, 3, 1, 4.0, "three texts, the example worked by hand"),
    (10, 20, 40, 3, 1, 4.0, "long texts: caches larger than the weights"),
    (10, 20, 2, 8, 2, 4.0, "a batch whose decoding step waits for arithmetic already"),
    (READ, 2 * READ, 1024 * TOKEN, 256, 4, 295.3, "Llama 8B on H100, 256 texts of 1,024 tokens"),
    (READ, 2 * READ, 8192 * TOKEN, 256, 4, 295.3, "the same with 8,192 tokens each"),
)

batch_cost = Check(
    "batch_cost",
    ("weights", "weight_bytes", "text_bytes", "batch", "k", "ridge"),
    [Case(tuple(given), _cost(*given), about) for *given, about in BATCHES],
    {
        "One maximum over the whole pass: but attention is another kernel, and while it reads the caches the "
        "linear layers wait.": _one_maximum,
        "The caches are forgotten: attention reads every text's in every pass.": (
            lambda w, wb, tb, b, k, r: _cost(w, wb, 0, b, k, r)
        ),
        "You counted one cache for all texts: each has its own.": (
            lambda w, wb, tb, b, k, r: _cost(w, wb, tb / b, b, k, r)
        ),
        "Each guess does not read the caches again: all rows of a text share one reading.": (
            lambda w, wb, tb, b, k, r: (max(wb, 2 * b * (k + 1) * w / r) + b * (k + 1) * tb) / (_step(w, wb, tb, b, r))
        ),
        "K guesses need K + 1 rows.": (
            lambda w, wb, tb, b, k, r: (max(wb, 2 * b * k * w / r) + b * tb) / _step(w, wb, tb, b, r)
        ),
        "These are K + 1 rows in all. Each text of the batch has as many.": (
            lambda w, wb, tb, b, k, r: (max(wb, 2 * (k + 1) * w / r) + b * tb) / (max(wb, 2 * w / r) + b * tb)
        ),
        "A weight costs each row two operations.": lambda w, wb, tb, b, k, r: _cost(w, wb, tb, b, k, 2 * r),
        "That is the verifying pass. How many decoding steps of the same batch is it?": (
            lambda w, wb, tb, b, k, r: _cost(w, wb, tb, b, k, r) * _step(w, wb, tb, b, r)
        ),
    },
    praise="A batch ends the gift; long texts only dilute its price, since every step reads their caches anyway.",
    hint="Time in bytes: the linear layers take the larger of weight_bytes and operations / ridge; add all caches.",
)


def _step(weights: int, weight_bytes: int, text_bytes: int, batch: int, ridge: float) -> float:
    return max(weight_bytes, 2 * batch * weights / ridge) + batch * text_bytes
