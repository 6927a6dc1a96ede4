"""Ways to run one model: `eager` is transformers' own code, `lean` the same arithmetic in fewer calls.

A forward of an engine takes tokens and positions [batch, n], a mask for each kind of layer
[batch, 1, n, visible], the cache, and whether only the last logits are wanted
-> logits [batch, n or 1, vocab].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .eager import EagerEngine
from .lean import LeanEngine, fits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENGINES = ("auto", "eager", "lean")
Engine = EagerEngine | LeanEngine
LARGE = 2_000_000_000  # weights; a second, packed copy of more is not taken without being asked for


def build(module: PreTrainedModel, engine: str) -> Engine:
    """The engine of that name for this module. "auto" is lean on a CPU for a model that fits, else eager.

    Raises:
        ValueError: no such engine, or a model that lean cannot run.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if engine == "lean" and not fits(module):
        raise ValueError(
            "the lean engine runs Llama, Mistral, Qwen2 and Qwen3 models as transformers makes them, got a changed "
            f"or another {type(module).__name__}: engine='eager' runs it"
        )
    small = sum(weight.numel() for weight in module.parameters()) < LARGE
    lean = engine == "lean" or (engine == "auto" and module.device.type == "cpu" and small and fits(module))
    return LeanEngine(module) if lean else EagerEngine(module)
