"""What became of the drafted tokens, position by position: counted in a run, or expected along a text.

A token drafted after a rejected one gets no verdict. It is not a failure; it is unknown (censored).
So three counts are kept for each position, drafted, judged and accepted, and every rate of
acceptance is a quotient of two of them. Which two is the whole question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..trace import Round


@dataclass
class Verdicts:
    """Counts, or expected counts. Lists run over the positions of a draft, the first one first."""

    tokens: float  # written
    rounds: float
    drafted: list[float]
    judged: list[float]
    accepted: list[float]
    bonus: float  # tokens written after a fully accepted draft

    @property
    def accepted_per_drafted(self) -> float:
        return sum(self.accepted) / sum(self.drafted)

    @property
    def accepted_per_judged(self) -> float:
        return sum(self.accepted) / sum(self.judged)

    @property
    def tokens_per_round(self) -> float:
        return self.tokens / self.rounds

    @property
    def tokens_per_round_without_bonus(self) -> float:
        return (self.tokens - self.bonus) / self.rounds

    @property
    def rates(self) -> list[float]:
        """Accepted over judged at each position; not a number where nothing was judged."""
        return [a / j if j else float("nan") for a, j in zip(self.accepted, self.judged, strict=True)]


def counted(rounds: Iterable[Round]) -> Verdicts:
    """The verdicts of a run."""
    every = list(rounds)
    places = range(max((len(each.drafted) for each in every), default=0))
    return Verdicts(
        tokens=sum(len(each.kept) for each in every),
        rounds=len(every),
        drafted=[sum(len(each.drafted) > i for each in every) for i in places],
        judged=[sum(each.judged > i for each in every) for i in places],
        accepted=[sum(each.accepted > i for each in every) for i in places],
        bonus=sum("bonus" in each.kept_kinds() for each in every),
    )


def expected(texts: Iterable[Sequence[float]], k: int) -> Verdicts:
    """The verdicts that speculative decoding with k drafts a round gives on average as it writes these texts.

    Args:
        texts: for each, and each of its tokens, the chance that this token was drafted and kept, given
            that it was written: min(1, p_draft / p_target). From one start of a round to the next is a
            step with known chances (see `replay`), so the averages are sums and nothing is drawn.
        k: tokens drafted a round, at least 1; near its end a text has room for fewer.

    Raises:
        ValueError: k below 1.
    """
    if k < 1:
        raise ValueError(f"k must be 1 or more, got {k}")
    total = Verdicts(0, 0, [0.0] * k, [0.0] * k, [0.0] * k, 0)
    for chances in texts:
        total.tokens += len(chances)
        begins = [1.0] + [0.0] * len(chances)  # chance that a round begins at a place
        for at in range(len(chances)):
            offered = chances[at : min(at + k, len(chances) - 1)]
            reach = begins[at]  # chance that a round begins here and accepts all so far
            total.rounds += reach
            for i, chance in enumerate(offered):
                total.drafted[i] += begins[at]
                total.judged[i] += reach
                total.accepted[i] += reach * chance
                begins[at + i + 1] += reach * (1 - chance)
                reach *= chance
            begins[at + len(offered) + 1] += reach
            total.bonus += reach if offered else 0
    return total
