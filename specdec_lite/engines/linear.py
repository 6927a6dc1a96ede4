"""Matrix products on a CPU whose time stays flat from one row to a handful.

Reading the weights is what a pass over few rows waits for, so K + 1 rows should cost hardly more
than one. torch's default float32 product on a CPU does not keep to that: 5 rows can cost several
times one. Weights packed once, for kernels made for few rows, do. `specdec roofline` measures it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

Product = Callable[[Tensor], Tensor]  # [..., inputs] -> [..., outputs]
WORTH_PACKING = 1 << 19  # weights; below, oneDNN's fixed cost a call (tens of microseconds) is more than it saves


def product(layers: Sequence[nn.Linear]) -> Product:
    """One function for the products of several layers with the same input, outputs one after another.

    On a CPU in float32 the weights are packed, which copies them. On a GPU they become views of one matrix:
    they move, keep their values, and take no more memory. Everything else runs as it is.
    """
    weights, biases = [each.weight.detach() for each in layers], [each.bias for each in layers]
    if weights[0].device.type == "cpu" and weights[0].dtype == torch.float32:
        weight = torch.cat(weights)  # [outputs, inputs]
        bias = _joined(weights, biases)
        for pack in (half, prepacked):
            if (packed := pack(weight, bias)) is not None:
                return packed
    if weights[0].is_cuda and len(layers) > 1:
        weight, bias = side_by_side(layers), _joined(weights, biases)
        return lambda x: linear(x, weight, bias)
    if len(layers) == 1:
        return lambda x: linear(x, weights[0], biases[0])
    return lambda x: torch.cat([linear(x, w, b) for w, b in zip(weights, biases, strict=True)], -1)


@torch.no_grad()
def side_by_side(layers: Sequence[nn.Linear]) -> Tensor:
    """Make the layers' weights views of one matrix, their rows one after another. -> [outputs, inputs]"""
    weights = [each.weight for each in layers]
    first, outputs = weights[0], [len(each) for each in weights]
    ends = [first.storage_offset() + n * first.shape[1] for n in accumulate(outputs, initial=0)]
    together = all(
        each.is_contiguous()
        and each.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        and each.storage_offset() == at
        for each, at in zip(weights, ends, strict=False)
    )
    whole = first.as_strided((sum(outputs), first.shape[1]), first.stride()) if together else torch.cat(weights)
    for each, part in zip(weights, whole.split(outputs), strict=True):
        each.data = part
    return whole.detach()


def _joined(weights: list[Tensor], biases: list[Tensor | None]) -> Tensor | None:
    if all(bias is None for bias in biases):
        return None
    return torch.cat([w.new_zeros(len(w)) if b is None else b.detach() for w, b in zip(weights, biases, strict=True)])


def half(weight: Tensor, bias: Tensor | None) -> Product | None:
    """FBGEMM: weights held as float16, arithmetic in float32. Only for weights that float16 holds exactly.

    A checkpoint stored as float16 is such a one: half the bytes, and nothing is rounded.
    """
    if not torch.equal(weight.half().float(), weight):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces that these two may go; `prepacked` is next in line
            packed = torch.fbgemm_pack_gemm_matrix_fp16(weight)
            run = torch.fbgemm_linear_fp16_weight_fp32_activation
            run(weight[:1], packed, bias)
    except (AttributeError, RuntimeError):  # another processor, or another torch
        return None
    return lambda x: run(x, packed, bias)


def prepacked(weight: Tensor, bias: Tensor | None) -> Product | None:
    """oneDNN: float32 weights in the order in which its kernel reads them."""
    if weight.numel() < WORTH_PACKING:
        return None
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 8)
        run = torch.ops.mkldnn._linear_pointwise.default
        run(weight[:1], packed, bias, "none", [], "")
    except (AttributeError, RuntimeError, NotImplementedError):
        return None
    return lambda x: run(x, packed, bias, "none", [], "")
