"""Attention in which several query heads share a key head, without a copy of any key.

Kernels that take a mask want as many key heads as query heads, and transformers makes them: in every
layer of every verification it copies the whole cache several times over. Queries that share a head can as well
stand in line as further rows of that one head; then keys and values are used where they lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

HALF = (torch.float16, torch.bfloat16)
MANY = 32  # tokens a row; of fewer, the queries of a group together make better use of a kernel


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """Attention of query heads in groups, each of which shares a head of keys and values.

    queries [batch, n, heads, d], keys [batch, kv_heads, visible, d], values [batch, kv_heads, visible, d_v],
    additive mask [batch, 1, group * n, visible] (see `for_groups`), or none where each query sees the keys up to its
    own place -> [batch, n, heads, d_v].
    """
    batch, n, heads, size = queries.shape
    kv_heads = keys.shape[1]
    group = heads // kv_heads
    if mask is None or mask.shape[2] == n:
        seen = _attend_by_heads(queries.transpose(1, 2), keys, values, mask, scale)  # [batch, heads, n, d_v]
        return seen.transpose(1, 2)
    rows = queries.view(batch, n, kv_heads, group, size).permute(0, 2, 3, 1, 4)
    rows = rows.reshape(batch, kv_heads, group * n, size)
    seen = scaled_dot_product_attention(rows, keys, values, attn_mask=mask, scale=scale)
    return seen.view(batch, kv_heads, group, n, -1).permute(0, 3, 1, 2, 4).reshape(batch, n, heads, -1)


def _attend_by_heads(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """[batch, heads, n, d] -> [batch, heads, n, d_v]"""
    group = queries.shape[1] // keys.shape[1]
    if keys.is_cuda and keys.dtype not in HALF:  # no kernel there shares heads
        keys, values = (each.repeat_interleave(group, 1) for each in (keys, values))
    shares = queries.shape[1] > keys.shape[1]
    return scaled_dot_product_attention(
        queries, keys, values, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=shares
    )


def for_groups(mask: Tensor, group: int) -> Tensor:
    """A mask for the rows of a whole group. [batch, 1, n, visible] -> [batch, 1, group * n, visible]

    A prompt's stays as it is on a CPU, whose kernel takes it for all heads: copies of it would be large.
    """
    alone = group == 1 or (mask.shape[2] >= MANY and not mask.is_cuda)
    return mask if alone else mask.repeat(1, 1, group, 1)


def shared_sdpa(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """`attend` where heads are shared under a mask, everywhere else transformers' own function.

    As transformers calls it: query [batch, heads, n, d] -> [batch, n, heads, d_v].
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if (
        attention_mask is None
        or attention_mask.shape[1] != 1
        or query.shape[1] <= key.shape[1]
        or any(options.get(name) is not None for name in NOT_OURS)
        or options.get("dropout")
    ):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    mask = for_groups(attention_mask, query.shape[1] // key.shape[1])
    return attend(query.transpose(1, 2), key, value, mask, options.get("scaling")), None


NOT_OURS = ("softcap", "position_bias", "s_aux")  # arguments of some models that change the scores


def own_attention(config: PreTrainedConfig) -> bool:
    """Whether a model of this configuration attends as transformers does, which any of its kernels may compute."""
    return getattr(config, "_attn_implementation", None) in (None, "eager", "sdpa") and registered_sdpa() is None


def registered_sdpa() -> Any:
    """What a user has registered in the place of transformers' "sdpa" attention, or None."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    found = ALL_ATTENTION_FUNCTIONS["sdpa"]
    return None if found in (sdpa_attention_forward, shared_sdpa) else found


@contextmanager
def without_copies() -> Iterator[None]:
    """Meanwhile transformers' "sdpa" attention is `shared_sdpa`, unless a user has registered another there.

    Only meanwhile: its own generation, which it is compared with, keeps its own attention.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if ALL_ATTENTION_FUNCTIONS["sdpa"] is not sdpa_attention_forward:
        yield
        return
    ALL_ATTENTION_FUNCTIONS["sdpa"] = shared_sdpa
    try:
        yield
    finally:
        with suppress(KeyError):  # another thread was first
            del ALL_ATTENTION_FUNCTIONS["sdpa"]  # the interface keeps the entry below ours
