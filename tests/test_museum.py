"""Every bug is caught by the test that its label names, and the tests stay silent without a bug."""

from collections.abc import Callable
from functools import cache

import pytest
import torch

from specdec_lite import Sampling, TableModel
from specdec_lite.distributions import probabilities
from specdec_lite.teaching.museum import MUSEUM, Exhibit
from specdec_lite.theory.exact import largest_difference, target_distribution
from specdec_lite.theory.statistics import ChiSquare, compare

PROMPT = [0, 1]
ROWS = 6_000
FILTERED = Sampling(temperature=0.8, top_k=2)  # some bugs need a filter, one needs two drafts
exhibits = pytest.mark.parametrize("exhibit", MUSEUM, ids=lambda each: each.name)


def apart(exhibit: Exhibit) -> float:
    """Largest difference between what the exhibit writes and the target, over all texts."""
    target, draft = TableModel(3, seed=1), TableModel(3, seed=2)
    setup = exhibit.make(target, draft)
    found = setup.enumerate(PROMPT, k=2, max_new_tokens=4, sampling=FILTERED)
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)
    return largest_difference(found, target_distribution(target, PROMPT, max_new_tokens=4, sampling=FILTERED))


def twin_acceptance(exhibit: Exhibit) -> float:
    """Accepted over judged when the draft is the target. A batch of unequal prompts, since those rewind."""
    target = TableModel(8, context=48, seed=1)
    made = exhibit.make(target, target).decode([[1, 2, 3, 4, 5], [6]], seeds=[0, 1], k=3, max_new_tokens=24)
    return made.trace.accepted_per_judged


@cache
def first_tokens(exhibit: Exhibit) -> list[list[int]]:
    """What 6,000 seeded rows begin with, drafted two at a time."""
    target, draft = TableModel(3, seed=1), TableModel(3, seed=2)
    prompts = [PROMPT] * ROWS
    return exhibit.make(target, draft).decode(prompts, seeds=range(ROWS), k=2, max_new_tokens=3, trace="off").tokens


def frequencies(exhibit: Exhibit, n: int) -> ChiSquare:
    """The first n tokens of the rows against the target."""
    claimed = target_distribution(TableModel(3, seed=1), PROMPT, max_new_tokens=n)
    return compare((tuple(row[:n]) for row in first_tokens(exhibit)), claimed)


RINGS: dict[str, Callable[[Exhibit], bool]] = {
    "enumeration": lambda exhibit: apart(exhibit) > 1e-3,
    "twin": lambda exhibit: twin_acceptance(exhibit) < 0.95,
    "pairs": lambda exhibit: frequencies(exhibit, 2).p_value < 1e-6,
}


@pytest.mark.parametrize("exhibit", [each for each in MUSEUM if each.caught_by], ids=lambda each: each.name)
def test_caught_by_the_test_it_names(exhibit: Exhibit) -> None:
    assert RINGS[exhibit.caught_by](exhibit)


@exhibits
def test_enumeration_rings_for_bias_alone(exhibit: Exhibit) -> None:
    """Slow is not biased: the same test that convicts one class acquits the other."""
    if exhibit.kind != "biased" or exhibit.caught_by == "pairs":  # enumeration replaces the numbers
        assert apart(exhibit) < 1e-12


def test_the_control_rings_nothing() -> None:
    healthy = MUSEUM[0]
    assert healthy.kind == "exact" and healthy.caught_by is None
    assert twin_acceptance(healthy) == 1.0
    assert not any(rings(healthy) for rings in RINGS.values())


def test_pairs_state_their_power() -> None:
    """Any bias with a total variation of 6.5% rings at a level of one in a million, 999 times in 1,000."""
    assert frequencies(MUSEUM[0], 2).detectable_bias(alpha=1e-6, power=0.999) < 0.065


def test_one_uniform_hides_from_single_tokens() -> None:
    """Its first tokens have the right frequencies: without pairs nobody would notice."""
    exhibit = next(each for each in MUSEUM if each.caught_by == "pairs")
    assert frequencies(exhibit, 1).p_value > 1e-3


@exhibits
def test_p_draft_is_that_of_an_uncached_draft(exhibit: Exhibit) -> None:
    """Slow exhibits, and no others, guess from another text than the one that is there."""
    target, draft = TableModel(5, context=48, seed=1), TableModel(5, context=48, seed=2)
    made = exhibit.make(target, draft).decode([PROMPT], seeds=[3], k=3, max_new_tokens=24, trace="full")
    text, worst = torch.tensor([PROMPT + made.tokens[0]]), 0.0
    truth = probabilities(draft.forward(text, draft.new_cache(1, text.shape[1])), Sampling())[0]  # [length, vocab]
    for each in made.trace.rounds:
        for i, p_draft in enumerate(each.full_draft[: each.judged]):  # up to there the text holds what was drafted
            worst = max(
                worst, (torch.tensor(p_draft, dtype=torch.float64) - truth[each.position - 1 + i]).abs().max().item()
            )
    assert worst > 0.01 if exhibit.kind == "exact but slow" else worst < 1e-12
