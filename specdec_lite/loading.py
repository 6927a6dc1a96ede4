"""Load a pair of models and put it to the proof once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .models import TransformersModel
from .pocket import DRAFT, TARGET
from .probe import probe as run_probe

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
        return f"Pair({sizes}, {layers}, {self.target.dtype}, {self.target.device})"


def load_pair(
    target: Source | None = None,
    draft: Source | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    device: str = "cpu",
    dtype: str | torch.dtype | None = None,
    probe: bool = True,
) -> Pair:
    """Load a target and its draft; without arguments the pocket pair, which needs no download.

    Args:
        target, draft: each a hub id, a local folder or a transformers model object.
        tokenizer: when the target is a model object; otherwise it is loaded with the target.
        device: where models given by name go; objects stay where they are.
        dtype: of models given by name; default float32 on a CPU, else the checkpoint's own.
        probe: check a cached, a rewound and a ragged forward against an uncached one.

    Raises:
        ValueError: only one of the two was given, vocabularies differ, or the probe found why
            this model cannot be decoded with a cache.
    """
    if (target is None) != (draft is None):
        raise ValueError("give both a target and a draft, or neither for the pocket pair")
    if target is None:
        if not TARGET.exists() or not DRAFT.exists():
            raise ValueError(
                f"the pocket pair is not in {TARGET.parent}: install the package again, or remake the pair "
                "(python -m specdec_lite.pocket.train)"
            )
        target, draft = TARGET, DRAFT
    if tokenizer is None and isinstance(target, str | Path):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(target)
    models = [TransformersModel(_module(source, device, dtype), tokenizer) for source in (target, draft)]
    if models[0].vocab_size != models[1].vocab_size:
        raise ValueError(
            f"the target's vocabulary has {models[0].vocab_size} entries and the draft's {models[1].vocab_size}: "
            "both must use one tokenizer"
        )
    if probe:
        for model, role in zip(models, ("target", "draft"), strict=True):
            run_probe(model, role)
    return Pair(models[0], models[1], tokenizer)


def _module(source: Any, device: str, dtype: str | torch.dtype | None) -> PreTrainedModel:
    if not isinstance(source, str | Path):
        return source
    from transformers import AutoModelForCausalLM

    if dtype is None:
        dtype = "float32" if device == "cpu" else "auto"
    with _without_bars(source in (TARGET, DRAFT)):
        return AutoModelForCausalLM.from_pretrained(source, dtype=dtype, use_safetensors=True).to(device).eval()


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
