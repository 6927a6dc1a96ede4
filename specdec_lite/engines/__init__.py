"""Ways to run one model: `eager` is transformers' own code, `lean` the same arithmetic in fewer calls,
`graph` either of them recorded and replayed.

A forward of an engine takes tokens and positions [batch, n], a mask for each kind of layer
[batch, 1, n, visible], the cache, and whether only the last logits are wanted
-> logits [batch, n or 1, vocab].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .cuda_graphs import GraphEngine
from .eager import EagerEngine
from .engine import Engine
from .lean import LeanEngine, fits
from .recording import recorder_for

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENGINES = ("auto", "eager", "lean", "graph")
LARGE = 2_000_000_000  # weights; a second copy of more is not taken without being asked for


def build(module: PreTrainedModel, engine: str) -> Engine:
    """The engine of that name for this module.

    On CUDA, attention goes by torch's own kernels from then on, in the whole process.

    "auto" is graph on a GPU of NVIDIA's, lean on a CPU for a model that fits, else eager. What graph
    records is lean where the model fits.

    Raises:
        ValueError: no such engine, a model that lean cannot run, or a device without graphs.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if engine == "lean" and not fits(module):
        raise ValueError(
            "the lean engine runs Llama, Mistral, Qwen2 and Qwen3 models as transformers makes them, got a changed "
            f"or another {type(module).__name__}: engine='eager' runs it"
        )
    device = module.device.type
    if device == "cuda":  # cuDNN's attention plans each shape anew, and a text brings many
        torch.backends.cuda.enable_cudnn_sdp(False)
    small = sum(weight.numel() for weight in module.parameters()) < LARGE
    lean = engine == "lean" or (engine != "eager" and (small or device != "cpu") and fits(module))
    graph = engine == "graph" or (engine == "auto" and device == "cuda")
    if graph:
        recorder_for(module.device)  # refuses before a packed copy is made
    made = LeanEngine(module, copy=small or device == "cpu") if lean else EagerEngine(module)
    return GraphEngine(made, type(module).__name__) if graph else made
