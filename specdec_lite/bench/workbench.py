"""What `specdec targets` was asked for, how much it measures, and the models that its parts share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from ..loading.checkpoints import choose_device, choose_dtype
from ..loading.llamas import OWN, PUBLISHED
from ..loading.pair import Pair, load_pair
from ..loading.random_weights import PREFIX
from .bottleneck import FEW
from .compare import random_weights
from .diagnosis import DoctorSettings
from .models_under_test import wide_shape

AGREEMENT = 0.8  # that is set for a random pair
GUESSES = {each.name: "Llama 1B" for each in PUBLISHED.values()} | {"Llama 1B": "Llama narrow"}  # who drafts for whom


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rows: tuple[int, ...] = (1, 2, 4, FEW, 8, 16)
    context: int = 128
    passes: int = 11
    ks: tuple[int, ...] = (2, 3, 4, 5, 6, 8)
    prompts: int = 4
    new: int = 64
    repeats: int = 5
    k_max: int = 8

    @property
    def doctor(self) -> DoctorSettings:
        return DoctorSettings(self.k_max, self.new, prompts=self.prompts, repeats=self.repeats)


WHOLE = Sizes()
QUICK = Sizes(rows=(1, FEW), passes=7, ks=(3, 5, 7), prompts=2, new=48, repeats=3, k_max=6)


@dataclass(frozen=True)
class TargetsSettings:
    """What the command line says."""

    target: str | None = None  # None for the pocket pair
    draft: str | None = None
    revision: str | None = None
    draft_revision: str | None = None
    device: str = "cpu"
    dtype: str | None = None
    engine: str = "auto"
    threads: int | None = None
    quick: bool = False

    @property
    def sizes(self) -> Sizes:
        return QUICK if self.quick else WHOLE


@dataclass
class Workbench:
    """The place where parts work.

    Raises:
        ValueError: a device, a dtype or half a pair, before anything is loaded.
    """

    settings: TargetsSettings
    tell: Callable[[str], None] = lambda what: None

    def __post_init__(self) -> None:
        asked = self.settings
        if (asked.target is None) != (asked.draft is None):
            raise ValueError("give both a target and a draft, or neither for the pocket pair")
        self.dtype, self.device = choose_dtype(asked.dtype, asked.device), choose_device(asked.device)
        target = wide_shape(self.device, self.dtype).name  # now, while nothing else takes memory
        draft = GUESSES.get(target, OWN["Llama narrow"].name)
        self.wide_sources = PREFIX + target, PREFIX + draft

    @cached_property
    def any_pair(self) -> Pair:
        """The pair that was asked for. Errors as for `load_pair`."""
        asked = self.settings
        self.tell("the pair is loaded and probed")
        return self._load(asked.target, asked.draft, revision=asked.revision, draft_revision=asked.draft_revision)

    @property
    def pair(self) -> Pair:
        """The same, if what it accepts means something.

        Raises:
            ValueError: it has random weights; and as for `load_pair`.
        """
        if random_weights(self.any_pair):
            raise ValueError("the pair has random weights, so what it accepts means nothing")
        return self.any_pair

    def wide_pair(self) -> Pair:
        """A random pair whose target waits for memory. Errors as for `load_pair`."""
        self.tell("a random pair is made and probed")
        return self._load(*self.wide_sources)

    def threads(self, given: bool) -> int:
        """Of the processor, for the pair that was given or for another: the pocket pair's would wait for each other."""
        return self.settings.threads or (1 if given and self.settings.target is None else torch.get_num_threads())

    def _load(self, target: str | None, draft: str | None, **revisions: str | None) -> Pair:
        asked = self.settings
        return load_pair(
            target, draft, device=asked.device, dtype=asked.dtype, engine=asked.engine, **revisions
        )  # fmt: skip
