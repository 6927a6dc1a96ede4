"""What the loop asks of a drafter: to open a session for some texts, and of the session, tokens to follow them.

All that speculation needs from a drafter is speed and overlap with the target. A mistake in one can cost acceptance;
it cannot bias the output, as long as `probs` is what the tokens were drawn from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from .engines.engine import Layers, Span
from .kv_cache import KVCache
from .models import LanguageModel
from .randomness import Randomness
from .sampling.distributions import Sampler, one_hot
from .transfer import send
from .tree import Tree, chain, tree_of

Texts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Draft:
    """Proposed tokens and what they were drawn from: a chain, or with `parents` a tree.

    Rows may propose fewer than n: the first `count[row]` are real, the rest is padding.
    """

    tokens: Tensor  # [batch, n]
    probs: Tensor  # [batch, n, vocab], all zero at a sibling that the distribution had no token left for
    count: list[int]  # [batch]
    parents: tuple[int, ...] | None = None  # see `Tree`; None for a chain

    @property
    def is_tree(self) -> bool:
        return self.parents is not None

    @property
    def tree(self) -> Tree:
        return chain(self.tokens.shape[1]) if self.parents is None else tree_of(self.parents)

    @property
    def prefixes(self) -> list[list[int]] | None:
        """Of a tree: which tokens come before the place after the text, and before the one after each of them."""
        return [[], *self.tree.paths] if self.is_tree else None

    def size(self, depth: int) -> int:
        """How many tokens lie no deeper. They are the first ones."""
        return self.tree.size(depth) if self.is_tree else depth

    def path(self, accepted: int) -> list[int]:
        """The accepted tokens: the first ones, or of a tree those on the path to token `accepted - 1`."""
        return self.tree.path_to(accepted - 1) if self.is_tree else list(range(accepted))

    def goes_on(self, path: list[int], drafted: int) -> bool:
        """Whether one of the first `drafted` tokens follows the path."""
        return bool(self.tree.children(path[-1] if path else -1, drafted)) if self.is_tree else len(path) < drafted

    def in_order(self, path: list[int], drafted: int) -> tuple[Sequence[int], int, list[int] | None]:
        """The first `drafted` tokens in a trace's order, how many failed, and in a tree their parents."""
        return self.tree.in_order(path, drafted) if self.is_tree else (range(drafted), 1, None)


class DraftSession(Protocol):
    """A drafter at work on one batch of texts."""

    def max_draft_tokens(self, length: int) -> int:
        """How many tokens may be proposed after a text of this length."""

    def propose(self, texts: Texts, k: int, sampler: Sampler, randomness: Randomness) -> Draft:
        """Between 0 and k tokens to follow each text."""


@runtime_checkable
class KeepsPaths(Protocol):
    """What the session of a drafter of trees does besides."""

    def keep_paths(self, paths: Sequence[Sequence[int]]) -> None:
        """After a round: which nodes of every row's tree were accepted, a path each."""


@runtime_checkable
class ReadsTarget(Protocol):
    """What the session of a drafter that reads the target's hidden states does besides."""

    states: tuple[int, ...]  # which of them, as `engines.engine.Span` numbers them; none switches it off

    def observe(self, hidden: Mapping[int, Tensor]) -> None:
        """After each forward of the target, the prompt's too: the states of its tokens, [batch, n, width] each."""


@runtime_checkable
class HasLayers(LanguageModel, Protocol):
    """A target whose layers can run alone and whose hidden states can be read, such as a `TransformersModel`."""

    layers: int

    def forward_span(self, x: Tensor, cache: KVCache, span: Span, last_only: bool = False) -> Layers: ...


class Observed:
    """A target whose forwards also show a session the hidden states that it reads."""

    def __init__(self, target: HasLayers, session: ReadsTarget) -> None:
        self.observed, self.session = target, session

    def __getattr__(self, name: str) -> Any:
        return getattr(self.observed, name)

    def forward(self, tokens: Tensor, cache: KVCache, last_only: bool = False) -> Tensor:
        made = self.observed.forward_span(tokens, cache, Span(0, self.layers, self.session.states), last_only)
        self.session.observe(made.hidden)
        return made.logits


def observed(target: LanguageModel, session: DraftSession | None) -> LanguageModel:
    """The target; an `Observed` one where the session reads its states."""
    if isinstance(session, ReadsTarget) and session.states and isinstance(target, HasLayers):
        return Observed(target, session)
    return target


class Drafter(Protocol):
    """Makes sessions; holds no state of its own, so one drafter serves many runs."""

    def open(self, texts: Texts, target: LanguageModel, cache: KVCache) -> DraftSession:
        """Begin to draft for these texts. `cache` is the target's, empty still; a session may share it."""


@runtime_checkable
class DraftsTrees(Protocol):
    """What a drafter of trees does besides."""

    def tree(self, k: int) -> Tree:
        """The largest tree of depth k."""


def left_in_context(context: int | None, length: int) -> int:
    """How many tokens a model that drafts may propose after a text of this length."""
    return 10**9 if context is None else max(0, context - length)


def draft_size(drafter: Drafter | None, k: int) -> int:
    """How many tokens a row's draft has at most."""
    return len(drafter.tree(k)) if isinstance(drafter, DraftsTrees) else k


def one_hot_draft(rows: list[list[int]], vocab_size: int, device: torch.device) -> Draft:
    """A draft in which every token had probability one (rows of different lengths, or none)."""
    width = max(len(row) for row in rows)
    padded = [row + [0] * (width - len(row)) for row in rows]
    tokens = send(padded, device).view(len(rows), width)
    return Draft(tokens, one_hot(tokens, vocab_size), [len(row) for row in rows])
