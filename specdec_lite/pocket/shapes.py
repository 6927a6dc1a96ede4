"""The two models' shapes, Llama in transformers' own format."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCAB_SIZE = 2048
CONTEXT = 1024


def new_model(layers: int, width: int, heads: int, vocab_size: int = VOCAB_SIZE, seed: int = 0) -> LlamaForCausalLM:
    """A fresh model. What writes to the residual stream starts at zero, so depth is harmless at first."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return model


def new_target(vocab_size: int = VOCAB_SIZE) -> LlamaForCausalLM:
    """Deep and narrow: while a forward waits for dispatch, its time goes with the number of layers."""
    return new_model(layers=24, width=128, heads=4, vocab_size=vocab_size)


def new_draft(vocab_size: int = VOCAB_SIZE) -> LlamaForCausalLM:
    """One layer: a draft pass costs about a layer where the target's costs 24."""
    return new_model(layers=1, width=192, heads=6, vocab_size=vocab_size, seed=1)
