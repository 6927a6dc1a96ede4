"""Load a pair of models and put it to the proof once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .checkpoints import choose_device, choose_dtype, load_module, load_tokenizer, locate
from .models import TransformersModel
from .pocket import DRAFT, TARGET
from .probe import probe as run_probe
from .random_models import check_memory, is_random, shape_named
from .vocabulary import check_same_tokens, check_widths

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Source = "str | Path | PreTrainedModel"


@dataclass(frozen=True)
class Pair:
    """A target, a draft and the tokenizer they share."""

    target: TransformersModel
    draft: TransformersModel
    tokenizer: PreTrainedTokenizerBase | None

    def __repr__(self) -> str:
        sizes = f"{self.target.parameters / 1e6:.1f} M and {self.draft.parameters / 1e6:.1f} M weights"
        layers = f"{self.target.layers} and {self.draft.layers} layers"
        return f"Pair({sizes}, {layers}, {self.target.dtype}, {self.target.device}, {self.target.engine.name} engine)"


def load_pair(
    target: Source | None = None,
    draft: Source | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    revision: str | None = None,
    draft_revision: str | None = None,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    engine: str = "auto",
    probe: bool = True,
) -> Pair:
    """Load a target and its draft; without arguments the pocket pair, which needs no download.

    Only safetensors are read, and no code that a repository brings is run. Whatever transformers
    loads quantised it loads here; what else that needs installed, the error says.

    Args:
        target, draft: each a hub id, a local folder, `random:` and the name of a shape (`random:Llama 8B`), or a
            transformers model object.
        tokenizer: what both use, when the target is a model object; otherwise it is loaded with the target.
        revision, draft_revision: branch, tag or commit of a hub id; default the repository's main branch.
        device: cpu, cuda, cuda:N or mps, where models given by name go; objects stay where they are.
        dtype: of models given by name, float32, bfloat16, float16 or float64 (not on mps, which has none);
            default float32 on a CPU, else the checkpoint's own, as always for a quantised one; random
            models then take bfloat16 on CUDA.
        engine: what runs the forwards: "eager" (transformers' own), "lean" (less around them, and flat
            from one row to a handful; on a CPU it keeps a packed copy of the weights), "graph" (either of
            them recorded as CUDA graphs and replayed; on a CPU a tape stands in, for lessons and tests) or
            "auto": graph on CUDA, lean on a CPU for Llama, Mistral, Qwen2 and Qwen3 models of moderate
            size, else eager. Where a model can't be recorded, a warning says why, and it runs without.
        probe: check a cached, a rewound, a ragged and a roomy forward against an uncached one.

    Raises:
        ValueError: only one of the two was given; a device, a dtype or a model is not to be had (says
            why, and how to work offline); the tokenizers differ; or its configuration says, or the
            probe found, why this model cannot be decoded with a cache.
    """
    if (target is None) != (draft is None):
        raise ValueError("give both a target and a draft, or neither for the pocket pair")
    dtype = choose_dtype(dtype, device)  # first: it is a fact about mps, whether one is here or not
    device = choose_device(device)
    if target is None:
        if not TARGET.exists() or not DRAFT.exists():
            raise ValueError(
                f"the pocket pair is not in {TARGET.parent}: install the package again, or remake the pair "
                "(python -m specdec_lite.pocket.train)"
            )
        target, draft = TARGET, DRAFT
    sources = [_located(target, "target", revision), _located(draft, "draft", draft_revision)]
    made_up = dict.fromkeys(source[0] for source in sources if is_random(source[0]))
    check_memory(map(shape_named, made_up), device, dtype)  # of both together, before either is made
    tokenizer, agreed = _shared_tokenizer(sources, tokenizer)
    with _without_bars(target is TARGET):
        module = _module(sources[0], "target", device, dtype)
        own = sources[1] != sources[0]  # a model that drafts for itself is read once
        modules = (module, _module(sources[1], "draft", device, dtype) if own else module)
    models = [TransformersModel(each, tokenizer, engine) for each in modules]
    check_widths(models[0].vocab_size, models[1].vocab_size, tokenizer, agreed)
    if probe:
        for model, role in zip(models, ("target", "draft"), strict=True):
            run_probe(model, role)
    return Pair(models[0], models[1], tokenizer)


def _located(source: Source, role: str, revision: str | None) -> tuple[Source, str | None]:
    """A source that can be told from others: (folder or hub id or object, revision)."""
    if isinstance(source, str | Path):
        return locate(source, role, revision), revision
    if revision is not None:
        raise ValueError(f"the {role} is a model object, which has no revision, got {revision!r}")
    return source, None


def _module(
    source: tuple[Source, str | None], role: str, device: torch.device, dtype: torch.dtype | None
) -> PreTrainedModel:
    return load_module(source[0], role, device, dtype, source[1]) if _named(source) else source[0]


def _named(source: tuple[Source, str | None]) -> bool:
    return isinstance(source[0], str)


def _shared_tokenizer(
    sources: list[tuple[Source, str | None]], tokenizer: PreTrainedTokenizerBase | None
) -> tuple[PreTrainedTokenizerBase | None, bool]:
    """The pair's tokenizer (the one given, else the target's), and whether the draft's was seen to agree with it."""
    target, draft = sources
    if tokenizer is None and _named(target):
        tokenizer = load_tokenizer(target[0], "target", target[1])
    if tokenizer is None or not _named(draft):
        return tokenizer, False
    theirs = tokenizer if draft == target else load_tokenizer(draft[0], "draft", draft[1])
    if theirs is None:
        return tokenizer, False
    check_same_tokens(tokenizer, theirs)
    return tokenizer, True


@contextmanager
def _without_bars(wanted: bool) -> Iterator[None]:
    """Hide transformers' progress bars: the pocket pair loads in a moment, and a notebook would keep them."""
    from transformers.utils import logging

    shown = wanted and logging.is_progress_bar_enabled()
    if shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
