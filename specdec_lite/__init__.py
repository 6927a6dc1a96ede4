"""Speculative decoding, small enough to read aloud.

import specdec_lite as sd

pair = sd.load_pair()
fast = sd.speculative(pair.target, sd.ModelDrafter(pair.draft), "def add(a, b):", k=4)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .acceptance import BlockVerification, SampleAndMatch, TokenRejection, TypicalAcceptance
    from .bench.machine import environment
    from .decoding import Decoded, autoregressive, speculative, stream, stream_text
    from .drafters.adaptive import AdaptiveDrafter, BestForPast
    from .drafters.eagle import EagleDrafter
    from .drafters.early_exit import EarlyExitDrafter
    from .drafters.model import ModelDrafter
    from .drafters.prompt_lookup import PromptLookupDrafter
    from .drafters.tree import TreeDrafter
    from .loading.pair import Pair, load_model, load_pair
    from .models import TableModel, TransformersModel
    from .sampling.distributions import Sampling
    from .stopping import Stop
    from .theory.greedy_difference import Difference, explain_difference
    from .trace import Round, Trace

__version__ = "0.1.0"

MODULES = {  # where each public name is defined; its module, and torch, load when it is first used
    "acceptance": ("BlockVerification", "SampleAndMatch", "TokenRejection", "TypicalAcceptance"),
    "bench.machine": ("environment",),
    "decoding": ("Decoded", "autoregressive", "speculative", "stream", "stream_text"),
    "drafters.adaptive": ("AdaptiveDrafter", "BestForPast"),
    "drafters.eagle": ("EagleDrafter",),
    "drafters.early_exit": ("EarlyExitDrafter",),
    "drafters.model": ("ModelDrafter",),
    "drafters.prompt_lookup": ("PromptLookupDrafter",),
    "drafters.tree": ("TreeDrafter",),
    "loading.pair": ("Pair", "load_model", "load_pair"),
    "models": ("TableModel", "TransformersModel"),
    "sampling.distributions": ("Sampling",),
    "stopping": ("Stop",),
    "theory.greedy_difference": ("Difference", "explain_difference"),
    "trace": ("Round", "Trace"),
}
PUBLIC = {name: module for module, names in MODULES.items() for name in names}
__all__ = sorted(PUBLIC)


def __getattr__(name: str) -> Any:
    """A public name at its first use (PEP 562)."""
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f".{PUBLIC[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
