"""The slack of a pass: how many rows it can take before they cost time. Speculation and batches spend the same one.

A batch of B texts that verifies K guesses for each is one pass over B (K + 1) rows. All share one reading of
the weights, behind which the arithmetic of the linear layers hides; each text adds keys and values of its
own, whose reading hides none of it, since attention runs before and after the linear layers.
"""

from __future__ import annotations

from collections.abc import Callable

from .roofline_model import Ceiling, Shape, Work

FREE = 0.05  # a pass that takes at most so much longer is as good as free
MOST = 1 << 14  # beyond, nobody looks


def batched(shape: Shape, batch: int, rows: int, context: int) -> Work:
    """A pass over `rows` new tokens of each of `batch` texts, which have `context` cached tokens each.

    Raises:
        ValueError: no texts, or a model of experts: which of them a batch meets is not counted here.
    """
    if batch < 1:
        raise ValueError(f"needs at least 1 text, got {batch}")
    if shape.experts:
        raise ValueError("counts batches of dense models only, and this one chooses among experts: use batch 1")
    one = shape.work(rows, context)
    return Work(
        bytes=shape.weight_bytes + batch * (one.bytes - shape.weight_bytes),
        flops=batch * one.flops,
        attention_bytes=batch * one.attention_bytes,
        attention_flops=batch * one.attention_flops,
    )


def held(shape: Shape, batch: int, context: int) -> int:
    """Bytes of all weights, and of the keys and values of `batch` texts with `context` tokens each.

    The least that decoding needs; activations and what a framework keeps for itself come on top.
    """
    table = shape.looked_up * shape.cache_bytes // shape.cache_width  # stored in the cache's precision
    return shape.weight_bytes + table + shape.expert_bytes + batch * context * shape.cache_bytes


def cost(ceiling: Ceiling, shape: Shape, batch: int, k: int, context: int) -> float:
    """A pass that verifies `k` guesses for each text, in decoding steps of the same batch."""
    step, verify = (ceiling.seconds(batched(shape, batch, rows, context)) for rows in (1, k + 1))
    return verify / step


def free_k(ceiling: Ceiling, shape: Shape, batch: int, context: int, within: float = FREE) -> int:
    """The largest K whose verification takes at most `within` longer than a decoding step; `MOST` at most."""
    return _last(lambda k: cost(ceiling, shape, batch, k, context) <= 1 + within)


def free_batch(ceiling: Ceiling, shape: Shape, k: int, context: int, within: float = FREE) -> int:
    """The largest batch for which verifying `k` guesses takes at most `within` longer than a step; `MOST` at most."""
    return _last(lambda batch: batch == 0 or cost(ceiling, shape, batch, k, context) <= 1 + within)


def _last(holds: Callable[[int], bool]) -> int:
    """The last of 0, 1, 2 ... MOST up to which a condition holds, once false always false."""
    low, high = 0, 1
    while high < MOST and holds(high):
        low, high = high, 2 * high
    high = min(high, MOST)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low
