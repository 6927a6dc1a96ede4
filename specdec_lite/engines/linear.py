"""Matrix products whose time stays flat from one row to a handful.

Reading the weights is what a pass over few rows waits for, so K + 1 rows should cost hardly more
than one. torch's default float32 product on a CPU does not keep to that: 5 rows can cost several
times one. Weights packed for kernels made for few rows do. `specdec roofline` measures it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from .packing import Product, packed


def product(layers: Sequence[nn.Linear], copy: bool = True) -> Product:
    """One function for the products of several layers with the same input, outputs one after another.

    The layers are left alone. With `copy` their weights are held a second time where that saves time: packed on a CPU
    in float32, else joined to one matrix if there are several.
    """
    if not copy:
        return lambda x: _side_by_side([linear(x, each.weight, each.bias) for each in layers])
    parts = [each.weight.detach() for each in layers]
    weight, bias = _joined(parts), _joined_bias(layers)  # [outputs, inputs], [outputs]
    packs = weight.device.type == "cpu" and weight.dtype == torch.float32
    return (packs and packed(weight, bias, parts)) or (lambda x: linear(x, weight, bias))


def _side_by_side(products: Sequence[Tensor]) -> Tensor:
    return products[0] if len(products) == 1 else torch.cat(list(products), -1)


def _joined(weights: Sequence[Tensor]) -> Tensor:
    return weights[0].detach() if len(weights) == 1 else torch.cat(list(weights)).detach()


def _joined_bias(layers: Sequence[nn.Linear]) -> Tensor | None:
    if all(each.bias is None for each in layers):
        return None
    return _joined([each.weight.new_zeros(len(each.weight)) if each.bias is None else each.bias for each in layers])
