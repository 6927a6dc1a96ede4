"""What speculation will be worth with each k, from texts and the time of the pieces alone.

`replay` counts the rounds that a text takes, `Costs` prices them. Intervals come from a bootstrap
(Efron 1979) over stretches of text, since places near each other are easy or hard together, and over
the moments at which the pieces were timed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .replay import AcceptProbs, Replay, replay

STRETCH = 16  # places of a text that are drawn together
PARTS = ("draft", "verify", "sample", "synchronise", "rest", "opening")
TAILS = (2.5, 97.5)  # percentiles: 95 % confidence
Parts = Mapping[str, float]


@dataclass(frozen=True)
class Costs:
    """Seconds of the pieces at one moment of the machine."""

    naive: Parts  # of a naive step: "verify", "sample", "synchronise", "rest", whose sum is the step
    drafted: Mapping[int, Parts]  # by tokens drafted, 0 included: "draft", "verify", "sample", "synchronise"
    catch_up: float = 0.0  # of the draft, after a round that accepted everything
    opening: float = 0.0  # of a naive run, before its first step
    draft_opening: float = 0.0  # what opening the drafter adds

    @property
    def step(self) -> float:
        """A naive step."""
        return sum(self.naive.values())

    def piece(self, name: str, drafted: int) -> float:
        """One piece, as timed, for a number of drafted tokens; between two that were timed it lies on the line."""
        below = max(k for k in self.drafted if k <= drafted)
        above = min((k for k in self.drafted if k >= drafted), default=below)
        share = (drafted - below) / (above - below) if above > below else 0.0
        return (1 - share) * self.drafted[below][name] + share * self.drafted[above][name]

    def price(self, account: Replay, length: int) -> list[float]:
        """Seconds of each of PARTS for a stretch of texts that are `length` tokens long."""
        draft = sum(rounds * self.piece("draft", asked) for asked, rounds in account.asked.items() if asked)
        judge = [
            sum(rounds * self.piece(name, drafted) for drafted, rounds in account.drafted.items())
            for name in ("verify", "sample", "synchronise")
        ]
        opening = (self.opening + self.draft_opening) * account.tokens / length
        return [draft + account.full * self.catch_up, *judge, account.rounds * self.naive["rest"], opening]


@dataclass(frozen=True)
class Interval:
    """A number and where it lies with 95 % confidence."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Outlook:
    """What one k promises."""

    k: int
    speed_up: Interval  # over naive decoding, the reading of the prompt included in both
    tokens_per_round: Interval
    acceptance: Interval  # accepted over judged tokens
    round: dict[str, float]  # seconds of a mean round, by part


@dataclass(frozen=True)
class Forecast:
    """Every k, and the best of them."""

    outlooks: dict[int, Outlook]
    best_low: int  # the best k lies between these two with 95 % confidence
    best_high: int
    naive: dict[str, float]  # seconds of a naive step, by part

    @property
    def best(self) -> Outlook:
        """Of equals the smallest k."""
        return max(self.outlooks.values(), key=lambda each: (each.speed_up.value, -each.k))


def forecast(
    texts: Sequence[AcceptProbs], costs: Sequence[Costs], ks: Sequence[int], draws: int = 400, seed: int = 0
) -> Forecast:
    """Predict every k.

    Args:
        texts: for each text, what `replay` takes; all of one length.
        costs: the pieces at several moments; each is compared with the naive step of its own moment.
        ks: to predict.
        draws: of the bootstrap.

    Raises:
        ValueError: no text or no costs, texts of different lengths, no k.
    """
    lengths = {len(each) for each in texts}
    if len(lengths) != 1 or not costs or not ks:
        raise ValueError(
            f"needs texts of one length, costs and values of k, got lengths {sorted(lengths)}, "
            f"{len(costs)} costs and {len(ks)} values of k"
        )
    length = lengths.pop()
    accounts = {k: [part for each in texts for part in replay(each, k, STRETCH)] for k in ks}
    prices = {k: _prices(parts, costs, length) for k, parts in accounts.items()}  # [stretches, moments, parts]
    naive = np.array([each.step + each.opening / length for each in costs])  # seconds a token, [moments]
    stretches, moments = len(accounts[ks[0]]), len(costs)
    random = np.random.default_rng(seed)
    picks = [(np.arange(stretches), np.arange(moments))]  # first what was measured, then what might have been
    picks += [
        (random.integers(stretches, size=stretches), random.integers(moments, size=moments)) for _ in range(draws)
    ]
    counts = {k: np.array([[p.tokens, p.rounds, p.accepted, p.judged] for p in parts]) for k, parts in accounts.items()}
    made = np.array([[_numbers(counts[k], prices[k], naive, *pick) for k in ks] for pick in picks])  # [picks, ks, 3]
    steps = np.array([each.step for each in costs])  # [moments]
    rounds = {k: _mean_round(prices[k], counts[k], steps) for k in ks}
    outlooks = {}
    for i, k in enumerate(ks):
        speed_up, tokens, accepted = (_interval(made[:, i, j]) for j in range(3))
        outlooks[k] = Outlook(k, speed_up, tokens, accepted, rounds[k])
    winners = np.array(ks)[made[:, :, 0].argmax(1)]
    low, high = np.percentile(winners, TAILS, method="nearest")
    step = {part: float(np.median([each.naive.get(part, 0.0) for each in costs])) for part in PARTS[:-1]}
    return Forecast(outlooks, int(low), int(high), step)


