"""A head that reads the target: one decoder layer over its hidden states, as EAGLE-3 has it.

At a place of the text it sees three of the target's hidden states there (early, middle, late) and the embedding of
the token that follows, and it predicts the token after that one. For further tokens it goes on from its own state.
Li et al. 2025, arXiv:2503.01840. Files hold what vLLM and SGLang load as `LlamaForCausalLMEagle3`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

if TYPE_CHECKING:
    from transformers import LlamaConfig

ARCHITECTURE = "LlamaForCausalLMEagle3"
STATES = "eagle_aux_hidden_state_layer_ids"  # in the configuration: which hidden states of the target are read
FORMAT = {"format": "pt"}


class EagleHead(nn.Module):
    """The weights, under the names that production engines load.

    The target's embedding is not among them: a head is trained for one target, and uses it.

    Args:
        config: a Llama's of one layer; besides, `draft_vocab_size` tokens that the head can propose, `vocab_size` of
            the target, `target_hidden_size`, and `eagle_aux_hidden_state_layer_ids`.
    """

    d2t: Tensor
    t2d: Tensor

    def __init__(self, config: LlamaConfig) -> None:
        from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm, LlamaRotaryEmbedding

        super().__init__()
        self.config, self.states = config, tuple(getattr(config, STATES))
        width, epsilon = config.hidden_size, config.rms_norm_eps
        self.fc = nn.Linear(len(self.states) * config.target_hidden_size, width, bias=False)
        self.midlayer = LlamaDecoderLayer(config, 0)
        self.midlayer.hidden_norm = LlamaRMSNorm(width, epsilon)
        for name in ("q_proj", "k_proj", "v_proj"):  # embedding and state side by side
            narrow = getattr(self.midlayer.self_attn, name)
            setattr(self.midlayer.self_attn, name, nn.Linear(2 * width, narrow.out_features, bias=False))
        self.norm = LlamaRMSNorm(width, epsilon)
        self.lm_head = nn.Linear(width, config.draft_vocab_size, bias=False)
        self.rotary = LlamaRotaryEmbedding(config)
        self.register_buffer("d2t", torch.zeros(config.draft_vocab_size, dtype=torch.long))
        self.register_buffer("t2d", torch.zeros(config.vocab_size, dtype=torch.bool))
        self.set_tokens(torch.arange(config.draft_vocab_size))

    @property
    def token_ids(self) -> Tensor:
        """The target's ids of the tokens that the head can propose, ascending. [draft_vocab_size]"""
        return torch.arange(len(self.d2t), device=self.d2t.device) + self.d2t

    def set_tokens(self, token_ids: Tensor) -> None:
        """Choose the tokens that the head can propose, by the target's ids [draft_vocab_size]."""
        token_ids = token_ids.sort().values.to(self.d2t.device)
        self.d2t.copy_(token_ids - torch.arange(len(token_ids), device=token_ids.device))
        self.t2d.zero_()[token_ids] = True

    def unroll(self, given: Tensor, words: Tensor, steps: int) -> Iterator[Tensor]:
        """Its states, step after step, at all places of a text and without a cache: what `EagleDrafter` computes.

        Step s at place i has read the target's states up to i and the tokens up to i + 1 + s, the last s as drafts. It
        attends to the first steps of the places up to i, and to its own earlier ones. given [rows, n, states * width],
        words [rows, n, width], the embeddings of the text -> [rows, n, width] each
        """
        layer, attention, n = self.midlayer, self.midlayer.self_attn, given.shape[1]
        state = self.fc(given)
        cos, sin = self.rotary(state, position_ids=torch.arange(n + steps, device=given.device).unsqueeze(0))
        keys, values = [], []  # of each step [rows, heads, n, head_dim]
        hidden = torch.ones(n, n, dtype=torch.bool, device=given.device).triu(1)
        group = self.config.num_attention_heads // self.config.num_key_value_heads
        for step in range(steps):
            word = pad(words[:, 1 + step :], (0, 0, 0, min(n, 1 + step)))  # [rows, n, width], of the token after
            seen = torch.cat([layer.input_layernorm(word), layer.hidden_norm(state)], -1)
            q, k, v = (
                project(seen).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
                for project in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            turn = cos[:, step : step + n].unsqueeze(1), sin[:, step : step + n].unsqueeze(1)
            q, k = rotated(q, *turn), rotated(k, *turn)
            keys.append(k.repeat_interleave(group, 1))
            values.append(v.repeat_interleave(group, 1))
            if step == 0:
                made = scaled_dot_product_attention(q, keys[0], values[0], is_causal=True, scale=attention.scaling)
            else:
                scores = (q @ keys[0].mT).masked_fill(hidden, -torch.inf)  # [rows, heads, n, n]
                own = torch.stack([(q * key).sum(-1) for key in keys[1:]], -1)  # [rows, heads, n, step]
                weights = (torch.cat([scores, own], -1) * attention.scaling).softmax(-1).to(v.dtype)
                made = weights[..., :n] @ values[0]
                for i, value in enumerate(values[1:]):
                    made = made + weights[..., n + i : n + i + 1] * value
            state = state + attention.o_proj(made.transpose(1, 2).flatten(2))
            state = state + layer.mlp(layer.post_attention_layernorm(state))
            yield state

    def save(self, folder: str | Path, dtype: torch.dtype = torch.bfloat16) -> None:
        """Write config.json and model.safetensors."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        described = self.config.to_dict() | {"architectures": [ARCHITECTURE], "dtype": str(dtype).split(".")[1]}
        (folder / "config.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        weights = {
            name: (value.to(dtype) if value.is_floating_point() else value).contiguous()
            for name, value in self.state_dict().items()
        }
        save_file(weights, folder / "model.safetensors", FORMAT)

    @classmethod
    def load(
        cls, folder: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
    ) -> EagleHead:
        """Read what `save` or a trainer of EAGLE-3 heads wrote, in `dtype` (default: float32 on a CPU, else as stored).

        Raises:
            ValueError: no such head: what is missing.
        """
        from safetensors.torch import load_file

        folder = Path(folder)
        for name in ("config.json", "model.safetensors"):
            if not (folder / name).is_file():
                raise ValueError(f"the folder {folder} holds no head: {name} is missing")
        head = cls(described(json.loads((folder / "config.json").read_text(encoding="utf-8"))))
        weights = load_file(folder / "model.safetensors")
        missing = sorted(set(head.state_dict()) - set(weights))
        if missing:
            raise ValueError(f"the head in {folder} lacks {len(missing)} weights, for instance {missing[0]}")
        device = torch.device(device)
        dtype = dtype or (torch.float32 if device.type == "cpu" else weights["fc.weight"].dtype)
        own = head.state_dict()
        for name, value in own.items():
            if value.shape != weights[name].shape:
                found = list(weights[name].shape)
                raise ValueError(f"the head in {folder} is not as its config.json says: {name} is {found}")
        # not by head.to(dtype), which would round the rotary angles
        cast = {name: weights[name].to(dtype) if own[name].is_floating_point() else weights[name] for name in own}
        head.load_state_dict(cast, assign=True)
        return head.to(device).eval()


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions. x [rows, heads, n, head_dim]; cos and sin [1, 1, n, head_dim]"""
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat([-right, left], -1) * sin


def head_config(
    target: Any, draft_vocab_size: int, states: Sequence[int] | None = None, heads: int | None = None
) -> LlamaConfig:
    """Of a head for this target configuration.

    states: which hidden states it reads; default the second layer's input, the middle, and before the last three, as
    vLLM's. heads: of keys and values; default as many as of queries.
    """
    layers = target.num_hidden_layers
    return described(
        {
            "hidden_size": target.hidden_size,
            "target_hidden_size": target.hidden_size,
            "intermediate_size": target.intermediate_size,
            "num_attention_heads": target.num_attention_heads,
            "num_key_value_heads": heads or target.num_attention_heads,
            "head_dim": getattr(target, "head_dim", None) or target.hidden_size // target.num_attention_heads,
            "vocab_size": target.vocab_size,
            "draft_vocab_size": draft_vocab_size,
            "max_position_embeddings": target.max_position_embeddings,
            "rms_norm_eps": target.rms_norm_eps,
            "rope_parameters": target.rope_parameters,
            STATES: list(states or (min(2, layers - 1), layers // 2, max(layers - 3, 1))),
        }
    )


def described(values: Mapping[str, Any]) -> LlamaConfig:
    """A head's configuration from its file, with the defaults that engines know."""
    from transformers import LlamaConfig

    known = {**values, "num_hidden_layers": 1, "tie_word_embeddings": False}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        known.setdefault(name, None)
    known.setdefault("target_hidden_size", known["hidden_size"])
    known.setdefault("draft_vocab_size", known["vocab_size"])
    if STATES not in known:
        nested = known.get("eagle_config") or {}
        if STATES not in nested:
            raise ValueError(f"the head's config.json does not say which hidden states it reads ({STATES})")
        known[STATES] = nested[STATES]
    config = LlamaConfig(**{name: value for name, value in known.items() if name != "architectures"})
    config._attn_implementation = "sdpa"
    return config
