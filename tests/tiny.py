"""Random models small enough that a test takes milliseconds, in float64 so that equal means equal."""

from __future__ import annotations

import copy
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import specdec_lite as sd
from specdec_lite.kv_cache import KVCache

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

VOCAB = 37
PROMPT = [5, 1, 7, 7, 2]


def llama(seed: int = 0, context: int = 160, vocab: int = VOCAB, layers: int = 2) -> LlamaForCausalLM:
    """A Llama with grouped-query heads and weights large enough that its distributions are peaked."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab, hidden_size=16, intermediate_size=24, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=context, initializer_range=0.4,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).double().eval()


def noisy(module: Any, noise: float, seed: int = 1) -> Any:
    """A copy whose weights are off by `noise` times their spread: 0 for an identical model."""
    generator = torch.Generator().manual_seed(seed)
    made = copy.deepcopy(module)
    with torch.no_grad():
        for weight in made.parameters():
            spread = weight.std(unbiased=False) if weight.ndim > 1 else 0.0
            weight += noise * spread * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return made


@cache
def pair(noise: float = 0.1, context: int = 160) -> tuple[sd.TransformersModel, sd.TransformersModel]:
    """Target and draft, where the draft is the target with noise. Shared by tests: nothing writes to models."""
    target = llama(context=context)
    return sd.TransformersModel(target), sd.TransformersModel(noisy(target, noise))


def table_pair(vocab: int = 4, context: int = 40, noise: float = 0.5) -> tuple[sd.TableModel, sd.TableModel]:
    """Table models: the draft's table is the target's with noise."""
    target, draft = sd.TableModel(vocab, context, seed=0), sd.TableModel(vocab, context, seed=1)
    draft.table = target.table + noise * draft.table
    return target, draft


class Counted:
    """A model that counts: the tokens a row of each forward, and whether only the last logits were wanted."""

    def __init__(self, model: Any) -> None:
        self.model, self.widths, self.last_only = model, [], []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def forward(self, tokens: Tensor, cache: KVCache, last_only: bool = False) -> Tensor:
        self.widths.append(tokens.shape[1])
        self.last_only.append(last_only)
        return self.model.forward(tokens, cache, last_only)


def given_cache(kwargs: dict[str, Any]) -> Any:
    """What a module's forward was given, by the name that this transformers has for it."""
    return kwargs.get("cache", kwargs.get("past_key_values"))


@torch.inference_mode()
def next_logits(model: Any, text: list[int]) -> Tensor:
    """Logits after a text, without a cache for a transformers model. -> [vocab]"""
    if isinstance(model, sd.TableModel):
        return model.table[torch.arange(len(text)), torch.tensor(text)].sum(0)
    ids = torch.tensor([text], device=model.device)
    return model.module(input_ids=ids, use_cache=False).logits[0, -1]


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """37 tokens: an end token, letters and marks, and a few of several letters, so that a string has many spellings."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    merges = [("a", "b"), ("c", "d"), ("ab", "cd"), ("e", "f"), ("h", "i"), ("x", "y"), ("\n", "\n")]
    pieces = ["<end>", *"abcdefghijklmnopqrstuvwxyz", " ", "\n", ".", *("".join(pair) for pair in merges)]
    assert len(pieces) == VOCAB
    made = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")


def ids(text: str) -> list[int]:
    return tokenizer().encode(text)
