"""What this library wants to reach on a machine, each bound with the sentence that it comes from.

`specdec targets` measures all of them, `specdec roofline` those of a model that waits for memory.
"""

from __future__ import annotations

from dataclasses import dataclass

CPU, GPU = ("cpu",), ("cuda",)
ANY = (*CPU, "mps", *GPU)


@dataclass(frozen=True)
class Goal:
    """One bound on one figure."""

    name: str  # of the figure
    part: str  # of `specdec targets`, which measures it
    title: str
    kind: str  # "at most", "at least", or "within": no further from zero
    bound: float
    sentence: str
    devices: tuple[str, ...]

    @property
    def percentage(self) -> bool:
        """Whether it reads better in percent."""
        return self.bound < 1

    @property
    def wanted(self) -> str:
        return f"{self.kind} {self.bound:.0%}" if self.percentage else f"{self.kind} {self.bound:.2f}"

    def formatted(self, value: float) -> str:
        """A figure in the goal's own way of counting."""
        return f"{value:.1%}" if self.percentage else f"{value:.2f}"

    def met(self, value: float) -> bool:
        """Whether a figure is within the bound; what is not a number is not."""
        if self.kind == "within":
            return abs(value) <= self.bound
        return value <= self.bound if self.kind == "at most" else value >= self.bound


_FLAT = "a pass over 5 rows at most 1.25 times a pass over one"
_READ = "one row reading weights at 80 % or more of the bandwidth measured in the same run"
_COPY = (
    "naive decoding of an 8-billion-parameter-shaped bfloat16 model at 80 % or more of the copy bandwidth measured "
    "in the same run"
)
_AROUND = "time outside the models' forwards is at most 10 % of a round"
_ASSISTED = "at least 1.5 times transformers' assisted generation at its best setting"
_TWICE = "twice as fast as transformers' assisted generation on the same pair"
_NAIVE = "at least 2 times naive with a pair trained for it"
_CLOCK = "speculative wall clock at least 0.9 of what the cost model predicts from the measured pieces"
_ERROR = "the prediction at the recommended K lies within 15 % of the measured speed-up"
_SUM = "the parts of a round add up to the whole within 5 %"
CASES = {  # the parts in which the doctor examines: what of, in a few words
    "doctor": "the pair", "wide": "synthetic acceptance", "lookup": "prompt lookup", "bad-draft": "a bad draft"
}  # fmt: skip
GOALS = (
    Goal("five_rows", "roofline", "5 rows in passes over 1, a wide model", "at most", 1.25, _FLAT, CPU),
    Goal("share_of_bandwidth", "roofline", "a pass over 1 row, of reading", "at least", 0.80, _READ, CPU),
    Goal("share_of_bandwidth", "roofline", "a pass over 1 row, of copying", "at least", 0.80, _COPY, GPU),
    Goal("naive_share", "wide", "naive decoding, of copying", "at least", 0.80, _COPY, GPU),
    Goal("over_naive_greedy", "bench", "speculative / naive, greedy", "at least", 2.0, _NAIVE, GPU),
    Goal("over_assisted_greedy", "bench", "speculative / assisted, greedy", "at least", 1.5, _ASSISTED, CPU),
    Goal("over_assisted_greedy", "bench", "speculative / assisted, greedy", "at least", 2.0, _TWICE, GPU),
    Goal("over_assisted_sampled", "bench", "speculative / assisted, sampled", "at least", 1.5, _ASSISTED, CPU),
    Goal("over_assisted_sampled", "bench", "speculative / assisted, sampled", "at least", 2.0, _TWICE, GPU),
    Goal("outside", "outside", "of a round, outside the forwards", "at most", 0.10, _AROUND, ANY),
    *(Goal("clock", part, f"clock / prediction, {of}", "at least", 0.90, _CLOCK, GPU) for part, of in CASES.items()),
    *(Goal("error", part, f"prediction's error, {of}", "within", 0.15, _ERROR, ANY) for part, of in CASES.items()),
    *(Goal("gap", part, f"left by the parts, {of}", "within", 0.05, _SUM, ANY) for part, of in CASES.items()),
)


def goals_for(device: str) -> list[Goal]:
    """Those for a kind of device: "cpu", "cuda" or "mps"."""
    return [each for each in GOALS if device in each.devices]
