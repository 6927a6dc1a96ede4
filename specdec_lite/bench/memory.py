"""What decoding holds in memory: weights, the cache, and what a round needs besides.

The cache is allocated once, and a round leaves nothing behind, so the peak of a run is weights plus
cache plus one forward. Counted at torch's own operations, so it is the same on every device.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..engines.quantised import quantised_layers
from ..loop import Run
from ..models import LanguageModel, TransformersModel


class Allocations(TorchDispatchMode):
    """Bytes of tensors made inside the block and still alive, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.peak = 0, 0
        self.known: dict[int, weakref.finalize] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        given = {each.untyped_storage()._cdata for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        for each in tree_leaves(made):
            if isinstance(each, Tensor) and not each.is_mkldnn:
                self._count(each.untyped_storage(), given)
        return made

    def _count(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in given or key in self.known:  # a view, or written in place
            return
        self.alive += size
        self.peak = max(self.peak, self.alive)
        self.known[key] = weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.alive -= size
        self.known.pop(key, None)


@dataclass(frozen=True)
class Memory:
    """Bytes."""

    weights: int  # of the target's and the draft's modules
    cache: int  # keys and values of both, for the whole run
    round: int  # the most that a round had alive besides

    def __str__(self) -> str:
        parts = f"weights {megabytes(self.weights)}, cache {megabytes(self.cache)}"
        return f"{parts}, at most {megabytes(self.round)} more during a round"


def measure(run: Run, rounds: int = 8) -> Memory:
    """Play up to `rounds` rounds of a run that was just started, and account for its memory."""
    sessions = [run.target, run.cache], [getattr(run.session, "model", None), getattr(run.session, "cache", None)]
    most = 0
    for _ in range(rounds):
        if not run.unfinished:
            break
        with Allocations() as seen:
            run.round()
        most = max(most, seen.peak)
    weights = sum(weight_bytes(model) for model, _ in sessions)
    return Memory(weights, sum(cache.nbytes for _, cache in sessions if cache is not None), most)


def weight_bytes(model: LanguageModel | None) -> int:
    """Of a transformers model's parameters, tied ones once. A lean engine's packed copy comes on top, up to as much."""
    if not isinstance(model, TransformersModel):
        return 0
    stored = [tensor for layer in quantised_layers(model.module) for tensor in layer.buffers()]
    return sum(weight.nbytes for weight in (*model.module.parameters(), *stored))


def megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
