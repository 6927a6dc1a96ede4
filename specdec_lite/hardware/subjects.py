"""The models whose passes `specdec roofline` times, and with how many threads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from ..checkpoints import choose_device, choose_dtype, load_module, locate
from ..pocket import TARGET
from .passes import Passes
from .speed import last_level_cache

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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


def wide_llama(device: torch.device, dtype: torch.dtype | None) -> PreTrainedModel:
    """A random Llama of hidden size 1,024 whose weights no cache holds: six layers, or as many as that takes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    layer = 4 * (4 * 1024**2 + 3 * 1024 * 2816)  # bytes in float32
    layers = min(24, max(6, -(-4 * (last_level_cache(device) or 0) // layer)))
    config = LlamaConfig(
        vocab_size=2048, hidden_size=1024, intermediate_size=2816, num_hidden_layers=layers, num_attention_heads=16,
        num_key_value_heads=16, max_position_embeddings=4096, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = LlamaForCausalLM(config)
    return made.to(device, dtype or torch.float32).eval()


def subjects(
    target: str | None, device: str = "cpu", dtype: str | None = None, threads: int | None = None
) -> list[Subject]:
    """The models to be timed: the one that is named, or else the pocket target and a wide random Llama.

    Args:
        target: hub id or local folder.
        device, dtype: as for `load_pair`.
        threads: of the processor; default 1 for the pocket target, for others as many as torch takes.

    Raises:
        ValueError: a device, a dtype or a model that is not to be had.
    """
    numbers, where = choose_dtype(dtype, device), choose_device(device)
    every = threads or torch.get_num_threads()
    if target:
        return [Subject(target, load_module(locate(target, "target", None), "target", where, numbers, None), every)]
    pocket = load_module(str(TARGET), "target", where, numbers, None)
    return [
        Subject("pocket target", pocket, threads or 1),  # a small model's threads wait for each other
        Subject("wide random Llama", wide_llama(where, numbers), every, wide=True),
    ]
