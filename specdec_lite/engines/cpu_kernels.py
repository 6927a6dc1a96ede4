"""Weights in the order in which a processor's kernels for few rows read them.

Three ways, tried in this order: float16 where it loses nothing, a kernel for each number of rows, and
blocks. All of them are torch's own operations on a CPU; where one is missing the next is taken.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from .quantised import QuantisedLinear

Product = Callable[[Tensor], Tensor]  # [..., inputs] -> [..., outputs]
WORTH_PACKING = 1 << 19  # weights; below, oneDNN's fixed cost a call (tens of microseconds) is more than it saves
WORTH_PACKING_HALF = 1 << 16  # in bfloat16, which is reordered in every call where it is not packed
FEW = 5  # rows: a round of K = 4
LANES = 8  # numbers of float32 that a register of AVX2 holds
MANY = 32  # rows; beyond, arithmetic decides and no order of the weights helps


def packed(weight: Tensor, bias: Tensor | None, parts: Sequence[Tensor] | None = None) -> Product | None:
    """The product with a packed copy of these weights, on a CPU; None where no way is there or helps.

    Args:
        weight: [outputs, inputs].
        bias: [outputs], or None.
        parts: matrices that are there anyway and of which `weight` was joined, so that it need not be kept.
    """
    ways: Sequence[Callable[..., Product | None]] = (half, partial(by_rows, parts=parts), blocks)
    if weight.dtype != torch.float32:
        ways = (blocks,)
    return next((made for way in ways if (made := way(weight, bias)) is not None), None)


def half(weight: Tensor, bias: Tensor | None) -> Product | None:
    """FBGEMM: weights held as float16, arithmetic in float32. Only for weights that float16 holds exactly.

    A checkpoint stored as float16 is such a one: half the bytes, and nothing is rounded.
    """
    if not torch.equal(weight.half().float(), weight):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces that these two may go; oneDNN is next in line
            packed = torch.fbgemm_pack_gemm_matrix_fp16(weight)
            run = torch.fbgemm_linear_fp16_weight_fp32_activation
            run(weight[:1], packed, bias)
    except (AttributeError, RuntimeError):  # another processor, or another torch
        return None
    return lambda x: run(x, packed, bias)


def by_rows(weight: Tensor, bias: Tensor | None, parts: Sequence[Tensor] | None = None) -> Product | None:
    """oneDNN on a processor with AVX2 and nothing wider, where this was measured to beat `blocks`."""
    if weight.numel() < WORTH_PACKING or torch.backends.cpu.get_cpu_capability() != "AVX2":
        return None
    try:
        made = ByRows(parts or [weight], bias)
        made(weight[:1]), made(weight[:FEW])
    except (AttributeError, RuntimeError, NotImplementedError):
        return None
    return made


class ByRows:
    """A kernel for each number of rows.

    One row reads the weights as they lie. A few are pixels of a 1 x 1 convolution, whose kernel reads a
    copy of the weights in narrow strips, each from its beginning to its end, as memory is read fastest.
    Some more change places with the weights: each weight meets all rows of a register at once.

    Args:
        weights: each [outputs, inputs], contiguous, one product after another; held, not copied.
        bias: [all outputs], or None.
    """

    def __init__(self, weights: Sequence[Tensor], bias: Tensor | None) -> None:
        self.weights, self.bias = [each.detach() for each in weights], bias
        self.pack()

    def pack(self) -> None:
        """Make the strips. oneDNN chooses their width by the threads that there are."""
        self.threads = torch.get_num_threads()
        weight = torch.cat(self.weights) if len(self.weights) > 1 else self.weights[0]
        kernel, pixels = weight[:, :, None, None], [1, weight.shape[1], 1, FEW]
        self.strips = torch.ops.mkldnn._reorder_convolution_weight(kernel, [0, 0], [1, 1], [1, 1], 1, pixels)

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.numel() // x.shape[-1]
        if rows == 1 or rows > MANY:
            return self._with_bias([_linear(x, each, None) for each in self.weights])
        flat = x.reshape(rows, -1)  # [rows, inputs]
        made = self.few(flat) if rows <= FEW else self.some(flat)  # [rows, outputs]
        return made.view(*x.shape[:-1], -1)

    def few(self, x: Tensor) -> Tensor:
        """Padded to as many as the strips are for: for any other number oneDNN would reorder them each time."""
        if self.threads != torch.get_num_threads():
            self.pack()
        rows = len(x)
        pixels = x if rows == FEW else pad(x, (0, 0, 0, FEW - rows))
        image = pixels[None, None].permute(0, 3, 1, 2)  # [1, inputs, 1, FEW], a pixel's numbers side by side
        made = torch.ops.mkldnn._convolution_pointwise.default(
            image, self.strips, self.bias, [0, 0], [1, 1], [1, 1], 1, "none", [], ""
        )  # [1, outputs, 1, FEW]
        return made.permute(0, 2, 3, 1)[0, 0, :rows]

    def some(self, x: Tensor) -> Tensor:
        rows = len(x)
        x = pad(x, (0, 0, 0, -rows % LANES))  # whole registers
        return self._with_bias([_linear(each, x, None).t()[:rows] for each in self.weights])

    def _with_bias(self, products: list[Tensor]) -> Tensor:
        """The parts' products side by side, each [..., outputs]. -> [..., all outputs], contiguous"""
        made = products[0].contiguous() if len(products) == 1 else torch.cat(products, -1)
        return made if self.bias is None else made + self.bias


def blocks(weight: Tensor, bias: Tensor | None) -> Product | None:
    """oneDNN: weights in blocks, in the order in which one kernel reads them for any number of rows.

    Also bfloat16, where the processor multiplies it: unpacked it is reordered in every call, which takes longer than
    the half of the bytes saves.
    """
    if weight.numel() < (WORTH_PACKING if weight.dtype == torch.float32 else WORTH_PACKING_HALF):
        return None
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 8)
        _linear(weight[:1], packed, bias)
    except (AttributeError, RuntimeError, NotImplementedError):
        return None
    return lambda x: _linear(x, packed, bias)


def _linear(x: Tensor, weight: Any, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")


def product(layers: Sequence[nn.Linear | QuantisedLinear], copy: bool = True) -> Product:
    """One function for the products of several layers with the same input, outputs one after another.

    The layers are left alone. With `copy` their weights are held a second time where that saves time: packed on a CPU
    in float32 and bfloat16, else joined to one matrix if there are several.
    """
    plain = [each for each in layers if isinstance(each, nn.Linear)]
    if len(plain) < len(layers):
        return lambda x: _side_by_side([each(x) for each in layers])
    if not copy:
        return lambda x: _side_by_side([linear(x, each.weight, each.bias) for each in plain])
    parts = [each.weight.detach() for each in plain]
    weight, bias = _joined(parts), _joined_bias(plain)  # [outputs, inputs], [outputs]
    packs = weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.bfloat16)
    return (packs and packed(weight, bias, parts)) or (lambda x: linear(x, weight, bias))


def _side_by_side(products: Sequence[Tensor]) -> Tensor:
    return products[0] if len(products) == 1 else torch.cat(list(products), -1)


def _joined(weights: Sequence[Tensor]) -> Tensor:
    return weights[0].detach() if len(weights) == 1 else torch.cat(list(weights)).detach()


def _joined_bias(layers: Sequence[nn.Linear]) -> Tensor | None:
    if all(each.bias is None for each in layers):
        return None
    return _joined([each.weight.new_zeros(len(each.weight)) if each.bias is None else each.bias for each in layers])
