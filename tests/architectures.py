"""Tiny random models of many architectures, in float64: what the matrix of tests/test_architectures.py runs.

Weights are drawn wide, so that distributions are peaked and greedy texts do not fall into a loop at once.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from tiny import VOCAB

# tied models like to repeat their last token
UNTIED = dict(bos_token_id=None, eos_token_id=None, pad_token_id=None, tie_word_embeddings=False)
BASE = UNTIED | dict(
    vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=96, initializer_range=0.4,
)  # fmt: skip
GPT = UNTIED | dict(vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=4, n_positions=96, initializer_range=0.4)
MHA = BASE | dict(num_key_value_heads=4)
WINDOW = 5  # shorter than every text
MIXED = dict(sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"])
EXPERTS = dict(num_experts_per_tok=2, experts_implementation="eager")  # the default runs no float64

# class name without ForCausalLM -> its configuration
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Llama": BASE,
    "Qwen2": BASE,
    "Qwen3": BASE | dict(head_dim=6),
    "Mistral": BASE | dict(sliding_window=WINDOW),  # a window on every layer
    "Gemma": BASE | dict(head_dim=4),
    "Gemma2": BASE | dict(head_dim=4, query_pre_attn_scalar=4) | MIXED,  # soft-capped scores: eager attention
    "Gemma3": BASE | dict(head_dim=4, query_pre_attn_scalar=4) | MIXED,  # rotary angles of its own for each kind
    "Phi": MHA,
    "Phi3": BASE | dict(sliding_window=WINDOW),
    "GPT2": GPT,  # positions are learned
    "GPTNeoX": MHA,
    "GPTBigCode": GPT | dict(multi_query=True),  # one head of keys and values
    "GPTJ": GPT | dict(rotary_dim=4),
    "OPT": MHA | dict(ffn_dim=24, word_embed_proj_dim=16, init_std=0.4),
    "Olmo2": BASE,
    "Olmo3": BASE | MIXED,
    "Granite": BASE,
    "Falcon": MHA | dict(alibi=False),
    "Starcoder2": BASE | dict(sliding_window=WINDOW),
    "StableLm": BASE,
    "Cohere": BASE | dict(logit_scale=1.0),
    "Cohere2": BASE | dict(logit_scale=1.0) | MIXED,
    "Glm4": BASE | dict(head_dim=4),
    "SmolLM3": BASE | dict(no_rope_layers=[1, 0]),  # a layer without positions
    "Exaone4": BASE | MIXED,
    "DeepseekV3": MHA | EXPERTS | dict(
        moe_intermediate_size=8, n_routed_experts=4, n_group=1, topk_group=1, kv_lora_rank=8, q_lora_rank=8,
        qk_nope_head_dim=4, qk_rope_head_dim=4, v_head_dim=6, first_k_dense_replace=1,
    ),  # values narrower than keys
    "Mixtral": BASE | EXPERTS | dict(num_local_experts=4),
    "Qwen2Moe": BASE | EXPERTS | dict(num_experts=4, moe_intermediate_size=8, shared_expert_intermediate_size=8),
    "Olmoe": BASE | EXPERTS | dict(num_experts=4),
    "GraniteMoeHybrid": BASE | dict(  # of a recurrent family, with attention alone
        layer_types=["full_attention"] * 2, num_local_experts=0, shared_intermediate_size=24, mamba_n_heads=4,
        mamba_d_head=8, mamba_expand=2, position_embedding_type="rope",
    ),
    "GptOss": BASE | EXPERTS | dict(num_local_experts=4, head_dim=4) | MIXED,  # attention sinks
}  # fmt: skip
# weights other than those of seed 0, where those repeat themselves or come close to a tie
SEEDS = {"Qwen3": 7, "Gemma": 7, "Gemma2": 3, "Gemma3": 4, "GPTBigCode": 7, "GPTJ": 2, "Falcon": 3, "Glm4": 2,
         "SmolLM3": 1, "Olmoe": 5, "GptOss": 1}  # fmt: skip
# Whatever the model's dtype, these compute a part in float32: scores (eager attention), or which experts a token is
# given. How that rounds depends on how many tokens go together, and on the processor.
IN_FLOAT32 = {"Gemma2", "GptOss", "GPTJ", "DeepseekV3"}
WINDOWED = [name for name, config in ARCHITECTURES.items() if "sliding_window" in config]


@cache
def build(name: str) -> Any:
    """The model of that architecture. Shared by tests: nothing writes to models."""
    return make(name, ARCHITECTURES[name], SEEDS.get(name, 0))


def make(name: str, config: dict[str, Any], seed: int = 0) -> Any:
    import transformers

    kind = "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config"
    head = "LMHeadModel" if name == "GPT2" else "ForCausalLM"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return getattr(transformers, name + head)(getattr(transformers, kind)(**config)).double().eval()


def scaled(kind: str, longest: int = 128, name: str = "Llama") -> Any:
    """A model whose angles change with the text's length, beyond the boundary that its configuration names."""
    factors = dict(short_factor=[1.0, 1.5], long_factor=[4.0, 9.0], original_max_position_embeddings=128)
    rope = dict(rope_type=kind, factor=4.0, rope_theta=1e4) | (factors if kind == "longrope" else {})
    return make(name, ARCHITECTURES[name] | dict(max_position_embeddings=longest, rope_parameters=rope))
