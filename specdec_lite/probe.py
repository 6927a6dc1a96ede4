"""A model is trusted after a probe: the ways in which the loop runs it against a plain forward without a cache.

No list of blessed architectures can promise that a model keeps all its state in the arena, follows
the masks it is given and takes explicit positions. A dozen tokens can.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .cache import Arena
from .models import TransformersModel

# By how much two correct forwards may differ, as a part of the logits' spread.
# In float64 by float32's rounding: eager attention takes its softmax there.
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}
HALF = (torch.float16, torch.bfloat16)
TEXTS = 3  # before a model in half precision is refused

WINDOW = 5  # shorter than the probe's text, so that a window of any size is seen at work
ROOM = 2560  # slots; more than the keys that known models attend to before they begin to choose


@torch.inference_mode()
def probe(model: TransformersModel, role: str = "model") -> None:
    """Compare cached, rewound, ragged and roomy forwards with the plain, uncached one.

    Raises:
        ValueError: they part; says which way, by how much and what that means. Or the model does not run that way.
    """
    name = f"the {role} ({type(model.module).__name__})"
    try:
        with short_windows(model):
            for seed in range(TEXTS):
                found = _compare(model, name, seed)
                if found is None:
                    return
                if model.dtype not in HALF:  # rounding sends a token to other experts now and then: ask again
                    break
    finally:
        model.engine.forget()
    way, apart, meaning = found
    if getattr(model.module, "hf_quantizer", None):
        meaning = f"a quantisation that rounds activations may do that, or {meaning}"
    raise ValueError(
        f"{name} gives other logits in a {way} forward than without a cache (apart by {apart:.2g} of their spread): "
        f"{meaning}. Speculative decoding with it would not be exact."
    )


def _compare(model: TransformersModel, name: str, seed: int) -> tuple[str, float, str] | None:
    """The first way in which the model parts from itself on a text drawn with this seed, or None."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(model.vocab_size, (2, 12), generator=generator).to(model.device)  # [2, 12]
    truth = _uncached(model, text, name)  # [2, 12, vocab]
    spread = truth.std().clamp_min(1e-12)
    for way, run, meaning in WAYS:
        try:
            got = run(model, text).float()  # [rows, 4, vocab]
        except Exception as error:
            raise ValueError(
                f"{name} does not run with keys, values, mask and positions that are given to it, "
                f"in a {way} forward: {type(error).__name__}: {error}"
            ) from error
        off = (got - truth[: len(got), -4:]).square().mean(-1).sqrt() / spread  # [rows, 4]
        worst = off.median(1).values if model.dtype in HALF else off.max(1).values  # [rows]
        if not worst.max() <= TOLERANCE.get(model.dtype, 1e-1):
            return way, worst.max().item(), meaning
    return None


def _uncached(model: TransformersModel, text: Tensor, name: str) -> Tensor:
    """What everything else is compared with. -> [2, 12, vocab]"""
    try:
        truth = model.module(input_ids=text, use_cache=False).logits.float()
    except Exception as error:
        raise ValueError(
            f"{name} gives no logits for token ids alone: {type(error).__name__}: {error}. "
            "Give a causal language model (AutoModelForCausalLM) in a dtype that its layers run in"
        ) from error
    if truth.shape[-1] != model.vocab_size:
        raise ValueError(
            f"{name} gives {truth.shape[-1]} logits a token, and its configuration says vocab_size={model.vocab_size}: "
            "make them equal (resize_token_embeddings does both)"
        )
    if not truth.isfinite().all():
        raise ValueError(f"{name} gives logits that are not finite in {model.dtype}: try dtype='float32'")
    return truth


@contextmanager
def short_windows(model: TransformersModel) -> Iterator[None]:
    """Meanwhile windows are `WINDOW` tokens at most, in the model's configuration and in the masks it is given.

    A window of 4096 hides nothing in a dozen tokens. Models build their own masks from the configuration
    at each forward, so the uncached forward shows which layers slide and by how much.
    """
    found = {id(part.config): part.config for part in model.module.modules() if hasattr(part, "config")}
    sizes = [(config, getattr(config, "sliding_window", None)) for config in found.values()]
    wide = [(config, size) for config, size in sizes if isinstance(size, int) and size > WINDOW]
    kept = model.windows
    try:
        for config, _ in wide:
            config.sliding_window = WINDOW
        model.windows = {kind: size and min(size, WINDOW) for kind, size in kept.items()}
        yield
    finally:
        for config, size in wide:
            config.sliding_window = size
        model.windows = kept


def cached(model: TransformersModel, text: Tensor) -> Tensor:
    """Prefix, then the rest in two pieces. -> logits of the last 4 tokens [2, 4, vocab]."""
    cache = model.new_cache(2, 16)
    model.forward(text[:, :8], cache)
    return torch.cat([model.forward(text[:, 8:9], cache), model.forward(text[:, 9:], cache)], 1)


def stepwise(model: TransformersModel, text: Tensor) -> Tensor:
    """One token at a time, as naive decoding feeds them: the same pass over and over. -> [2, 4, vocab]"""
    cache = model.new_cache(2, 16)
    model.forward(text[:, :8], cache)
    return torch.cat([model.forward(text[:, i : i + 1], cache) for i in range(8, 12)], 1)


def rewound(model: TransformersModel, text: Tensor) -> Tensor:
    """Append wrong tokens, forget them, go on. -> [2, 4, vocab]"""
    cache = model.new_cache(2, 16)
    model.forward(text[:, :8], cache)
    model.forward((text[:, 8:] + 1) % model.vocab_size, cache)
    cache.rewind([4, 4])
    return model.forward(text[:, 8:], cache)


def ragged(model: TransformersModel, text: Tensor) -> Tensor:
    """Rows that rewind by different amounts, then meet again at the end. -> [2, 4, vocab]"""
    cache = model.new_cache(2, 20)
    model.forward(torch.cat([text[:, :8], (text[:, 8:] + 1) % model.vocab_size], 1), cache)
    cache.rewind([4, 7])  # rows keep 8 and 5 tokens
    feed = torch.stack([torch.cat([text[0, 8:], text[0, :3]]), text[1, 5:]])  # [2, 7], row 0 padded
    logits = model.forward(feed, cache)
    return torch.stack([logits[0, :4], logits[1, 3:]])


class Roomy(Arena):
    """An arena that shows every slot it has, where the loop shows the next multiple of a few."""

    def expect(self, n: int) -> None:
        super().expect(n)
        self.visible = self.capacity


def roomy(model: TransformersModel, text: Tensor) -> Tensor:
    """One row in a cache with many slots more than tokens, none of them empty. -> [1, 4, vocab]"""
    cache = Roomy(1, min(ROOM, model.context or ROOM), model.device)
    model.forward(text[:1, :8], cache)
    for kept in (kept for pair in cache.layers.values() for kept in pair):
        kept[:, :, 8:] = 1  # [1, kv_heads, capacity, head_dim]
    return model.forward(text[:1, 8:], cache)


WAYS = (
    ("cached", cached, "it keeps state outside keys and values, looks ahead, or sees another window than it is given"),
    ("stepwise", stepwise, "what it did at one length was done again at another"),
    ("rewound", rewound, "it keeps state outside keys and values, so tokens that were taken back still count"),
    ("ragged", ragged, "it ignores the mask or the positions that each row is given"),
    ("roomy", roomy, "slots without a token reach it, or it asks how many slots there are"),
)
