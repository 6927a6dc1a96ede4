"""A language model as the decoding loop sees it: tokens and a cache in, logits out.

`TransformersModel` wraps any decoder-only model of transformers whose state is a key/value cache.
`TableModel` is small enough to enumerate, and sees only what the cache shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from .engines import GraphEngine, build
from .engines.architecture import reach, refusal, windows
from .engines.engine import Layers, Masks, Span
from .engines.quantised import quantised_layers
from .engines.snapshot import Snapshot, settings
from .kv_cache import KVCache
from .messages import shown
from .transfer import send

if TYPE_CHECKING:  # importing transformers takes longer than importing torch
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


# the same in training mode, in which new ones are made
NO_DROPOUT = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.ModuleList, nn.ModuleDict, nn.Sequential)
CHUNK = 512  # tokens that a pass with a mask takes at most: the mask has as many rows
LEAST_CAUSAL = 33  # tokens; a shorter beginning of a text takes a mask like every other block


class LanguageModel(Protocol):
    """What the loop needs from a model."""

    vocab_size: int
    context: int | None  # longest text in tokens, None without a limit
    context_reason: str | None  # why no longer, where the cause is not plain
    device: torch.device
    tokenizer: Any  # None when text is not wanted
    end_tokens: tuple[int, ...]  # the model's own end-of-sequence ids

    def new_cache(self, batch: int, capacity: int) -> KVCache: ...

    def forward(self, tokens: Tensor, cache: KVCache, last_only: bool = False) -> Tensor:
        """tokens [batch, n], appended to `cache` -> logits [batch, n, vocab] (n = 1 with `last_only`)."""


def prefill(model: LanguageModel, cache: KVCache, texts: Sequence[Sequence[int]]) -> None:
    """Fill `cache` with all but the last token of each text.

    The last token stays out: the next round feeds it, so a round always begins with one token
    whose logits are not known yet. Shorter rows are padded on the right; the padding is forgotten.
    """
    longest = max(len(text) for text in texts) - 1
    if longest == 0:
        return
    rows = [list(text[:-1]) + [0] * (longest + 1 - len(text)) for text in texts]
    model.forward(send(rows, model.device), cache, last_only=True)
    cache.rewind([longest + 1 - len(text) for text in texts])


class TransformersModel:
    """A causal language model of transformers, run over a `KVCache`.

    Nothing of the module is changed. What runs is what the module computes when a text begins: it is compared with
    what the engine was made for (see `engines.snapshot`), and the engine is made again if anything differs. While a
    text is decoded the module has to stay as it is. A weight that is written to is then an error at the next forward;
    any other change takes effect with the next text. A function of transformers that is replaced after loading is
    not noticed: make a new TransformersModel.

    Args:
        module: the model, in evaluation mode.
        tokenizer: turns prompts into ids and back; None to work with ids alone.
        engine: "eager" runs the module itself; "lean" runs its weights with less around them; "graph"
            records either and replays it; "auto" chooses by device and model (see `load_pair`).

    Raises:
        TypeError: no model of transformers.
        ValueError: the module or a part of it is in training mode, where dropout would make every forward differ, or
            its configuration or class says that keys, values, mask and positions are not all of it.

    Example:
        >>> pair = sd.load_pair()
        >>> again = sd.TransformersModel(pair.target.module, pair.tokenizer, engine="eager")
        >>> again.parameters == pair.target.parameters
        True
    """

    def __init__(
        self, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None, engine: str = "eager"
    ) -> None:
        check_module(module, "module", "a causal language model of transformers")
        self.module, self.tokenizer, self.engine_name = module, tokenizer, engine
        self.warned_unused = False  # whether a warning named the settings of generation_config that are not used
        self._taken = 0  # how many times
        self.watched = True  # False while nothing can change, so that nothing is compared
        self._take()

    def _take(self) -> None:
        """Make an engine for the module as it is now, and read what its configuration says."""
        module = self.module
        for name, part in module.named_modules():
            if part.training and type(part) not in NO_DROPOUT:
                where = f" (its part {name})" if name and not module.training else ""
                raise ValueError(f"{type(module).__name__}{where} is in training mode: call its .eval() first")
        if cause := refusal(module):
            raise ValueError(
                f"{type(module).__name__} cannot be decoded here: {cause}; take a decoder-only model whose whole "
                "state is a cache of keys and values"
            )
        config = module.config.get_text_config()
        self.vocab_size: int = config.vocab_size
        self.context, self.context_reason = reach(config)
        self.device, self.dtype = _where(module)
        self.end_tokens = self._ends = _end_tokens(module)
        self.layers: int = config.num_hidden_layers
        self.windows = windows(config)
        with plain_arithmetic(self.device):
            self.engine = build(module, self.engine_name)
            self._seen = Snapshot(module, self.engine.copied)
        self._taken += 1
        self._weights = [each for each in module.parameters() if not each.is_inference()]

    def refresh_settings(self) -> None:
        """`refresh` at once if the configuration, the device or the dtype was changed; costs next to nothing."""
        if self._ends != (ends := _end_tokens(self.module)):
            self.end_tokens = self._ends = ends
        if self._seen.config != settings(self.module) or (self.device, self.dtype) != _where(self.module):
            self.refresh()

    def refresh(self) -> None:
        """Take the module anew if anything of it was changed. Errors as for a new model."""
        if self.watched and self._seen.changed(self.module):
            trouble = getattr(self.engine, "trouble", None)
            self._take()
            if trouble and isinstance(self.engine, GraphEngine):
                self.engine.trouble = trouble  # what could not be recorded is not tried at every text

    @property
    def generation_config(self) -> GenerationConfig | None:
        """What the module's author recommends; `sampling=target.generation_config` decodes by it."""
        return getattr(self.module, "generation_config", None)

    @property
    def parameters(self) -> int:
        """How many weights, tied ones counted once."""
        quantised = sum(layer.count for layer in quantised_layers(self.module))
        return sum(p.numel() for p in self.module.parameters()) + quantised

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """Begin a text. Errors as for a new model."""
        self.refresh()
        cache = self.engine.new_cache(batch, capacity, self.device)
        cache.of = self._state()
        return cache

    def forward(self, tokens: Tensor, cache: KVCache, last_only: bool = False) -> Tensor:
        """As for any `LanguageModel`.

        Raises:
            RuntimeError: weights were changed after the text had begun.
        """
        self._check_unchanged(cache)
        causal = self._is_causal(tokens, cache)
        run = partial(self._pass, causal=causal)
        logits = []
        with plain_arithmetic(self.device):
            for block in tokens.split(tokens.shape[1] if causal else CHUNK, 1):  # [batch, n or CHUNK or fewer]
                logits.append(self.engine.run(run, block, cache, last_only, tuple(self.windows.items())))
                cache.advance(block.shape[1])
        return logits[-1] if last_only or len(logits) == 1 else torch.cat(logits, 1)  # [batch, n, vocab]

    def forward_span(self, x: Tensor, cache: KVCache, span: Span, last_only: bool = False) -> Layers:
        """A forward through some of the layers: the first ones for an early exit, or all with hidden states returned.

        Args:
            x: tokens [batch, n], appended to `cache`; where the span begins later, the hidden state that its first
                layer reads [batch, n, width], and the cache was rewound to where the layers before it began.
            cache: each layer keeps keys and values of its own in it, so those that do not run write none.
            span: which layers, and which hidden states to return.

        Raises:
            ValueError: layers or states that the model does not have, or one whose layers do not run alone.
            RuntimeError: as `forward`.
        """
        inside = all(span.start <= i <= span.stop for i in span.hidden)
        if not 0 <= span.start < span.stop <= self.layers or not inside:
            raise ValueError(f"needs 0 <= start < stop <= {self.layers} layers and states between them, got {span}")
        self._check_unchanged(cache)
        parts = []
        with plain_arithmetic(self.device):
            for block in x.split(CHUNK, 1):  # [batch, CHUNK or fewer, ...]
                cache.reserve(block.shape[1])
                where = self._positions(cache), self._masks(cache)
                parts.append(self.engine.run_span(block, *where, cache, last_only, span))
                cache.advance(block.shape[1])
        if len(parts) == 1:
            return parts[0]
        logits = parts[-1].logits if last_only else torch.cat([each.logits for each in parts], 1)
        return Layers(logits, {i: torch.cat([each.hidden[i] for each in parts], 1) for i in span.hidden})

    def _check_unchanged(self, cache: KVCache) -> None:
        if cache.of is not None and cache.of != self._state():
            raise RuntimeError(
                f"{type(self.module).__name__} was changed while a text was being decoded, and the cache holds keys of "
                "what it was: begin the text again"
            )

    def _is_causal(self, tokens: Tensor, cache: KVCache) -> bool:
        """Whether these are texts from their first token on, each of which sees all before it: no mask says more."""
        begins = tokens.shape[1] >= LEAST_CAUSAL and not any(cache.lengths)
        return begins and self.engine.causal and not any(self.windows.values())

    def _state(self) -> tuple[int, list[int]]:
        """What changes when the module is taken anew, and with every operation that writes to a weight."""
        return self._taken, [weight._version for weight in self._weights]

    def _pass(self, tokens: Tensor, cache: KVCache, last_only: bool, causal: bool) -> Tensor:
        """All that the device does, and nothing that the host has to read: a graph can record it."""
        if causal:
            cache.visible = tokens.shape[1]
        masks: Masks = dict.fromkeys(self.windows) if causal else self._masks(cache)
        return self.engine(tokens, self._positions(cache), masks, cache, last_only)  # [batch, n, vocab]

    def _masks(self, cache: KVCache) -> Masks:
        """Of the new tokens, for each kind of layer [batch, 1, n, visible]."""
        return {kind: cache.mask(self.dtype, window) for kind, window in self.windows.items()}

    def _positions(self, cache: KVCache) -> Tensor:
        """Of the new tokens [batch, n]. Padding may lie beyond the last position that the model has."""
        return cache.positions if self.context is None else cache.positions.clamp_max(self.context - 1)

    def __getstate__(self) -> dict[str, Any]:
        """Without the engine, which is made again: it may hold what only this process can."""
        return {name: value for name, value in vars(self).items() if name not in ("engine", "_seen", "_weights")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._take()


def check_module(module: object, what: str, wanted: str) -> None:
    """Refuse what is no model of transformers.

    Raises:
        TypeError: says what was wanted.
    """
    if isinstance(module, TransformersModel):
        raise TypeError(f"{what} is a TransformersModel already, which decodes as it is: give its .module, or use it")
    if not isinstance(module, nn.Module) or not hasattr(getattr(module, "config", None), "get_text_config"):
        raise TypeError(f"{what} must be {wanted}, got {shown(module)}")


def refresh_settings(model: LanguageModel) -> None:
    """Before anything is read from it, let a model that follows a module see whether that was changed."""
    if isinstance(model, TransformersModel):
        model.refresh_settings()


def _where(module: PreTrainedModel) -> tuple[torch.device, torch.dtype]:
    return module.device, module.dtype


def plain_arithmetic(device: torch.device) -> AbstractContextManager[Any]:
    """As outside of torch.autocast, which would change the dtype under what is written in the model's own."""
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def _end_tokens(module: PreTrainedModel) -> tuple[int, ...]:
    for config in (getattr(module, "generation_config", None), module.config):
        ids = getattr(config, "eos_token_id", None)
        if ids is not None:
            return (ids,) if isinstance(ids, int) else tuple(ids)
    return ()


class TableModel:
    """Logits read off a table: the sum, over what the mask shows, of a row for each (position, token).

    The tokens themselves are what it keeps in the cache, so a slot that is stale, missing or
    misplaced changes its distribution. Small enough to enumerate every text.

    Args:
        vocab_size: tokens 0 to vocab_size - 1.
        context: longest text.
        seed: of the table.
        sharpness: spread of a slot's contribution to the logits; 0 makes everything uniform.

    Example:
        >>> target = sd.TableModel(vocab_size=3, seed=1)
        >>> len(sd.autoregressive(target, [0], max_new_tokens=4).tokens)
        4
    """

    def __init__(self, vocab_size: int, context: int = 16, seed: int = 0, sharpness: float = 1.0) -> None:
        self.vocab_size, self.device = vocab_size, torch.device("cpu")
        self.context: int | None = context
        self.context_reason: str | None = None
        self.tokenizer: Any = None
        self.end_tokens: tuple[int, ...] = ()
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(context, vocab_size, vocab_size, generator=generator, dtype=torch.float64)
        self.table = sharpness * table  # [position, token there, next token]

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        return KVCache(batch, capacity)

    def forward(self, tokens: Tensor, cache: KVCache, last_only: bool = False) -> Tensor:
        n = tokens.shape[1]
        cache.reserve(n)
        held = tokens[:, None, :, None].double()  # [batch, one head, n, one feature]
        seen, _ = cache.update(held, held, 0)  # [batch, 1, visible, 1]
        seen = seen[:, 0, :, 0].long()  # [batch, visible]
        shown = cache.mask(torch.float64)[:, 0] == 0  # [batch, n, visible]
        positions = cache.slot_positions().reshape(-1, seen.shape[1])  # [1 or batch, visible]
        rows = self.table[positions.clamp_max(len(self.table) - 1), seen]  # [batch, visible, vocab]
        cache.advance(n)
        logits = shown.double() @ rows  # [batch, n, vocab]
        return logits[:, -1:] if last_only else logits
