"""Matrix products whose time stays flat from one row to a handful.

Reading the weights is what a pass over few rows waits for, so K + 1 rows should cost hardly more
than one. torch's default float32 product on a CPU does not keep to that: 5 rows can cost several
times one. Weights packed for kernels made for few rows do. `specdec roofline` measures it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from .packing import Product, packed


def product(layers: Sequence[nn.Linear]) -> Product:
    """One function for the products of several layers with the same input, outputs one after another.

    Their weights become views of one matrix: they move, keep their values, and take no more memory. On a CPU
    in float32 a packed copy is made besides, where it helps.
    """
    weight, bias = side_by_side(layers), _joined(layers)
    packs = weight.device.type == "cpu" and weight.dtype == torch.float32
    return (packs and packed(weight, bias)) or (lambda x: linear(x, weight, bias))


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
    with torch.inference_mode(first.is_inference()), torch.no_grad():  # they stay what they were
        whole = first.as_strided((sum(outputs), first.shape[1]), first.stride()) if together else torch.cat(weights)
        for each, part in zip(weights, whole.split(outputs), strict=True):
            each.data = part
        return whole.detach()


def _joined(layers: Sequence[nn.Linear]) -> Tensor | None:
    if all(each.bias is None for each in layers):
        return None
    pieces = [each.weight.new_zeros(len(each.weight)) if each.bias is None else each.bias for each in layers]
    return torch.cat(pieces).detach()
