"""Models of a known shape with random weights, to time shapes without having their weights: `random:Llama 8B`.

How long a pass takes depends on the shape and not on what the weights say. What such a model writes
means nothing, and no draft agrees with it: acceptance has to be set (see `synthetic`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .llamas import OWN, PUBLISHED, Llama

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

PREFIX = "random:"
CONTEXT = 8192  # tokens: the longest text
SPREAD = 0.02  # of the weights: the logits of eighty layers stay finite in half precision


def is_random(source: Any) -> bool:
    """Whether this source asks for random weights."""
    return isinstance(source, str) and source.lower().startswith(PREFIX)


def made_up(module: Any) -> bool:
    """Whether this model was made here, with random weights."""
    return is_random(module.config.name_or_path)


def shape_named(source: str) -> Llama:
    """The shape behind `random:NAME`, whatever its case, with dashes for spaces or not.

    Raises:
        ValueError: no such shape; names those there are.
    """
    known = PUBLISHED | OWN
    wanted = source[len(PREFIX) :].strip()
    found = {name.lower(): each for name, each in known.items()}.get(wanted.lower().replace("-", " "))
    if found is None:
        raise ValueError(f"there is no shape {wanted!r}: after {PREFIX} give one of {', '.join(known)}")
    return found


def config_of(shape: Llama) -> Any:
    """What transformers builds the shape from. No token begins or ends a text."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=shape.vocab, hidden_size=shape.hidden, intermediate_size=shape.inner, head_dim=shape.head_dim,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=shape.tied, max_position_embeddings=CONTEXT, initializer_range=SPREAD,
        bos_token_id=None, eos_token_id=None, pad_token_id=None, name_or_path=PREFIX + shape.name,
    )  # fmt: skip


def random_llama(
    shape: Llama, device: torch.device, dtype: torch.dtype | None = None, seed: int = 0
) -> LlamaForCausalLM:
    """A Llama of this shape in evaluation mode, made where it is to stay and in the numbers that it is to have.

    Args:
        dtype: default float32 on a CPU, else bfloat16, in which such models are published.
        seed: of the weights. The generators of torch are left as they were.

    Raises:
        ValueError: it needs more memory than is free.
    """
    from transformers import AutoModelForCausalLM

    dtype = dtype or default_dtype(device)
    check_memory([shape], device, dtype)
    seeded = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=seeded), device:
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config_of(shape), dtype=dtype).eval()


def default_dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def bytes_of(shape: Llama, device: torch.device, dtype: torch.dtype | None = None) -> int:
    """Bytes of the weights."""
    return shape.parameters * (dtype or default_dtype(device)).itemsize


def check_memory(shapes: Iterable[Llama], device: torch.device, dtype: torch.dtype | None = None) -> None:
    """Refuse models that together need more than is free, before any of them is made.

    Raises:
        ValueError: says how much they need and how much there is.
    """
    shapes = list(shapes)
    needed = sum(bytes_of(each, device, dtype) for each in shapes)
    free = free_bytes(device) if shapes else None
    if free is not None and needed > free:
        names = " and ".join(each.name for each in shapes)
        numbers = str(dtype or default_dtype(device)).removeprefix("torch.")
        raise ValueError(
            f"random weights for {names} in {numbers} take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free on "
            f"{device}: give a smaller shape, or a dtype with fewer bytes"
        )


def free_bytes(device: torch.device) -> int | None:
    """Memory that a model may still take; None where it is unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "meta":
        return None
    try:
        available = Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]
        return int(available) * 1024
    except (OSError, IndexError, ValueError):
        pass
    try:  # a Mac says how much it has, not how much is free
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
