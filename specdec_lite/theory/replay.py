"""How many rounds a text would have taken, without decoding it speculatively.

Take a text x that the target wrote. Wherever a round of speculative decoding writes x, a drafted token
was accepted with chance min(p_target, p_draft)(x) / p_target(x) = min(1, p_draft(x) / p_target(x)), and
otherwise x was the correction (see `acceptance`; that rule only). So, given its text, a run is a walk
whose steps have known chances: from the start of a round over n accepted tokens and one of the target's
to the next start. Its expectations are sums, for every k, with no speculative run at all; averaged over
texts of the target they are exact. Greedy decoding is the case in which every chance is 0 or 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

AcceptProbs = Sequence[Sequence[float]]  # [place][i]: of token i of a draft that a round beginning there would get


def running(chances: Sequence[float], k: int) -> list[list[float]]:
    """What each place's round would get from a drafter whose guess at a place depends on the text before it alone."""
    return [list(chances[at : at + k]) for at in range(len(chances))]


@dataclass
class Replay:
    """Expectations over the rounds that write one text, or a stretch of it."""

    tokens: int = 0
    rounds: float = 0.0
    asked: dict[int, float] = field(default_factory=dict)  # rounds, by the tokens that the drafter was asked for
    drafted: dict[int, float] = field(default_factory=dict)  # rounds, by the tokens that it gave
    judged: float = 0.0  # drafted tokens that got a verdict
    accepted: float = 0.0
    full: float = 0.0  # rounds whose whole draft was accepted, with another round after them

    def add(self, other: Replay) -> None:
        """Count another text too."""
        for name in ("tokens", "rounds", "judged", "accepted", "full"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for mine, its in ((self.asked, other.asked), (self.drafted, other.drafted)):
            for count, rounds in its.items():
                mine[count] = mine.get(count, 0.0) + rounds

    @property
    def tokens_per_round(self) -> float:
        return self.tokens / self.rounds

    @property
    def acceptance(self) -> float:
        """Accepted over judged tokens: those after a rejection are censored, not failures."""
        return self.accepted / self.judged if self.judged else float("nan")


def replay(chances: AcceptProbs, k: int, stretch: int | None = None) -> list[Replay]:
    """The rounds that write a text of len(chances) tokens when up to k are drafted a round.

    Args:
        chances: for each place, of the tokens that would be drafted there; fewer than k where the
            drafter has fewer to offer.
        k: tokens drafted a round; 0 is naive decoding.
        stretch: split the account into stretches of so many places, by where a round begins (for a
            bootstrap). Default: one for the whole text.

    Raises:
        ValueError: no text, k below 0, or a chance outside 0 to 1.
    """
    places = len(chances)
    if not places or k < 0:
        raise ValueError(f"needs a text and k of at least 0, got {places} places and k={k}")
    stretch = stretch or places
    begins = [1.0] + [0.0] * places  # chance that a round begins at a place
    parts = [Replay(tokens=min(stretch, places - at)) for at in range(0, places, stretch)]
    for at in range(places):
        here, part = begins[at], parts[at // stretch]
        asked, offered = _draft(chances, k, at)
        part.rounds += here
        part.asked[asked] = part.asked.get(asked, 0.0) + here
        part.drafted[len(offered)] = part.drafted.get(len(offered), 0.0) + here
        reach = here  # chance that a round begins here and accepts all so far
        for i, chance in enumerate(offered):
            part.judged += reach
            part.accepted += reach * chance
            begins[at + i + 1] += reach * (1 - chance)
            reach *= chance
        begins[at + len(offered) + 1] += reach
        if offered and at + len(offered) + 1 < places:
            part.full += reach
    return parts


def steps_until_all_end(rows: Sequence[AcceptProbs], k: int) -> float:
    """Expected rounds of a batch: it goes on until its slowest row has written its text.

    Errors as for `replay`.
    """
    most = max(map(len, rows))
    ended = [_ended_within(row, k, most) for row in rows]
    total = 0.0
    for step in range(most):
        everyone = 1.0
        for each in ended:
            everyone *= each[step]
        total += 1 - everyone  # another round is needed
    return total


def _ended_within(chances: AcceptProbs, k: int, most: int) -> list[float]:
    """[n]: the chance that n rounds suffice, for n from 0 to `most`."""
    places = len(chances)
    at_place, ended = [1.0] + [0.0] * places, [0.0]
    for _ in range(most):
        following = [0.0] * places + [at_place[places]]
        for at, here in enumerate(at_place[:places]):
            if here:
                _, offered = _draft(chances, k, at)
                for i, chance in enumerate(offered):
                    following[at + i + 1] += here * (1 - chance)
                    here *= chance
                following[at + len(offered) + 1] += here
        at_place = following
        ended.append(at_place[places])
    return ended


def _draft(chances: AcceptProbs, k: int, at: int) -> tuple[int, Sequence[float]]:
    """How many tokens are asked for at a place, one less than there is room for, and the chances of those offered."""
    asked = min(k, len(chances) - at - 1)
    offered = chances[at][:asked]
    if any(not 0 <= chance <= 1 for chance in offered):
        raise ValueError(f"a chance must lie between 0 and 1, got {list(offered)} at place {at}")
    return asked, offered
