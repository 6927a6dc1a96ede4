"""A decoder of the Llama family, run without the layers of Python around transformers' modules.

The same weights, cache and arithmetic in fewer calls. For a small model that is most of the time of a
forward; for a large one `linear` keeps the products flat. The probe compares it with the module
itself, and a model of another build keeps the eager engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm
from torch.nn.functional import embedding, rms_norm

from ..kv_cache import KVCache, doubled
from .architecture import FULL, SLIDING, reach, windows
from .attention import attend, for_groups, own_attention
from .cpu_kernels import Product, product
from .engine import Engine, Layers, Masks, Span
from .quantised import QuantisedLinear
from .snapshot import everywhere, grows, listeners

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FAMILY = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}
MAKERS = ("transformers.", "torch.", "specdec_lite.engines.")


def fits(module: PreTrainedModel) -> bool:
    """Whether this is a plain model of the family: its own classes, ordinary linear layers, no hooks."""
    parts = list(module.modules())
    linears = [each for name, each in module.named_modules() if name.endswith(("_proj", "lm_head"))]
    return (
        type(module).__name__ in FAMILY
        and all(type(each) in (nn.Linear, QuantisedLinear) for each in linears)
        and all(made.__module__.startswith(MAKERS) for each in parts for made in (type(each), type(each).forward))
        and not any(listeners(each) or "forward" in vars(each) for each in parts)
        and not everywhere()
        and own_attention(module.config.get_text_config())
    )


class Norm:
    """RMS normalisation over the last dimension; in float32 whatever the dtype, as transformers does."""

    def __init__(self, norm: Any) -> None:
        self.weight, self.epsilon = norm.weight.detach(), norm.variance_epsilon
        width = len(self.weight)
        # in float32 on a CPU a second copy
        self.scaled, self.root = self.weight * width**0.5, width**0.5
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        self.floor = self.weight.new_tensor((width * self.epsilon) ** 0.5, dtype=wide)

    def __call__(self, x: Tensor) -> Tensor:
        if x.is_cuda and x.dtype != torch.float64:  # one kernel, which sums in float32 by itself
            return rms_norm(x, self.weight.shape, self.weight, self.epsilon)
        if x.dtype == torch.float32:  # by the length of x, which takes fewer calls than the mean inside rms_norm
            length = vector_norm(x, dim=-1, keepdim=True).hypot_(self.floor)  # sqrt(|x|^2 + width * epsilon)
            return x.div(length).mul_(self.scaled)
        if x.dtype == torch.float64:  # to the last bit as transformers
            return self.weight * rms_norm(x.float(), self.weight.shape, None, self.epsilon).to(x.dtype)
        wide = x.float()
        length = vector_norm(wide, dim=-1, keepdim=True).hypot_(self.floor)
        return self.weight * wide.div_(length).mul_(self.root).to(x.dtype)


class Layer:
    """One decoder layer: attention, then the gated feed-forward part, each added to what came in."""

    def __init__(self, layer: Any, index: int, kind: str, copy: bool) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.index, self.kind, self.scale, self.head_dim = index, kind, attention.scaling, attention.head_dim
        self.qkv: Product = product([attention.q_proj, attention.k_proj, attention.v_proj], copy)
        self.out: Product = product([attention.o_proj], copy)
        self.gate_up: Product = product([mlp.gate_proj, mlp.up_proj], copy)
        self.down: Product = product([mlp.down_proj], copy)
        self.activation = mlp.act_fn.forward  # there are no hooks: see `fits`
        self.heads = attention.q_proj.out_features // self.head_dim
        self.kv_heads = attention.k_proj.out_features // self.head_dim
        self.norms = Norm(layer.input_layernorm), Norm(layer.post_attention_layernorm)
        named = hasattr(attention, "q_norm")  # Qwen3 normalises queries and keys
        self.qk_norms = [Norm(attention.q_norm), Norm(attention.k_norm)] if named else None

    def __call__(self, x: Tensor, turns: Tensor, mask: Tensor | None, cache: KVCache) -> Tensor:
        """One layer over x [batch, n, width] -> [batch, n, width].

        turns [batch, n, 2, 1, head_dim], mask [batch, 1, group * n, visible].
        """
        return self.feed_forward(x + self.out(self.attend(self.norms[0](x), turns, mask, cache)))

    def feed_forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(self.norms[1](x)).chunk(2, -1)
        return x + self.down(self.activation(gate) * up)

    def attend(self, x: Tensor, turns: Tensor, mask: Tensor | None, cache: KVCache) -> Tensor:
        batch, n, _ = x.shape
        qkv = self.qkv(x).view(batch, n, -1, self.head_dim)  # [batch, n, heads + 2 kv_heads, head_dim]
        qk, values = qkv.split_with_sizes([self.heads + self.kv_heads, self.kv_heads], 2)
        if self.qk_norms:
            parts = zip(self.qk_norms, qk.split_with_sizes([self.heads, self.kv_heads], 2), strict=True)
            qk = torch.cat([norm(each) for norm, each in parts], 2)
        # Rotary positions: cos x + sin rotate(x), where the sign of rotate is in the table.
        qk = torch.addcmul(qk * turns[:, :, 0], qk.roll(self.head_dim // 2, -1), turns[:, :, 1])
        queries, keys = qk.split_with_sizes([self.heads, self.kv_heads], 2)
        keys, values = cache.update(keys.transpose(1, 2), values.transpose(1, 2), self.index)  # [batch, kv, visible, d]
        return attend(queries, keys, values, mask, self.scale).flatten(2)  # [batch, n, heads * head_dim]


class RotaryTable:
    """Rotary angles by position: cos, and sin with the sign of the rotation, [length, 2, 1, head_dim].

    Args:
        rotary: transformers' module that computes them.
        like: a tensor of the dtype and on the device that they are wanted in.
        context: no position lies beyond it; None without a limit.
    """

    def __init__(self, rotary: nn.Module, like: Tensor, context: int | None) -> None:
        self.rotary, self.like, self.context = rotary, like, context
        self.made: dict[int, Tensor] = {}  # by length; none is let go while recorded passes may read it

    def __call__(self, positions: int) -> Tensor:
        """Of that many positions or more, but none beyond the context."""
        if (length := doubled(64, positions)) not in self.made:
            self.made[length] = self._make(min(length, self.context or length))
        return self.made[length]

    def _make(self, length: int) -> Tensor:
        """Some scalings choose the angles by the highest position that they are asked for, and keep to them: so no
        position is asked for that no text has, and first a short text's, from which they begin anew.
        """
        positions = torch.arange(length, device=self.like.device).unsqueeze(0)
        self.rotary(self.like, position_ids=positions[:, :1])
        cos, sin = (each[0] for each in self.rotary(self.like, position_ids=positions))  # [length, head_dim]
        sign = torch.ones_like(sin[0])
        sign[: len(sign) // 2] = -1
        return torch.stack([cos, sin * sign], 1).unsqueeze(2)


class LeanEngine(Engine):
    """Runs a model of the family.

    On a CPU in float32 it holds a packed copy of the weights (see `packing`), which is memory given for
    time. Its logits differ from the module's by the order of sums, a few 1e-6 of their spread.

    Args:
        module: a model that `fits`.
        copy: whether weights may be held a second time (see `product`).
    """

    name = "lean"
    causal = True

    def __init__(self, module: PreTrainedModel, copy: bool = True) -> None:
        config, body = module.config.get_text_config(), module.model
        windowed, (context, _) = windows(config), reach(config)
        kinds = getattr(config, "layer_types", None) or [SLIDING if SLIDING in windowed else FULL] * len(body.layers)
        numbered = enumerate(zip(body.layers, kinds, strict=True))
        self.layers = [Layer(each, i, kind, copy) for i, (each, kind) in numbered]
        self.embedding, self.norm = body.embed_tokens.weight.detach(), Norm(body.norm)
        self.turns_for = RotaryTable(body.rotary_emb, self.embedding, context)
        self.head = product([module.lm_head], copy)
        self.group = self.layers[0].heads // self.layers[0].kv_heads
        parts = [*body.layers, body.norm, module.lm_head] if copy else []
        self.copied = [weight.detach() for part in parts for weight in part.parameters()]
        own = vars(body.rotary_emb)
        self.copied += [each for name, each in own["_buffers"].items() if name != "inv_freq" or not grows(own)]

    def __call__(self, tokens: Tensor, positions: Tensor, masks: Masks, cache: KVCache, last: bool) -> Tensor:
        return self.run_span(tokens, positions, masks, cache, last, Span(0, len(self.layers))).logits

    def run_span(self, x: Tensor, positions: Tensor, masks: Masks, cache: KVCache, last: bool, span: Span) -> Layers:
        x = x if span.start else embedding(x, self.embedding)  # [batch, n, width]
        turns, hidden = self.turns_for(cache.position_limit)[positions], {}
        masks = {kind: mask if mask is None else for_groups(mask, self.group) for kind, mask in masks.items()}
        for layer in self.layers[span.start : span.stop]:
            hidden[layer.index] = x
            x = layer(x, turns, masks[layer.kind], cache)
        hidden[span.stop] = x
        hidden = {i: hidden[i] for i in span.hidden}
        return Layers(self.head(self.norm(x[:, -1:] if last else x)), hidden)

    def forget(self) -> None:
        self.turns_for.made.clear()
