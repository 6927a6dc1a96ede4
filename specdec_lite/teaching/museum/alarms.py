"""Three tests that between them catch every exhibit, and the conditions under which they do.

- `enumeration`: every path of the real loop against the target alone;
- `twin`: a draft identical to the target must be kept as often as the rule itself promises;
- `pairs`: frequencies of seeded pairs of tokens against the target, by chi-square.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from ...distributions import Sampling
from ...models import LanguageModel, TableModel
from ...stopping import Stop
from ...theory.exact import Distribution, target_distribution, total_variation
from ...theory.statistics import ChiSquare, compare
from ...trace import Trace
from .setup import Setup
from .surroundings import frequency_penalty

VOCAB, END = 3, 0  # the end is also where a text begins, as in many models
PROMPT = [END]
NEW, K = 4, 2
# Some bugs need a filter, one an end, one a penalty: a decoder is tested with all that its users switch on.
CONDITIONS: dict[str, Any] = dict(sampling=Sampling(top_k=2), stop=Stop([END]), processors=[frequency_penalty])
ROWS = 6_000
EXACT = 1e-9  # what is less than this is rounding
MISSING = 0.05  # of acceptance, between what a rule promises and a twin gets
LEVEL = 1e-6  # of false alarms


class Makes(Protocol):
    """An exhibit, or a decoder whose name is not known."""

    @property
    def make(self) -> Callable[[LanguageModel, LanguageModel], Setup]: ...


@dataclass(frozen=True)
class Reading:
    """What the three alarms read off one decoder."""

    name: str
    off: float  # total variation, by enumeration
    kept: float  # of a twin's drafts
    promised: float  # by the rule, had the draft read the text
    p_value: float  # of pairs
    written: Distribution = field(default_factory=dict, repr=False)
    pairs_off: float = 0.0  # total variation of the pairs that were drawn

    @property
    def rings(self) -> dict[str, bool]:
        """Which alarms ring."""
        return {
            "enumeration": self.off > EXACT,
            "twin": self.kept < self.promised - MISSING,
            "pairs": self.p_value < LEVEL,
        }


def models() -> tuple[TableModel, TableModel]:
    """A target and a draft small enough to enumerate."""
    return TableModel(VOCAB, context=48, seed=1), TableModel(VOCAB, context=48, seed=2)


def wanted() -> Distribution:
    """What the target alone writes under `CONDITIONS`."""
    return target_distribution(models()[0], PROMPT, max_new_tokens=NEW, **CONDITIONS)


def written(decoder: Makes) -> Distribution:
    """What the decoder writes under `CONDITIONS`, by enumeration."""
    return decoder.make(*models()).enumerate(PROMPT, k=K, max_new_tokens=NEW, **CONDITIONS)


def enumeration(decoder: Makes) -> float:
    """Total variation between what the decoder and what the target writes: 0 to rounding, or biased."""
    return total_variation(written(decoder), wanted())


def twin(decoder: Makes) -> tuple[float, float]:
    """Share of a twin's judged drafts that is kept, and the share that the decoder's rule promises.

    Unequal prompts in a batch, since those rewind by different amounts. The promise is the rule's chance
    for two equal distributions, so that a rule that keeps little on purpose rings no alarm.
    """
    target = TableModel(8, context=48, seed=1)
    setup = decoder.make(target, target)
    prompts = [[1, 2, 3, 4, 5], [6]] * 8
    made = setup.decode(prompts, seeds=range(16), k=3, max_new_tokens=24, trace="full")
    return made.trace.accepted_per_judged, promise(setup, made.trace)


def promise(setup: Setup, trace: Trace) -> float:
    """Mean chance of keeping the judged drafts, had p_draft been p_target."""
    chances: list[float] = []
    for each in trace.rounds:
        if each.judged:
            p = torch.tensor(each.full_target[: each.judged], dtype=torch.float64)  # [judged, vocab]
            tokens = torch.tensor(each.drafted[: each.judged])  # [judged]
            chances += setup.rule.chance(p, p, tokens).tolist()
    return sum(chances) / len(chances)


def drawn(decoder: Makes) -> list[list[int]]:
    """What 6,000 seeded rows begin with, at temperature 1 and with nothing else switched on."""
    return decoder.make(*models()).decode([PROMPT] * ROWS, seeds=range(ROWS), k=K, max_new_tokens=3, trace="off").tokens


def pairs(decoder: Makes) -> ChiSquare:
    """The first two tokens of those rows against the target."""
    return _pairs(drawn(decoder))[0]


def _pairs(texts: list[list[int]]) -> tuple[ChiSquare, float]:
    claimed = target_distribution(models()[0], PROMPT, max_new_tokens=2)
    seen = [tuple(text[:2]) for text in texts]
    shares = {pair: seen.count(pair) / len(seen) for pair in set(seen)}
    return compare(seen, claimed), total_variation(shares, claimed)


def thrown(decoder: Makes, rows: int = 3_000) -> Distribution:
    """Shares of texts under `CONDITIONS`, with the decoder's own dice: what enumeration cannot see."""
    texts = decoder.make(*models()).decode(
        [PROMPT] * rows, seeds=range(rows), k=K, max_new_tokens=NEW, trace="off", **CONDITIONS
    )
    counts = Counter(map(tuple, texts.tokens))
    return {text: count / rows for text, count in counts.items()}


def read(decoder: Makes, name: str = "") -> Reading:
    """All three alarms."""
    found, (kept, promised), (test, pairs_off) = written(decoder), twin(decoder), _pairs(drawn(decoder))
    off = total_variation(found, wanted())
    return Reading(name or decoder.name, off, kept, promised, test.p_value, found, pairs_off)
