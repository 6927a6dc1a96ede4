"""What a transformers model says of itself: how far its layers see, how far it reaches, or why it is refused.

Only what configuration and class state. The probe finds the rest.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

FULL, SLIDING = "full_attention", "sliding_attention"
CACHE_NAMES = {"cache", "past_key_values"}  # since transformers 5.24, and before


def windows(config: PreTrainedConfig) -> dict[str, int | None]:
    """For each kind of layer, the names of transformers, how many tokens back it sees: None for all."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or [FULL if window is None else SLIDING]
    return {kind: window if kind == SLIDING else None for kind in sorted(set(kinds))}


def reach(config: PreTrainedConfig) -> tuple[int | None, str | None]:
    """The longest text, and why no longer where a rotary scaling is the reason.

    Scalings that look at the longest position turn every key by another angle once a text has passed
    a boundary. A cache holds keys turned the old way, so a text must stay on one side of it.
    """
    limit = getattr(config, "max_position_embeddings", None)
    bounds: list[tuple[int, str | None]] = [] if limit is None else [(limit, None)]
    for scaling in _rotary_scalings(config):
        kind = scaling.get("rope_type") or scaling.get("type") or "default"
        bound = limit if "dynamic" in kind else scaling.get("original_max_position_embeddings", limit)
        if bound is not None and ("dynamic" in kind or kind == "longrope"):
            reason = f"the rotary scaling {kind!r} turns keys by other angles in texts beyond {bound} tokens"
            bounds.append((bound, f"{reason}, and a cache cannot turn those it holds"))
    if keep := getattr(config, "keep_window_size", None):
        bounds.append((keep, f"in texts beyond {keep} tokens it attends to keys that it chooses from the whole text"))
    # of two equal bounds the one with a reason
    return min(bounds, key=lambda bound: (bound[0], bound[1] is None), default=(None, None))


def boundaries(config: PreTrainedConfig) -> set[int]:
    """Positions at which the configuration says that something may change; none lies beyond the longest text."""
    longest, _ = reach(config)
    named = [longest, getattr(config, "original_max_position_embeddings", None)]
    named += [scaling.get("original_max_position_embeddings") for scaling in _rotary_scalings(config)]
    return {int(each) for each in named if each and (longest is None or each <= longest)}


def _rotary_scalings(config: PreTrainedConfig) -> Iterator[dict[str, Any]]:
    """One for the whole model, or one for each kind of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    yield rope
    yield from (value for value in rope.values() if isinstance(value, dict))


def cache_name(module: PreTrainedModel) -> str:
    """What this model's forward calls the cache that it is given."""
    return "cache" if "cache" in inspect.signature(type(module).forward).parameters else "past_key_values"


def refusal(module: PreTrainedModel) -> str | None:
    """Why this model cannot be decoded with keys, values, a mask and positions alone; None if nothing says so."""
    config = module.config.get_text_config()
    sees = windows(config)
    other = [kind for kind in sees if kind not in (FULL, SLIDING)]
    kinds = f" (layers of the kind {', '.join(map(repr, other))})" if other else ""
    # a class that can be recurrent is not when every layer it declares attends
    recurrent = getattr(module, "_is_stateful", False) and (other or not getattr(config, "layer_types", None))
    window = sees.get(SLIDING, 1)
    attention = str(getattr(config, "_attn_implementation", None) or "")
    takes = inspect.signature(type(module).forward).parameters
    theirs = type(module).__module__.startswith("transformers.")  # a wrapper may pass on what it does not name
    placed = "position_ids" in takes or not theirs
    rescaled = [name for name, part in module.named_modules() if getattr(part, "max_norm", None) is not None]
    for true, cause in (
        (module.config.is_encoder_decoder, "it is an encoder-decoder"),
        (recurrent, f"it is recurrent{kinds}, and such a state cannot be rewound to an earlier token"),
        (other, f"it has other layers than full and sliding attention{kinds}"),
        (getattr(config, "alibi", False) or not placed, "it takes no position for each token (as with ALiBi)"),
        (theirs and not takes.keys() & CACHE_NAMES, "it takes no cache of keys and values"),
        (getattr(config, "attention_type", None) == "block_sparse", "its attention changes with the text's length"),
        (rescaled, f"its {', '.join(rescaled)} has a max_norm, which rewrites weights at every forward"),
        (not isinstance(window, int) or window < 1, f"it has sliding layers, and its sliding_window is {window!r}"),
        (
            any(name in attention for name in ("flash", "flex", "paged")),
            f"its attention {attention!r} takes no mask for each row, which attn_implementation='sdpa' does",
        ),
    ):
        if true:
            return cause
    return None
