"""Load a pair of models and put it to the proof once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch

from ..draft import Drafter
from ..drafters import drafter_named
from ..drafters.eagle_head import EagleHead
from ..engines.quantised import quantise
from ..messages import shown
from ..models import TransformersModel, check_module
from ..pocket import DRAFT, TARGET
from .checkpoints import choose_device, choose_dtype, load_module, load_tokenizer, locate
from .named import named
from .probe import probe as run_probe
from .random_weights import check_memory, is_random, shape_named
from .vocabulary import check_same_tokens, check_widths

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Source: TypeAlias = "str | Path | PreTrainedModel"


@dataclass(frozen=True)
class Pair:
    """A target, what drafts for it (a model, a head, or neither where the text itself does) and the tokenizer.

    Example:
        >>> pair = sd.load_pair()
        >>> pair.target.layers, pair.draft.layers
        (24, 2)
        >>> sd.speculative(pair.target, pair.drafter, "def add(a, b):", k=4, max_new_tokens=16).trace.k
        4
        >>> pair.tokenizer.decode(pair.tokenizer.encode("def add(a, b):"))
        'def add(a, b):'
    """

    target: TransformersModel
    draft: TransformersModel | None
    tokenizer: PreTrainedTokenizerBase | None
    head: EagleHead | None = None

    @cached_property
    def drafter(self) -> Drafter:
        """The best that there is for this pair: its draft model, its head, or else the text itself."""
        return drafter_named(self.drafters[0], self.draft, self.head)

    @property
    def drafters(self) -> list[str]:
        """Names of what was loaded to draft for it, as `drafter_named` takes them, the best first; lookup is last."""
        return ["model"] * (self.draft is not None) + ["head"] * (self.head is not None) + ["lookup"]

    @property
    def chats(self) -> bool:
        """Whether its tokenizer has a chat template."""
        return getattr(self.tokenizer, "chat_template", None) is not None

    @property
    def models(self) -> dict[str, TransformersModel]:
        """Those that are there, by role."""
        return {"target": self.target} | ({} if self.draft is None else {"draft": self.draft})

    def __repr__(self) -> str:
        models, target = self.models.values(), self.target
        sizes = " and ".join(f"{each.parameters / 1e6:.1f} M" for each in models)
        layers = " and ".join(str(each.layers) for each in models)
        alone = ", no draft" if self.head is None else ", with a head"
        how = f"{target.dtype}, {target.device}, {target.engine.name} engine" + alone * (self.draft is None)
        return f"Pair({sizes} weights, {layers} layers, {how})"


def load_pair(
    target: Source | None = None,
    draft: Source | None = None,
    *,
    head: str | Path | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    revision: str | None = None,
    draft_revision: str | None = None,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    engine: str = "auto",
    bits: int | None = None,
    probe: bool = True,
) -> Pair:
    """Load a target and its draft; without arguments the pocket pair, which needs no download.

    "smollm2" is SmolLM2-135M-Instruct, a real chat model, which is fetched once (93 MB).
    Any other target alone makes a pair without a draft, to be drafted for by `PromptLookupDrafter`.

    Only safetensors are read, and no code that a repository brings is run. Whatever transformers
    loads quantised it loads here; what else that needs installed, the error says.

    Args:
        target, draft: each "smollm2", a hub id, a local folder, `random:` and the name of a shape
            (`random:Llama 8B`), or a transformers model object.
        head: folder of an EAGLE-3 head that was trained for this target, in place of a draft (see `EagleDrafter`).
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
        bits: 8 or 4 holds the target's weights as integers, on a CPU; the quantised model is then the target. Its
            sums are in `dtype`, bfloat16 by default.
        probe: check a cached, a rewound, a ragged and a roomy forward against an uncached one.

    Raises:
        ValueError: a draft without a target; a folder without a head; a device, a dtype or a model is not to be had
            (says why, and how to work offline); the tokenizers differ; or its configuration says, or the
            probe found, why this model cannot be decoded with a cache.

    Example:
        >>> pair = sd.load_pair()
        >>> list(pair.models)
        ['target', 'draft']
        >>> pair.target.vocab_size == pair.draft.vocab_size
        True
    """
    if target is None and draft is not None:
        raise ValueError("a draft needs a target: give both, or neither for the pocket pair")
    if bits is not None and dtype is None:
        dtype = "bfloat16"
    dtype = choose_dtype(dtype, device)  # first: it is a fact about mps, whether one is here or not
    device = choose_device(device)
    if target is None:
        if not TARGET.exists() or not DRAFT.exists():
            raise ValueError(
                f"the pocket pair is not in {TARGET.parent}: install the package again, or remake the pair "
                "(python -m specdec_lite.training.train)"
            )
        target, draft = TARGET, DRAFT
    shipped = named(target)
    if head is not None and draft is not None:
        raise ValueError("a head drafts in place of a draft model: give one of them")
    if head is None and draft is None and shipped and shipped.head.is_dir():
        head = shipped.head
    sources = [_located(target, "target", revision)]
    if draft is not None:
        sources.append(_located(draft, "draft", draft_revision))
    elif draft_revision is not None:
        raise ValueError(f"draft_revision={draft_revision!r} belongs to a draft, and none was given")
    made_up = dict.fromkeys(source[0] for source in sources if is_random(source[0]))
    check_memory(map(shape_named, map(str, made_up)), device, dtype)  # of both together, before either is made
    tokenizer, agreed = _shared_tokenizer(sources, tokenizer)
    with _without_bars(target is TARGET or shipped is not None):
        module = _module(sources[0], "target", device, dtype)
        if bits is not None:
            if not isinstance(sources[0][0], str):
                raise ValueError("bits are for a target given by name: a model object stays as it is")
            quantise(module, bits)
        modules = [module]
        if draft is not None:  # a model that drafts for itself is read once
            modules.append(module if sources[1] == sources[0] else _module(sources[1], "draft", device, dtype))
    models = [TransformersModel(each, tokenizer, engine) for each in modules]
    if len(models) > 1:
        check_widths(models[0].vocab_size, models[1].vocab_size, tokenizer, agreed)
    if probe:
        for model, role in zip(models, ("target", "draft"), strict=False):
            run_probe(model, role)
    loaded = None if head is None else EagleHead.load(head, models[0].device, models[0].dtype)
    return Pair(models[0], models[1] if len(models) > 1 else None, tokenizer, loaded)


def load_model(
    source: Source | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    engine: str = "auto",
    bits: int | None = None,
    probe: bool = True,
) -> TransformersModel:
    """Load one model, such as a target for which the text itself drafts; without arguments the pocket target.

    Arguments and errors as for `load_pair`.

    Example:
        >>> target = sd.load_model()
        >>> made = sd.speculative(target, sd.PromptLookupDrafter(), "a, b = b, a + b", max_new_tokens=8)
        >>> len(made.tokens)
        8
    """
    pair = load_pair(
        TARGET if source is None else source, tokenizer=tokenizer, revision=revision, device=device, dtype=dtype,
        engine=engine, bits=bits, probe=probe,
    )  # fmt: skip
    return pair.target


def _located(source: Source, role: str, revision: str | None) -> tuple[Source, str | None]:
    """A source that can be compared with others: (folder or hub id or object, revision)."""
    if isinstance(source, str | Path):
        return locate(source, role, revision), revision
    check_module(source, f"the {role}", "a hub id, a local folder, random: and a shape, or a model of transformers")
    if revision is not None:
        raise ValueError(f"the {role} is a model object, which has no revision, got {shown(revision)}")
    return source, None


def _module(
    source: tuple[Source, str | None], role: str, device: torch.device, dtype: torch.dtype | None
) -> PreTrainedModel:
    given, revision = source
    return load_module(given, role, device, dtype, revision) if isinstance(given, str) else given


def _shared_tokenizer(
    sources: list[tuple[Source, str | None]], tokenizer: PreTrainedTokenizerBase | None
) -> tuple[PreTrainedTokenizerBase | None, bool]:
    """The pair's tokenizer (the one given, else the target's), and whether the draft's was seen to agree with it."""
    (target, revision), (draft, draft_revision) = sources[0], sources[-1]
    if tokenizer is None and isinstance(target, str):
        tokenizer = load_tokenizer(target, "target", revision)
    if tokenizer is None or not isinstance(draft, str):
        return tokenizer, False
    same = sources[0] == sources[-1]
    theirs = tokenizer if same else load_tokenizer(draft, "draft", draft_revision)
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
