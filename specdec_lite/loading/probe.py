"""A model is trusted after a probe: the ways in which the loop runs it against a plain forward without a cache.

No list of blessed architectures can promise that a model keeps all its state in the cache, follows
the masks it is given and takes explicit positions. A few dozen tokens can, if they are fed in all the widths in which
the loop feeds tokens, and near every position that the configuration names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..engines.architecture import boundaries
from ..kv_cache import BUCKET, KVCache
from ..models import TransformersModel, plain_arithmetic

# By how much two correct forwards may differ, as a part of the logits' spread.
# In float64 by float32's rounding: eager attention takes its softmax there.
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}
HALF = (torch.float16, torch.bfloat16)
TEXTS = 3  # before a model in half precision is refused

WINDOW = 5  # shorter than the probe's texts, so that a window of any size is seen at work
ROOM = 2560  # slots; more than the keys that known models attend to before they begin to choose
SHORT = 12  # tokens
LONG = BUCKET + 8  # tokens; attention looks at more slots before its end
BLOCKS = (1, 5, 2, 3)  # tokens fed at the end of a long text: alone, a round of K = 4, and others
FARTHEST = 1 << 17  # positions; tables of angles for more would take a gigabyte
BEYOND = 17  # slots after the last position there is, as a run has them for drafts that it rejects


@dataclass(frozen=True)
class Way:
    """One way in which the loop runs a model."""

    name: str
    run: Callable[[TransformersModel, Tensor], Tensor]  # text [batch, length] -> logits of its end [rows, n, vocab]
    meaning: str  # of a difference
    batch: int = 2
    length: int = SHORT
    start: int = 0  # position of the first token


@torch.inference_mode()
def probe(model: TransformersModel, role: str = "model") -> None:
    """Compare the forwards that the loop makes with the plain, uncached one.

    Raises:
        ValueError: they part; says which way, by how much and what that means. Or the model does not run that way.
    """
    name = f"the {role} ({type(model.module).__name__})"
    model.refresh()
    try:
        with short_windows(model), plain_arithmetic(model.device):
            for seed in range(TEXTS):
                found = _compare(model, name, seed)
                if found is None:
                    return
                if model.dtype not in HALF:  # rounding sends a token to other experts now and then: ask again
                    break
    finally:
        model.engine.forget()
    assert found is not None  # with one text at least
    way, apart = found
    meaning = way.meaning
    if getattr(model.module, "hf_quantizer", None):
        meaning = f"a quantisation that rounds activations may do that, or {meaning}"
    raise ValueError(
        f"{name} gives other logits in a {way.name} forward than without a cache (apart by {apart:.2g} of their "
        f"spread): {meaning}. Speculative decoding with it would not be exact."
    )


def _compare(model: TransformersModel, name: str, seed: int) -> tuple[Way, float] | None:
    """The first way in which the model parts from itself on texts drawn with this seed, or None."""
    truths: dict[tuple[int, int, int], Tensor] = {}
    for way in (*WAYS, *_places(model)):
        length = min(way.length, max(SHORT, model.context or way.length))
        key = way.batch, length, way.start
        generator = torch.Generator().manual_seed(seed)
        text = torch.randint(model.vocab_size, key[:2], generator=generator, device="cpu").to(model.device)
        if key not in truths:
            truths[key] = _uncached(model, text, name, way.start)  # [batch, length, vocab]
        truth = truths[key]
        try:
            got = way.run(model, text).float()  # [rows, n, vocab]
        except Exception as error:
            raise ValueError(
                f"{name} does not run with keys, values, mask and positions that are given to it, "
                f"in a {way.name} forward: {type(error).__name__}: {error}"
            ) from error
        right = truth[: len(got), -got.shape[1] :]
        counts = truth.isfinite().all(1).all(0)  # [vocab]; without ids that no text has, such as a padded vocabulary's
        spread = truth[..., counts].std().clamp_min(1e-12)
        off = (got - right)[..., counts].square().mean(-1).sqrt() / spread  # [rows, n]
        off = off.masked_fill((got != right)[..., ~counts].any(-1), torch.inf)
        worst = off.median(1).values if model.dtype in HALF else off.max(1).values  # [rows]
        if not worst.max() <= TOLERANCE.get(model.dtype, 1e-1):
            return way, worst.max().item()
    return None


def _uncached(model: TransformersModel, text: Tensor, name: str, start: int) -> Tensor:
    """What everything else is compared with. text [batch, length] -> [batch, length, vocab]"""
    placed = dict(position_ids=start + torch.arange(text.shape[1], device=text.device).expand_as(text)) if start else {}
    try:
        truth = model.module(input_ids=text, use_cache=False, **placed).logits.float()
    except Exception as error:
        given = f"token ids from position {start} on" if start else "token ids alone"
        raise ValueError(
            f"{name} gives no logits for {given}: {type(error).__name__}: {error}. "
            "Give a causal language model (AutoModelForCausalLM) in a dtype that its layers run in"
        ) from error
    if truth.shape[-1] != model.vocab_size:
        raise ValueError(
            f"{name} gives {truth.shape[-1]} logits a token, and its configuration says vocab_size={model.vocab_size}: "
            "make them equal (resize_token_embeddings does both)"
        )
    never = (truth == -torch.inf).all(1).all(0)  # [vocab], ids that are switched off
    if never.all() or not truth[..., ~never].isfinite().all():
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
    kept, watched = model.windows, model.watched
    try:
        model.watched = False  # what changes here is no change of the model
        for config, _ in wide:
            config.sliding_window = WINDOW
        model.windows = {kind: size and min(size, WINDOW) for kind, size in kept.items()}
        yield
    finally:
        for config, size in wide:
            config.sliding_window = size
        model.windows, model.watched = kept, watched


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


class Roomy(KVCache):
    """A cache that shows every slot it has, where the loop shows the next multiple of a few."""

    def reserve(self, n: int) -> None:
        super().reserve(n)
        self.visible = self.capacity


def roomy(model: TransformersModel, text: Tensor) -> Tensor:
    """One row in a cache with many slots more than tokens, none of them empty. -> [1, 4, vocab]"""
    cache = Roomy(1, min(ROOM, model.context or ROOM), model.device)
    model.forward(text[:1, :8], cache)
    for kept in (kept for pair in cache.layers.values() for kept in pair):
        kept[:, :, 8:] = 1  # [1, kv_heads, capacity, head_dim]
    return model.forward(text[:1, 8:], cache)


def long(model: TransformersModel, text: Tensor) -> Tensor:
    """A prompt, then blocks of several widths across a bucket of slots, the last one twice. -> [1, 11, vocab]"""
    first = text.shape[1] - sum(BLOCKS)
    cache = model.new_cache(1, LONG + 1)
    *blocks, last = text[:, first:].split(BLOCKS, 1)
    model.forward(text[:, :first], cache, last_only=True)
    logits = [model.forward(block, cache) for block in (*blocks, last)]
    cache.rewind([last.shape[1]])
    logits[-1][:, -1:] = model.forward(last, cache, last_only=True)  # as a prompt is read, and by a draft
    return torch.cat(logits, 1)


class Late(KVCache):
    """A cache of few slots for the tokens of a text from position `start` on, with positions below `limit`."""

    def __init__(self, start: int, limit: int, device: torch.device) -> None:
        super().__init__(1, SHORT, device)
        self.start, self.position_limit = start, limit
        self.length, self.lengths = self.length + start, [start]

    def check_room(self, n: int) -> None:
        self.visible = self.capacity

    def assign_slots(self, n: int) -> None:
        super().assign_slots(n)
        self.places = self.positions - self.start


def _places(model: TransformersModel) -> Iterator[Way]:
    """A short text across or up to every position that the configuration names, in a cache with room for more."""
    for bound in sorted(boundaries(model.module.config.get_text_config())):
        last = min(bound + SHORT // 2, model.context or FARTHEST)
        start, limit = last - SHORT, last + BEYOND
        if start < 0 or limit > FARTHEST + BEYOND:
            continue

        def late(model: TransformersModel, text: Tensor, start: int = start, limit: int = limit) -> Tensor:
            cache = Late(start, limit, model.device)
            return torch.cat([model.forward(block, cache) for block in text.split(SHORT // 2, 1)], 1)

        yield Way(
            "late", late, f"it counts positions otherwise near {bound}, which its configuration names", 1, start=start
        )

        def spacious(model: TransformersModel, text: Tensor, limit: int = limit) -> Tensor:
            return model.forward(text, Late(0, limit, model.device))

        yield Way("spacious", spacious, f"positions depend on whether there is room for {limit} tokens", 1)


WAYS = (
    Way(
        "cached", cached, "it keeps state outside keys and values, looks ahead, or sees another window than it is given"
    ),
    Way("stepwise", stepwise, "what it did at one length was done again at another"),
    Way("rewound", rewound, "it keeps state outside keys and values, so tokens that were taken back still count"),
    Way("ragged", ragged, "it ignores the mask or the positions that each row is given"),
    Way("roomy", roomy, "slots without a token reach it, or it asks how many slots there are"),
    Way("long", long, "it computes a block of another width otherwise, or a text of another length", 1, LONG),
)
