"""The shapes of the two models: Llama, in transformers' own format."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM

CONTEXT = 1024


@dataclass(frozen=True)
class Shape:
    """Depth and width. A deep, narrow target and a draft of one layer: while a forward waits for
    dispatch its time goes with the number of layers, and hardly with their width."""

    layers: int
    width: int
    heads: int

    def build(self, vocab_size: int, seed: int) -> LlamaForCausalLM:
        """A fresh model. What writes to the residual stream starts at zero, so depth is harmless at first."""
        config = LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=self.width,
            intermediate_size=3 * self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = LlamaForCausalLM(config)
        with torch.no_grad():
            for layer in model.model.layers:
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
        return model


def new_target(vocab_size: int = 2048) -> LlamaForCausalLM:
    return Shape(layers=24, width=128, heads=4).build(vocab_size, seed=0)
