"""Trees of drafted tokens: who follows whom, and how a tree is verified.

A tree's nodes are numbered from the root down, siblings in the order in which they were drawn, and node i is drafted
token i. Node -1 is the text itself. A chain is the tree in which every node follows the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from .acceptance import PerTokenRule, Rule
from .transfer import dispatch, send


@dataclass(frozen=True)
class Tree:
    """The shape of a draft, the same for every row of a batch.

    Args:
        parents: of each node, -1 for those that follow the text. No node comes before its parent.
    """

    parents: tuple[int, ...]

    @staticmethod
    def of_widths(widths: Sequence[int]) -> Tree:
        """Every node of depth d - 1 has widths[d - 1] children; depth 0 is the text."""
        parents: list[int] = []
        level = [-1]
        for width in widths:
            children = [parent for parent in level for _ in range(width)]
            level = list(range(len(parents), len(parents) + len(children)))
            parents += children
        return tree_of(tuple(parents))

    def __len__(self) -> int:
        return len(self.parents)

    @cached_property
    def paths(self) -> list[list[int]]:
        """From the text's child down to each node, itself included."""
        paths: list[list[int]] = []
        for node, parent in enumerate(self.parents):
            paths.append([*(paths[parent] if parent >= 0 else []), node])
        return paths

    def path_to(self, node: int) -> list[int]:
        return [] if node < 0 else self.paths[node]

    @cached_property
    def depths(self) -> list[int]:
        """1 for the text's children."""
        return [len(path) for path in self.paths]

    def size(self, depth: int) -> int:
        """How many nodes lie no deeper. They are the first ones."""
        return sum(each <= depth for each in self.depths)

    def children(self, node: int, size: int) -> list[int]:
        """Among the first `size` nodes."""
        return [i for i in range(size) if self.parents[i] == node]

    @cached_property
    def elder_siblings(self) -> list[list[int]]:
        """Children of the same parent that were drawn before each node."""
        return [self.children(parent, node) for node, parent in enumerate(self.parents)]

    @cached_property
    def by_rank(self) -> list[list[int]]:
        """First children, second children and so on. Those of one rank have different parents."""
        ranks = range(max(map(len, self.elder_siblings), default=-1) + 1)
        return [[node for node, elder in enumerate(self.elder_siblings) if len(elder) == rank] for rank in ranks]

    @cached_property
    def is_on_path(self) -> Tensor:
        """Whether a node lies on the path to another, itself included: [other, node], booleans on the host."""
        return _marked(self.paths, len(self))

    @cached_property
    def is_elder(self) -> Tensor:
        """Whether a node is an elder sibling of another: [other, node], booleans on the host."""
        return _marked(self.elder_siblings, len(self))

    def in_order(self, path: Sequence[int], size: int) -> tuple[list[int], int, list[int]]:
        """The first `size` nodes in a trace's order: the accepted path, the others that were tested, the rest.

        Returns (nodes, how many were tested and failed, the parent of each as a place in this list or -1).
        """
        failed = [node for each in path for node in self.elder_siblings[each]]
        failed += self.children(path[-1] if path else -1, size)
        seen = {*path, *failed}
        nodes = [*path, *failed, *(node for node in range(size) if node not in seen)]
        place = {-1: -1} | {node: i for i, node in enumerate(nodes)}
        return nodes, len(failed), [place[self.parents[node]] for node in nodes]

    def below_token(self) -> Tree:
        """The same tree with one more node, the text's last token, from which all others descend."""
        return tree_of((-1, *(parent + 1 for parent in self.parents)))


@lru_cache(maxsize=64)
def tree_of(parents: tuple[int, ...]) -> Tree:
    """Made once for each shape, with what is computed from it."""
    return Tree(parents)


@lru_cache(maxsize=64)
def chain(n: int) -> Tree:
    """n nodes, each the child of the one before it."""
    return Tree(tuple(range(-1, n - 1)))


def _marked(columns: Sequence[Sequence[int]], size: int) -> Tensor:
    """Row i is True at columns[i]. -> [len(columns), size]"""
    marked = torch.zeros(len(columns), size, dtype=torch.bool)
    for row, which in enumerate(columns):
        marked[row, list(which)] = True
    return marked


class TreeVerification:
    """Verify a tree with a rule for single tokens: siblings in turn, each against what its elder siblings left.

    A rejected sibling leaves `recovered_probs` in the place of p_target, and the next one is tested against that. Each
    of these steps keeps the target's distribution if the rule does, so the whole does (recursive rejection sampling:
    Jeon et al. 2024, arXiv:2402.14160, for siblings drawn without replacement; Miao et al. 2023, arXiv:2305.09781,
    for independent ones). The methods are those of a `Rule`, where the accepted length is the number of the last
    accepted node plus 1, or 0; in a chain that is the length.
    """

    def __init__(self, rule: PerTokenRule, tree: Tree) -> None:
        self.rule, self.tree, self.exact = rule, tree, rule.exact

    def pass_probs(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor, count: Tensor | None) -> Tensor:
        return self._pass_and_left(p_target, p_draft, tokens, count)[0]

    def accepted_length(self, passed: Tensor) -> Tensor:
        """[..., n] -> [...], the last accepted node plus 1"""
        elder, on_path = (
            dispatch(each.float(), passed.device).T for each in (self.tree.is_elder, self.tree.is_on_path)
        )
        first = passed & (passed.float() @ elder == 0)  # [..., n], and no elder sibling passed
        reached = (~first).float() @ on_path == 0  # [..., n], and so all along the path
        return (reached * torch.arange(1, len(self.tree) + 1, device=passed.device)).amax(-1)

    def next_token_probs(
        self, p_target: Tensor, p_draft: Tensor, tokens: Tensor, count: Tensor | None, accepted: Tensor
    ) -> Tensor:
        left = self._pass_and_left(p_target, p_draft, tokens, count)[1]
        return left[torch.arange(len(tokens), device=tokens.device), accepted]  # [batch, vocab]

    def _pass_and_left(
        self, p_target: Tensor, p_draft: Tensor, tokens: Tensor, count: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Of each node the probability to pass once its elder siblings failed [batch, n]; and what is left of p_target
        after the text and after each node when all children there failed [batch, n + 1, vocab]."""
        drafted = p_draft.sum(-1) > 0  # [batch, n]: a distribution may run out of siblings
        if count is not None:
            drafted &= torch.arange(len(self.tree), device=tokens.device) < count.unsqueeze(1)
        left, passes = p_target.clone(), torch.zeros_like(p_draft[..., 0])
        for nodes in self.tree.by_rank:
            at = send([self.tree.parents[node] + 1 for node in nodes], tokens.device)  # [siblings of this rank]
            which = send(nodes, tokens.device)
            here = left.index_select(1, at), p_draft.index_select(1, which), tokens.index_select(1, which)
            real = drafted.index_select(1, which)
            passes.index_copy_(1, which, self.rule.accept_prob(*here) * real)
            recovered = self.rule.recovered_probs(*here)  # [batch, siblings, vocab]
            left.index_copy_(1, at, torch.where(real.unsqueeze(-1), recovered, here[0]))
        return passes, left


def tree_rule(rule: Rule, tree: Tree) -> TreeVerification:
    """The rule, for a draft of this shape.

    Raises:
        TypeError: it verifies chains alone.
    """
    if not isinstance(rule, PerTokenRule):
        raise TypeError(f"{type(rule).__name__} verifies a chain, and this draft is a tree: take TokenRejection()")
    return TreeVerification(rule, tree)