def _prices(accounts: Sequence[Replay], costs: Sequence[Costs], length: int) -> np.ndarray:
    return np.array([[each.price(account, length) for each in costs] for account in accounts])


def _numbers(
    counts: np.ndarray, prices: np.ndarray, naive: np.ndarray, stretches: np.ndarray, moments: np.ndarray
) -> tuple[float, float, float]:
    """Speed-up, tokens a round and acceptance of what was picked. counts [stretches, 4]"""
    tokens, rounds, accepted, judged = counts[stretches].sum(0)
    seconds = prices.sum(2)[stretches].sum(0)[moments]  # [moments]
    return np.median(tokens * naive[moments] / seconds), tokens / rounds, accepted / judged if judged else np.nan


def _mean_round(prices: np.ndarray, counts: np.ndarray, steps: np.ndarray) -> dict[str, float]:
    """Seconds of each part, by way of naive steps of the same moment. counts [stretches, 4]"""
    in_steps = np.median(prices.sum(0) / steps[:, None], 0) / counts[:, 1].sum()  # [parts]
    return dict(zip(PARTS, (np.median(steps) * in_steps).tolist(), strict=True))


def _interval(values: np.ndarray) -> Interval:
    """The first is the value. Where it lies at the edge of what was drawn, the interval holds it all the same."""
    value = float(values[0])
    known = values[~np.isnan(values)]
    low, high = np.percentile(known, TAILS).tolist() if len(known) else (value, value)
    return Interval(value, min(low, value), max(high, value))


def halved(costs: Costs, what: str) -> Costs:
    """The costs if half of something went away.

    Args:
        what: "draft", its time; "verify", what judging a draft costs beyond a naive step; "other", what
            is neither, in both ways of decoding.

    Raises:
        ValueError: something else.
    """
    if what == "draft":
        made = {k: {**parts, "draft": parts["draft"] / 2} for k, parts in costs.drafted.items()}
        return replace(costs, drafted=made, catch_up=costs.catch_up / 2, draft_opening=costs.draft_opening / 2)
    if what == "verify":
        one = costs.naive["verify"]
        half = {k: min(parts["verify"], (parts["verify"] + one) / 2) for k, parts in costs.drafted.items()}
        return replace(costs, drafted={k: {**parts, "verify": half[k]} for k, parts in costs.drafted.items()})
    if what == "other":
        return replace(
            costs, naive=_other(costs.naive), drafted={k: _other(parts) for k, parts in costs.drafted.items()}
        )
    raise ValueError(f"what must be 'draft', 'verify' or 'other', got {what!r}")


def _other(parts: Parts) -> dict[str, float]:
    return {name: each if name in ("draft", "verify") else each / 2 for name, each in parts.items()}


def halved_misses(chances: AcceptProbs) -> list[list[float]]:
    """The chances of a draft that errs half as often."""
    return [[1 - (1 - each) / 2 for each in row] for row in chances]


def mean_of_stretches(texts: Sequence[Sequence[float | None]], draws: int = 400, seed: int = 0) -> Interval | None:
    """The mean over all places of all texts that have a number, by the same bootstrap. None where none has."""
    stretches = [text[at : at + STRETCH] for text in texts for at in range(0, len(text), STRETCH)]
    known = [[each for each in stretch if each is not None] for stretch in stretches]
    sums = np.array([[sum(each), len(each)] for each in known if each])  # [stretches, 2]
    if not len(sums):
        return None
    picks = np.random.default_rng(seed).integers(len(sums), size=(draws, len(sums)))
    drawn = np.concatenate([sums.sum(0, keepdims=True), sums[picks].sum(1)])  # [1 + draws, 2]
    return _interval(drawn[:, 0] / drawn[:, 1])
