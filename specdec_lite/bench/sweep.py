"""One pair at several k, in turn: what a round brings, what it costs, and how fast it is by the clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..decoding import autoregressive, speculative
from ..draft import Drafter
from ..models import LanguageModel
from ..prompts import Prompt
from ..stopping import Stop
from ..theory.formulas import Estimate, acceptance_of, expected_tokens, speedup
from ..trace import Round, first_of_step
from .timing import Spread, Timings, interleave, interleave_options


@dataclass(frozen=True)
class RoundCosts:
    """What a round costs, in naive steps: 1 + overhead + k * (draft + verify)."""

    draft: float  # one more token drafted
    verify: float  # one more row judged
    overhead: float  # a round, beyond a naive step

    def __str__(self) -> str:
        return f"draft {self.draft:.3f} and verify {self.verify:.3f} a token, overhead {self.overhead:.3f} a round"


@dataclass(frozen=True)
class Sweep:
    """Measurements of every k; k = 0 is naive decoding."""

    rounds: dict[int, list[Round]]  # of all timed runs
    timings: Timings

    @property
    def ks(self) -> list[int]:
        return [k for k in self.rounds if k > 0]

    def tokens_per_round(self, k: int) -> float:
        """Of rounds that drafted k tokens: near the end of a text they draft fewer."""
        whole = [each for each in self.rounds[k] if len(each.drafted) == k]
        return sum(each.accepted + 1 for each in whole) / len(whole)

    def seconds(self, k: int) -> dict[str, float]:
        """A mean round of k, by part."""
        steps = [each for each in first_of_step(self.rounds[k]) if len(each.drafted) == k]
        return {part: sum(each.seconds[part] for each in steps) / len(steps) for part in ("draft", "verify", "rest")}

    def cost(self, k: int) -> float:
        """A round of k, in naive steps."""
        return sum(self.seconds(k).values()) / sum(self.seconds(0).values())

    def by_the_clock(self, k: int) -> Spread:
        """Times as fast as naive, the reading of the prompt included."""
        return self.timings.ratio(str(k), "0")

    @property
    def acceptance(self) -> Estimate:
        """Over all k: a draft's quality does not depend on how many follow it."""
        return acceptance_of([each for k in self.ks for each in self.rounds[k]])

    @property
    def costs(self) -> RoundCosts:
        """The line through the measured costs (least squares), whose slope is divided by who took the time."""
        naive, ks = sum(self.seconds(0).values()), self.ks
        whole, drafting = [self.cost(k) for k in ks], [self.seconds(k)["draft"] / naive for k in ks]
        slope, height = _line(ks, whole)
        draft = min(slope, max(0.0, _line(ks, drafting)[0]))
        return RoundCosts(draft, max(0.0, slope - draft), max(0.0, height - 1))

    def predicted(self, k: int) -> float:
        """Times as fast as naive, from the acceptance and the line of costs."""
        found = self.costs
        return speedup(self.acceptance.value, k, found.draft, lambda n: 1 + n * found.verify, found.overhead)

    def luck(self, k: int) -> float:
        """One standard deviation of `tokens_per_round`, as if rounds were independent."""
        kept = [each.accepted + 1 for each in self.rounds[k] if len(each.drafted) == k]
        mean = sum(kept) / len(kept)
        return (sum((each - mean) ** 2 for each in kept) / len(kept) / len(kept)) ** 0.5

    def table(self) -> str:
        """Both halves of the prediction and the clock, a line for each k."""
        lines = [
            f"{'':2}  {'tokens a round':^25}  {'naive steps a round':^20}  {'times as fast':^20}",
            f"{'K':>2}  {'predicted':>9}{'measured':>16}  {'line':>10}{'measured':>10}  {'predicted':>10}{'clock':>10}",
        ]
        found = self.costs
        for k in self.ks:
            line = 1 + found.overhead + k * (found.draft + found.verify)
            lines.append(
                f"{k:2}  {expected_tokens(self.acceptance.value, k):9.2f}"
                f"{self.tokens_per_round(k):8.2f} +-{self.luck(k):5.2f}  {line:10.2f}{self.cost(k):10.2f}"
                f"  {self.predicted(k):10.2f}{self.by_the_clock(k).median:10.2f}"
            )
        return "\n".join(lines)


def _line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Slope and height at 0 of the line nearest to the points."""
    n, mean_x, mean_y = len(x), sum(x) / len(x), sum(y) / len(y)
    spread = sum((each - mean_x) ** 2 for each in x)
    slope = sum((x[i] - mean_x) * (y[i] - mean_y) for i in range(n)) / spread
    return slope, mean_y - slope * mean_x


def sweep(
    target: LanguageModel,
    drafter: Drafter,
    prompts: Sequence[Prompt],
    ks: Sequence[int],
    repeats: int = 3,
    **options: Any,
) -> Sweep:
    """Decode every prompt naively and with every k, all in turn, with a new seed each time.

    Args:
        options: as for `speculative`, without k and seed. Nothing but the length ends a text.

    Raises:
        ValueError: fewer than two values of k, from which no line of costs can be drawn; as `speculative`.
    """
    if len(set(ks)) < 2:
        raise ValueError(f"a line of costs needs at least two values of k, got {list(ks)}")
    runs: dict[int, list[list[Round]]] = {k: [] for k in (0, *ks)}
    options = {"stop": Stop(), **options}

    def runner(k: int) -> Callable[[int, int], int]:
        def run(case: int, turn: int) -> int:
            given = options | {"seed": 1000 * turn + case}
            made = (
                speculative(target, drafter, prompts[case], k=k, **given) if k
                else autoregressive(target, prompts[case], **given)
            )  # fmt: skip
            runs[k].append(made.trace.rounds)
            return made.trace.new_tokens

        return run

    timings = interleave({str(k): runner(k) for k in runs}, len(prompts), repeats, **interleave_options(target.device))
    timed = repeats * len(prompts)  # the first ones warmed up
    rounds = {k: [each for run in every[-timed:] for each in run] for k, every in runs.items()}
    return Sweep(rounds, timings)
