"""How many tokens to draft, decided anew for every row and round from what became of the row's earlier drafts.

The output stays exact because of *when* the number is chosen. Before a round it may depend on the text
and on every verdict so far, and that is all a rule gets to see here. What a rule may not do is look at
the tokens it has drafted and then take some back: see `tests/test_adaptive.py`, where enumeration
catches a drafter that does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..draft import Draft, Drafter, DraftSession, DraftsTrees, ReadsTarget, Texts, one_hot_draft
from ..kv_cache import KVCache
from ..messages import shown
from ..models import LanguageModel
from ..randomness import Randomness
from ..sampling.distributions import Sampler
from ..theory.formulas import best_k


class Verdict(NamedTuple):
    """What became of one draft."""

    drafted: int
    accepted: int

    @property
    def judged(self) -> int:
        """Those after a rejection got no verdict."""
        return min(self.accepted + 1, self.drafted)


Past = Sequence[Verdict]  # of one row, oldest first
LengthRule = Callable[[Past], int]  # how many to draft now; 0 leaves this round to the target


class BestForPast:
    """Estimate the acceptance from the row's past, old rounds fading, and draft the k that is best for it.

    The estimate is accepted over judged tokens, each counted with weight (1 - 1 / memory) ** age, beside
    `weight` imagined tokens of which the share `prior` was accepted. As rounds fade the prior returns, so a
    row that has given up drafting tries again some day.

    Args:
        draft_cost: what one more drafted token costs, in naive steps of the target.
        verify_cost: what one more row in the target's forward costs, in the same unit.
        overhead: what else a round costs beyond a naive step.
        prior: acceptance believed in before anything is known.
        weight: how many judged tokens that belief is worth.
        memory: rounds after which a verdict counts 1/e.
        ks: to choose from.

    Raises:
        ValueError: a number out of range; as `formulas.best_k`.

    Example:
        >>> rule = sd.BestForPast(draft_cost=0.2, prior=0.9)
        >>> rule([])  # nothing is known yet
        7
    """

    def __init__(
        self,
        draft_cost: float,
        verify_cost: float = 0.0,
        overhead: float = 0.0,
        prior: float = 0.7,
        weight: float = 4.0,
        memory: float = 16.0,
        ks: Sequence[int] = range(17),
    ) -> None:
        if not 0 <= prior <= 1 or weight <= 0 or memory < 1:
            raise ValueError(f"needs 0 <= prior <= 1, weight > 0, memory >= 1, got {prior}, {weight}, {memory}")
        self.prior, self.weight, self.fade = prior, weight, 1 - 1 / memory
        self.reach = int(8 * memory)  # older verdicts count for nothing

        def verify(k: int) -> float:
            return 1 + k * verify_cost + (overhead if k else 0.0)  # a round without a draft is a naive step

        self.table = [best_k(percent / 100, draft_cost, verify, ks=ks)[0] for percent in range(101)]

    def estimate(self, past: Past) -> float:
        """The acceptance that the past suggests."""
        accepted = judged = 0.0
        for verdict in past[-self.reach :]:
            accepted, judged = self.fade * accepted + verdict.accepted, self.fade * judged + verdict.judged
        return (self.prior * self.weight + accepted) / (self.weight + judged)

    def __call__(self, past: Past) -> int:
        return self.table[round(100 * self.estimate(past))]


class AdaptiveDrafter:
    """Any drafter, asked for as many tokens as a rule wants, and never more than the run's k.

    Args:
        drafter: who proposes.
        rule: from a row's past to the number of tokens, for instance `BestForPast(draft_cost=0.1)`.

    Example:
        >>> target, draft = sd.TableModel(vocab_size=4, seed=0), sd.TableModel(vocab_size=4, seed=1)
        >>> one = sd.AdaptiveDrafter(sd.ModelDrafter(draft), lambda past: 1 if past else 3)
        >>> made = sd.speculative(target, one, [0, 1], k=4, max_new_tokens=10)
        >>> [len(each.drafted) for each in made.trace.rounds][:3]
        [3, 1, 1]
    """

    def __init__(self, drafter: Drafter, rule: LengthRule) -> None:
        if not callable(rule):
            raise TypeError(f"rule must be a function of a row's past verdicts, got {shown(rule)}")
        if isinstance(drafter, DraftsTrees):
            raise TypeError(
                f"AdaptiveDrafter chooses a length, and {type(drafter).__name__} drafts trees: give its .drafter"
            )
        self.drafter, self.rule = drafter, rule

    def open(self, texts: Texts, target: LanguageModel, cache: KVCache) -> AdaptiveSession:
        session = self.drafter.open(texts, target, cache)
        return AdaptiveSession(session, self.rule, len(texts), target.vocab_size, target.device)


class AdaptiveSession:
    """Reads the verdicts off the texts: a round leaves its accepted tokens and one more."""

    def __init__(
        self, session: DraftSession, rule: LengthRule, rows: int, vocab_size: int, device: torch.device
    ) -> None:
        self.session, self.rule, self.vocab_size, self.device = session, rule, vocab_size, device
        self.past: list[list[Verdict]] = [[] for _ in range(rows)]
        self.last: list[tuple[int, int] | None] = [None] * rows  # length of the text, and how many were drafted

    @property
    def states(self) -> tuple[int, ...]:
        return self.session.states if isinstance(self.session, ReadsTarget) else ()

    def observe(self, hidden: Mapping[int, Tensor]) -> None:
        if isinstance(self.session, ReadsTarget):
            self.session.observe(hidden)

    def max_draft_tokens(self, length: int) -> int:
        return self.session.max_draft_tokens(length)

    def propose(self, texts: Texts, k: int, sampler: Sampler, randomness: Randomness) -> Draft:
        wanted = [self._wanted(row, len(text), k) for row, text in enumerate(texts)]
        if max(wanted) == 0:
            draft = one_hot_draft([[] for _ in texts], self.vocab_size, self.device)
        else:  # rows that want fewer go along, and hand in fewer
            draft = self.session.propose(texts, max(wanted), sampler, randomness)
        counts = [min(count, most) for count, most in zip(draft.count, wanted, strict=True)]
        self.last = [(len(text), count) for text, count in zip(texts, counts, strict=True)]
        return Draft(draft.tokens, draft.probs, counts)

    def _wanted(self, row: int, length: int, k: int) -> int:
        if (last := self.last[row]) is not None:
            before, drafted = last
            if length == before:
                return 0  # a text that has ended
            self.past[row].append(Verdict(drafted, length - before - 1))
        return max(0, min(k, self.max_draft_tokens(length), self.rule(self.past[row])))
