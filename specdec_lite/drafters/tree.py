"""Draft a tree: several candidates for a position, so that one that is rejected leaves another to try."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..draft import Draft, Texts
from ..kv_cache import KVCache
from ..messages import shown
from ..models import LanguageModel
from ..randomness import Randomness
from ..sampling.distributions import Sampler, one_hot
from ..tree import Tree
from .model import ModelDrafter, ModelDraftSession

MOST_TOKENS = 64  # of a tree; a forward over more is hardly worth it, and the mask grows with the square


class TreeDrafter:
    """Draft a tree with a smaller language model: `widths[d]` siblings at every node of depth d, one beyond.

    Siblings are drawn without replacement, or where decoding is greedy are the draft's most probable tokens. The target
    verifies them in turn (see `TreeVerification`), so the output keeps its distribution. With k = 4 and widths
    (3, 2), a draft has 3 + 6 + 6 + 6 tokens. With widths of 1 it is the chain that `drafter` drafts.

    Args:
        drafter: a `ModelDrafter`.
        widths: siblings by depth, each at least 1.

    Raises:
        TypeError: another kind of drafter.
        ValueError: widths that are no whole numbers of at least 1.

    Example:
        >>> target, draft = sd.TableModel(vocab_size=4, seed=0), sd.TableModel(vocab_size=4, seed=1)
        >>> drafter = sd.TreeDrafter(sd.ModelDrafter(draft), widths=(3, 2))
        >>> drafter.tree(k=2).parents
        (-1, -1, -1, 0, 0, 1, 1, 2, 2)
        >>> made = sd.speculative(target, drafter, [0, 1], k=2, max_new_tokens=8)
        >>> len(made.trace.rounds[0].drafted)
        9
    """

    def __init__(self, drafter: ModelDrafter, widths: Sequence[int] = (3, 2)) -> None:
        if not isinstance(drafter, ModelDrafter):
            raise TypeError(
                f"TreeDrafter needs a ModelDrafter, which knows what else might follow, got {shown(drafter)}"
            )
        if not widths or any(not isinstance(width, int) or width < 1 for width in widths):
            raise ValueError(f"widths must be whole numbers of at least 1, one for each depth, got {shown(widths)}")
        self.drafter, self.widths = drafter, tuple(widths)

    def tree(self, k: int) -> Tree:
        """What a draft of depth k looks like.

        Raises:
            ValueError: it has more than 64 tokens.
        """
        made = Tree.of_widths(self._widths(k))
        if len(made) > MOST_TOKENS:
            raise ValueError(
                f"widths {self.widths} with k = {k} make a tree of {len(made)} tokens, and {MOST_TOKENS} is the most: "
                "take fewer siblings or a smaller k"
            )
        return made

    def _widths(self, k: int) -> tuple[int, ...]:
        return (*self.widths[:k], *[1] * (k - len(self.widths)))

    def open(self, texts: Texts, target: LanguageModel, cache: KVCache) -> TreeDraftSession:
        chain = self.drafter.open(texts, target, cache)
        if max(self.widths) > chain.model.vocab_size:
            raise ValueError(f"widths {self.widths} ask for more siblings than the draft has tokens")
        return TreeDraftSession(chain, self)


class TreeDraftSession:
    """A chain's session, whose cache holds a tree between a draft and the verdict on it."""

    def __init__(self, chain: ModelDraftSession, drafter: TreeDrafter) -> None:
        self.chain, self.drafter = chain, drafter
        self.model, self.cache = chain.model, chain.cache
        self.fed = 0  # nodes of the last tree that the cache holds

    def max_draft_tokens(self, length: int) -> int:
        return self.chain.max_draft_tokens(length)

    def propose(self, texts: Texts, k: int, sampler: Sampler, randomness: Randomness) -> Draft:
        tree, self.fed = self.drafter.tree(k), 0
        if len(tree) == k:
            return self.chain.propose(texts, k, sampler, randomness)
        feed = self.chain.catch_up(texts)  # [batch, n]
        logits = self.chain.fit(self.model.forward(feed, self.cache, last_only=True))  # [batch, 1, vocab]
        tokens, probs = feed[:, :0], []  # [batch, drafted so far]
        prefixes: list[list[int]] = [[]]
        for depth in range(1, k + 1):
            width = tree.size(depth) - tree.size(depth - 1)
            drawn, p_draft = draw_siblings(logits, width // len(prefixes), texts, tokens, prefixes, sampler, randomness)
            tokens = torch.cat([tokens, drawn], 1)
            probs.append(p_draft)
            if depth == k:
                break
            self.fed, prefixes = tree.size(depth), tree.paths[tree.size(depth - 1) : tree.size(depth)]
            self.cache.branch(tree.parents[: self.fed])
            feed = self.chain.known_ids(drawn)  # [batch, level]
            logits = self.chain.fit(self.model.forward(feed, self.cache))  # [batch, level, vocab]
        self.chain.cached = [len(text) for text in texts]
        return Draft(tokens, torch.cat(probs, 1), [len(tree)] * len(texts), tree.parents)

    def keep_paths(self, paths: Sequence[Sequence[int]]) -> None:
        """Of the last tree, these nodes were accepted, a path a row."""
        held = [[node for node in path if node < self.fed] for path in paths]
        longest = self.cache.keep_paths(held) if self.cache.is_tree else 0
        self.cache.rewind([longest - len(path) for path in held])
        self.chain.cached = [length + len(path) for length, path in zip(self.chain.cached, held, strict=True)]


def draw_siblings(
    logits: Tensor,
    width: int,
    texts: Texts,
    tokens: Tensor,
    prefixes: Sequence[Sequence[int]],
    sampler: Sampler,
    randomness: Randomness,
) -> tuple[Tensor, Tensor]:
    """Draw `width` different tokens at each of n places, one after the other, with what each was drawn from.

    logits [batch, n, vocab], tokens [batch, m] drafted so far, of which `prefixes` says which come before each place
    -> (tokens [batch, n * width], probs [batch, n * width, vocab]), siblings side by side. Where a distribution has
    fewer tokens than `width`, the others have probs of zero.
    """
    batch, n, vocab = logits.shape
    if sampler.sampling.greedy:
        best = sampler.processed(logits, texts, tokens, prefixes).topk(width).indices.flatten(1)  # [batch, n * width]
        return best, one_hot(best, vocab)
    left = sampler.probabilities(logits, texts, tokens, prefixes)  # [batch, n, vocab]
    drawn, probs = [], []
    for place in range(n):
        p_draft = left[:, place]  # [batch, vocab]
        for _ in range(width):
            mass = p_draft.sum(-1, keepdim=True)  # [batch, 1]
            p_draft = torch.where(mass > 0, p_draft / mass, 0.0)
            token = randomness.sample(torch.where(mass > 0, p_draft, left[:, place]))  # [batch]
            drawn.append(token)
            probs.append(p_draft)
            p_draft = p_draft.scatter(-1, token.unsqueeze(-1), 0.0)
    return torch.stack(drawn, 1), torch.stack(probs, 1)
