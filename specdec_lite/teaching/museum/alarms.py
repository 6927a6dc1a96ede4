"""Three tests that between them catch every exhibit, and the conditions under which they do.

- `enumeration`: every path of the real loop against the target alone;
- `twin`: a draft identical to the target must be kept as often as the rule itself promises;
- `dice`: frequencies of whole short texts, drawn with the decoder's own dice, against the target, by chi-square.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from ...models import LanguageModel, TableModel
from ...sampling.distributions import Sampling
from ...stopping import Stop
from ...theory.exact import Distribution, target_distribution, total_variation
from ...theory.statistics import ChiSquare, compare
from ...trace import Trace
from .setup import Alarm, Setup
from .surroundings import frequency_penalty

VOCAB, END = 3, 0  # the end is also where a text begins, as in many models
PROMPT = [END]
K = 2
NEW = K + 2  # a whole round, and what follows a bonus token: texts of two tokens would never see either
# Some bugs need a filter, one an end, one a penalty: a decoder is tested with all that its users switch on.
CONDITIONS: dict[str, Any] = dict(sampling=Sampling(top_k=2), stop=Stop([END]), processors=[frequency_penalty])
ROWS = 3_000
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
    p_value: float  # of the dice
    written: Distribution = field(default_factory=dict, repr=False)  # by enumeration
    thrown: Distribution = field(default_factory=dict, repr=False)  # shares of the texts that its dice drew
    dice_off: float = 0.0  # total variation of those shares, luck included

    @property
    def rings(self) -> dict[Alarm, bool]:
        """Which alarms ring."""
        return {
            "enumeration": self.off > EXACT,
            "twin": self.kept < self.promised - MISSING,
            "dice": self.p_value < LEVEL,
        }

    @property
    def by_dice_alone(self) -> bool:
        """Enumeration draws it as right, and its own dice convict it."""
        return self.rings["dice"] and not self.rings["enumeration"]


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
    """Mean probability with which the judged drafts pass, had p_draft been p_target."""
    passes: list[float] = []
    for each in trace.rounds:
        if each.judged:
            p_target = torch.tensor(
                [each.full_target[: each.judged + 1]], dtype=torch.float64
            )  # [1, judged + 1, vocab]
            tokens = torch.tensor([each.drafted[: each.judged]])  # [1, judged]
            passes += setup.rule.pass_probs(p_target, p_target[:, :-1], tokens, None)[0].tolist()
    return sum(passes) / len(passes)


def throw(decoder: Makes) -> list[list[int]]:
    """3,000 whole texts under `CONDITIONS`, one seed each."""
    setup = decoder.make(*models())
    return setup.decode([PROMPT] * ROWS, seeds=range(ROWS), k=K, max_new_tokens=NEW, trace="off", **CONDITIONS).tokens


def dice(decoder: Makes) -> ChiSquare:
    """Those texts against the target. `detectable_bias` of the result says what this would have heard."""
    return compare(map(tuple, throw(decoder)), wanted())


def read(decoder: Makes, name: str = "") -> Reading:
    """All three alarms."""
    claimed, found, (kept, promised), texts = wanted(), written(decoder), twin(decoder), throw(decoder)
    shares = {text: count / ROWS for text, count in Counter(map(tuple, texts)).items()}
    p_value = compare(map(tuple, texts), claimed).p_value
    off, dice_off = (total_variation(each, claimed) for each in (found, shares))
    return Reading(name or decoder.name, off, kept, promised, p_value, found, shares, dice_off)
