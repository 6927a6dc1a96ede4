"""Proof by enumeration: run the real loop down every branch of chance and add up the probabilities.

A sampled test sees a bias only when it is larger than the noise. Here there is no noise: the code
that decodes, its cache, stop and budget included, runs once for every way in which its draws and
verdicts can fall, so what comes out is its distribution over texts, to float64 rounding. It leaves
out the source of chance itself, which it replaces: `statistics` looks at that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..acceptance import Rule
from ..decoding import start
from ..draft import Drafter, draft_size
from ..loop import Run
from ..models import LanguageModel
from ..randomness import AcceptedLength, Branch, length_probs
from ..sampling.distributions import Sampling, probabilities
from ..sampling.processors import Chain, apply
from ..stopping import Stop
from ..trace import Detail, Round

Text = tuple[int, ...]
Distribution = dict[Text, float]


@dataclass
class Path:
    """One way in which a run can go."""

    tokens: Text = ()  # the new ones
    rounds: list[Round] = field(default_factory=list)
    probability: float = 1.0


class Branches:
    """A batch of scripts: many paths in one run of the loop.

    Draws made for padding (a row that has ended, a draft beyond what the row may use) are no
    choices. They get the last possible token, at no probability: if the loop used them after
    all, its distribution would come out wrong.
    """

    run: Run  # set before the first round; says what is padding

    def __init__(self, scripts: Sequence[Sequence[int]]) -> None:
        self.rows = [Branch(script) for script in scripts]

    def begin_round(self) -> None:
        self.allowed = [draft_size(self.run.drafter, length) for length in self.run.draft_lengths()]
        self.going = [reason is None for reason in self.run.finish_reasons]
        self.drafted, self.verified = 0, False

    def sample(self, probs: Tensor) -> Tensor:
        tokens = []
        weights = (probs / probs.sum(-1, keepdim=True)).tolist()
        for row, p, going, allowed in zip(self.rows, weights, self.going, self.allowed, strict=True):
            wanted = going and (self.verified or self.drafted < allowed)
            tokens.append(row.choose(p) if wanted else max(i for i, each in enumerate(p) if each > 0))
        self.drafted += 1
        return torch.tensor(tokens, device=probs.device)

    def accept(self, pass_probs: Tensor, accepted_length: AcceptedLength) -> tuple[Tensor, Tensor]:
        self.verified = True
        weights = length_probs(pass_probs, accepted_length).tolist()
        accepted = [
            row.choose(each) if going else 0 for row, each, going in zip(self.rows, weights, self.going, strict=True)
        ]
        return torch.tensor(accepted, device=pass_probs.device), torch.full_like(pass_probs, torch.nan)


def paths(
    target: LanguageModel,
    drafter: Drafter | None,
    prompt: Sequence[int],
    *,
    k: int = 4,
    max_new_tokens: int = 4,
    sampling: Sampling | None = None,
    stop: Stop | None = None,
    rule: Rule | None = None,  # a lossy one too, whose distance from the target is then a number
    processors: Chain | None = None,
    rows: int = 1024,
    trace: Detail = "off",
) -> Iterator[Path]:
    """Every path of the real loop from one prompt, depth first. Arguments as for `speculative`.

    A path is a script of choices, and the loop runs again from the prompt for each, with fresh
    caches, so nothing needs an undo. `rows` scripts run as one batch; its rows soon differ in
    length, so the ragged cache is proved along with the rest. With rows=1 there are no neighbours.

    The number of paths grows like vocabulary ** (2 * tokens): a few thousand for vocabulary 3 at
    4 tokens, or 2 at 6, with `TokenRejection`, ten times that with `SampleAndMatch`.
    """
    scripts: list[list[int]] = [[]]
    while scripts:
        branches = Branches(scripts[-rows:])
        del scripts[-rows:]
        branches.run = start(
            target, drafter, [list(prompt)] * len(branches.rows), k=k if drafter else 0, max_new_tokens=max_new_tokens,
            sampling=sampling, stop=stop, processors=processors, rule=rule, exact=False, trace=trace,
            randomness=branches,
        )  # fmt: skip
        made = [Path() for _ in branches.rows]
        while branches.run.unfinished:
            for each in branches.run.round():
                made[each.row].rounds.append(each)
        for path, branch, text in zip(made, branches.rows, branches.run.token_ids, strict=True):
            path.tokens, path.probability = tuple(text[len(prompt) :]), branch.probability
            scripts += branch.untried()
        yield from made


def sequence_distribution(
    target: LanguageModel, drafter: Drafter | None, prompt: Sequence[int], **options: Any
) -> Distribution:
    """What the real loop writes: new tokens -> probability. `drafter` None is naive decoding.

    Arguments and options as for `paths`.

    Raises:
        RuntimeError: the paths do not add up to 1. Alone (rows=1) a row's always do, whatever is
            wrong with the loop; in a batch they fail to when a row's distribution depends on its
            neighbours, so that the second visit to a branch does not find what the first one left.
    """
    total: Distribution = {}
    for path in paths(target, drafter, prompt, **options):
        total[path.tokens] = total.get(path.tokens, 0.0) + path.probability
    if abs(sum(total.values()) - 1) > 1e-9:
        raise RuntimeError(
            f"the paths add up to {sum(total.values()):.9f}, not 1: the rows of a batch influence each other. "
            "Enumerate with rows=1 to see what one row alone writes."
        )
    return total


@torch.inference_mode()
def target_distribution(
    target: LanguageModel,
    prompt: Sequence[int],
    *,
    max_new_tokens: int = 4,
    sampling: Sampling | None = None,
    stop: Stop | None = None,
    processors: Chain = (),
) -> Distribution:
    """What the target alone would write: new tokens -> probability.

    Shares nothing with the loop but `probabilities`: each prefix goes through one forward with a
    fresh cache, and the chain rule multiplies. So no mistake of the loop can be in both.
    """
    stop = Stop(target.end_tokens) if stop is None else stop.of(target.end_tokens)
    unfinished: list[tuple[Text, float]] = [((), 1.0)]
    total: Distribution = {}
    while unfinished:
        new, probability = unfinished.pop()
        text = [*prompt, *new]
        tokens = torch.tensor([text], device=target.device)  # [1, length]
        logits = target.forward(tokens, target.new_cache(1, len(text)), last_only=True)[0, -1]  # [vocab]
        scores = apply(processors, tokens[0], logits.double())  # [vocab]
        for token, p_target in enumerate(probabilities(scores, sampling or Sampling()).tolist()):
            longer = (*new, token)
            if p_target == 0:
                continue
            if len(longer) == max_new_tokens or _stopped(longer, stop, target):
                total[longer] = probability * p_target
            else:
                unfinished.append((longer, probability * p_target))
    return total


def _stopped(new: Text, stop: Stop, target: LanguageModel) -> bool:
    strings = stop.strings or ()
    return new[-1] in (stop.token_ids or ()) or any(string in target.tokenizer.decode(list(new)) for string in strings)


def total_variation(one: Mapping[Text, float], other: Mapping[Text, float]) -> float:
    """Half the sum of absolute differences: the largest difference in the probability of any event."""
    return sum(abs(one.get(text, 0.0) - other.get(text, 0.0)) for text in one.keys() | other.keys()) / 2


def largest_difference(one: Mapping[Text, float], other: Mapping[Text, float]) -> float:
    """The largest difference in the probability of one text."""
    return max(abs(one.get(text, 0.0) - other.get(text, 0.0)) for text in one.keys() | other.keys())


def expectation(every: Iterable[Path], value: Callable[[Path], float]) -> float:
    """Mean of a quantity over all paths, for instance `lambda path: len(path.rounds)`."""
    return sum(path.probability * value(path) for path in every)
