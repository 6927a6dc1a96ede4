"""Ways to run one model: `eager` is transformers' own code, `lean` the same arithmetic in fewer calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .eager import EagerEngine
from .lean import LeanEngine, fits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENGINES = ("auto", "eager", "lean")
Engine = EagerEngine | LeanEngine


def build(module: PreTrainedModel, engine: str) -> Engine:
    """The engine of that name for this module. "auto" is lean on a CPU where the model fits, else eager.

    Raises:
        ValueError: no such engine, or a model that lean cannot run.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if engine == "lean" and not fits(module):
        raise ValueError(
            f"the lean engine runs plain Llama, Mistral, Qwen2 and Qwen3 models, got {type(module).__name__}"
        )
    lean = engine == "lean" or (engine == "auto" and module.device.type == "cpu" and fits(module))
    return LeanEngine(module) if lean else EagerEngine(module)
