"""The models whose passes `specdec roofline` times, and with how many threads."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from ..engines.quantised import quantise
from ..loading.checkpoints import choose_device, choose_dtype, load_module, locate
from ..loading.llamas import OWN, PUBLISHED, Llama
from ..loading.random_weights import bytes_of, free_bytes, random_llama
from ..pocket import TARGET
from .bandwidth import last_level_cache
from .passes import Passes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROOM = 0.8  # of the free memory of a GPU, for weights


@dataclass
class Subject:
    """One model, and how it is run."""

    name: str
    module: PreTrainedModel
    threads: int
    wide: bool = False
    passes: dict[str, Passes] = field(default_factory=dict)

    @property
    def best(self) -> Passes:
        """The engine whose pass over one row is fastest."""
        return min(self.passes.values(), key=lambda each: each.seconds(1).median)


def wide_shape(device: torch.device, dtype: torch.dtype | None) -> Llama:
    """A shape whose passes wait for memory there.

    On CUDA the largest published Llama that leaves a fifth of the free memory, if there is one. Elsewhere one of
    hidden size 1,024 whose weights no cache holds: six layers, or as many as that takes.
    """
    if device.type == "cuda":
        room = ROOM * free_bytes(device)
        fitting = [each for each in PUBLISHED.values() if bytes_of(each, device, dtype) <= room]
        if fitting:
            return max(fitting, key=lambda each: each.parameters)
    shape = OWN["Llama wide"]
    beyond = 4 * (last_level_cache(device) or 0)  # bytes
    return replace(shape, layers=min(24, max(shape.layers, -(-beyond // (4 * shape.layer_weights)))))


def wide_llama(device: torch.device, dtype: torch.dtype | None) -> PreTrainedModel:
    """A random Llama of that shape."""
    return random_llama(wide_shape(device, dtype), device, dtype)


def subjects(
    target: str | None,
    device: str = "cpu",
    dtype: str | None = None,
    threads: int | None = None,
    bits: int | None = None,
) -> list[Subject]:
    """The models to be timed: the one that is named, or else the pocket target and a random Llama that waits
    for memory.

    Args:
        target: hub id, local folder or `random:` and the name of a shape.
        device, dtype, bits: as for `load_pair`.
        threads: of the processor; default 1 for the pocket target, for others as many as torch takes.

    Raises:
        ValueError: a device, a dtype or a model that is not to be had.
    """
    if bits is not None and target is None:
        raise ValueError("bits are for a target that is named")
    numbers, where = choose_dtype(dtype or ("bfloat16" if bits else None), device), choose_device(device)
    every = threads or torch.get_num_threads()
    if target:
        module = load_module(locate(target, "target", None), "target", where, numbers, None)
        if bits is not None:
            quantise(module, bits)
        return [Subject(target, module, every)]
    shape = wide_shape(where, numbers)
    pocket = load_module(str(TARGET), "target", where, numbers, None)
    return [
        Subject("pocket target", pocket, threads or 1),  # a small model's threads wait for each other
        Subject(f"random {shape.name}", random_llama(shape, where, numbers), every, wide=True),
    ]
