"""Linear layers whose weights are held in 8 or 4 bits, multiplied on a CPU by torch's own kernels.

A model that is quantised so is the target: speculation is exact for it, and says nothing about the original. One row
and several are the same arithmetic, so verification reads what naive decoding reads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

GROUP = 32  # weights that share a scale and an offset in 4 bits, as in the files of llama.cpp
BITS = (8, 4)
LEVELS = 15  # steps between the smallest and the largest weight of a group


class QuantisedLinear(nn.Module):
    """A linear layer with integers for weights.

    8 bits: weight = code * scale, a scale for each output. 4 bits: weight = (code - 8) * scale + offset, for each
    output and group of 32 inputs. Rounded to nearest.

    Args:
        layer: whose weights [outputs, inputs] are taken, in the dtype that it multiplies in.
        bits: 8 or 4.

    Raises:
        ValueError: other bits, a device that is no CPU, or inputs that groups do not divide.
    """

    codes: Tensor
    scales: Tensor

    def __init__(self, layer: nn.Linear, bits: int) -> None:
        super().__init__()
        if bits not in BITS:
            raise ValueError(f"bits must be 8 or 4, got {bits!r}")
        if layer.weight.device.type != "cpu":
            raise ValueError(f"weights in {bits} bits are for a CPU, and these are on {layer.weight.device}")
        if bits == 4 and layer.in_features % GROUP:
            raise ValueError(f"weights in 4 bits need a multiple of {GROUP} inputs, got {layer.in_features}")
        self.in_features, self.out_features, self.bits = layer.in_features, layer.out_features, bits
        self.bias = layer.bias
        weight = layer.weight.detach()
        made = in_8_bits if bits == 8 else in_4_bits
        codes, scales = made(weight.float(), weight.dtype)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)
        self.train(layer.training)

    @property
    def weight(self) -> Tensor:
        """What the integers stand for, in the dtype of the scales. [outputs, inputs]"""
        if self.bits == 8:
            return self.codes.to(self.scales.dtype) * self.scales.unsqueeze(1)
        ones = torch.eye(self.in_features, dtype=self.scales.dtype)
        return torch._weight_int4pack_mm_for_cpu(ones, self.codes, GROUP, self.scales).t()

    @property
    def count(self) -> int:
        """How many weights it stands for."""
        return self.in_features * self.out_features

    def forward(self, x: Tensor) -> Tensor:
        """x [..., inputs] -> [..., outputs]"""
        rows = x.reshape(-1, self.in_features)
        if self.bits == 8:
            made = torch._weight_int8pack_mm(rows, self.codes, self.scales)
        else:
            made = torch._weight_int4pack_mm_for_cpu(rows, self.codes, GROUP, self.scales)
        made = made.view(*x.shape[:-1], self.out_features)
        return made if self.bias is None else made + self.bias


def in_8_bits(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """weight [outputs, inputs] -> codes of the same shape, scales [outputs]"""
    scales = (weight.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float16).tiny).to(dtype)
    return (weight / scales.float().unsqueeze(1)).round().clamp(-127, 127).to(torch.int8), scales


def in_4_bits(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """weight [outputs, inputs] -> codes as the kernel holds them, scales and offsets [groups, outputs, 2]"""
    groups = weight.unflatten(1, (-1, GROUP))  # [outputs, groups, GROUP]
    low, high = groups.amin(-1), groups.amax(-1)  # [outputs, groups]
    scale = ((high - low) / LEVELS).clamp_min(torch.finfo(torch.float16).tiny).to(dtype)
    offset = (low + 8 * scale.float()).to(dtype)
    codes = ((groups - offset.float().unsqueeze(-1)) / scale.float().unsqueeze(-1)).round() + 8
    codes = codes.clamp(0, LEVELS).flatten(1).to(torch.int32)  # [outputs, inputs]
    packed = torch._convert_weight_to_int4pack_for_cpu(codes, 2)
    return packed, torch.stack([scale, offset], -1).transpose(0, 1).contiguous()


def quantised_layers(module: nn.Module) -> list[QuantisedLinear]:
    """Those of a model; their weights are none of its parameters."""
    return [part for part in module.modules() if isinstance(part, QuantisedLinear)]


def quantise(module: nn.Module, bits: int) -> None:
    """Hold the weights of a model's linear layers in `bits`, in place; those of the output in 8 at least.

    Embeddings stay, also where the output shares theirs: only rows of them are read.

    Raises:
        ValueError: as `QuantisedLinear`.
    """
    output = module.get_output_embeddings()  # type: ignore[operator]
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear:
                setattr(parent, name, QuantisedLinear(layer, max(bits, 8) if layer is output else bits))
