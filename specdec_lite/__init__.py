"""Speculative decoding, small enough to read aloud.

import specdec_lite as sd

pair = sd.load_pair()
fast = sd.speculative(pair.target, sd.ModelDrafter(pair.draft), "def add(a, b):", k=4)
"""

from .acceptance import SampleAndMatch, TokenRejection
from .adaptive import AdaptiveDrafter, BestForPast
from .decoding import Decoded, autoregressive, speculative, stream, stream_text
from .distributions import Sampling
from .drafters import ModelDrafter, PromptLookupDrafter
from .hardware.machine import environment
from .loading import Pair, load_pair
from .models import TableModel, TransformersModel
from .stopping import Stop
from .theory.numerics import Difference, explain_difference
from .trace import Round, Trace

__version__ = "0.1.0"

__all__ = [
    "AdaptiveDrafter",
    "BestForPast",
    "Decoded",
    "Difference",
    "ModelDrafter",
    "Pair",
    "PromptLookupDrafter",
    "Round",
    "SampleAndMatch",
    "Sampling",
    "Stop",
    "TableModel",
    "TokenRejection",
    "Trace",
    "TransformersModel",
    "autoregressive",
    "environment",
    "explain_difference",
    "load_pair",
    "speculative",
    "stream",
    "stream_text",
]
