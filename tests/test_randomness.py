"""Chance: the inverse of the cumulative distribution, seeded streams, and the enumerating twin."""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specdec_lite.acceptance import BlockVerification, TokenRejection
from specdec_lite.randomness import Branch, SeededStreams, inverse_cdf, length_probs

f64 = partial(torch.tensor, dtype=torch.float64)

PREFIX = TokenRejection().accepted_length
LARGEST = 1 - 2**-53  # the largest number that a stream can give
weights = st.lists(st.sampled_from([0.0, 0.0, 1e-300, 1e-17, 1e-8, 0.1, 1 / 3, 1.0]), min_size=1, max_size=12)
uniforms = st.one_of(st.sampled_from([0.0, 2**-53, 0.5, LARGEST]), st.floats(0, LARGEST))


@given(weights.filter(any), uniforms)
def test_a_token_of_probability_zero_is_never_drawn(row: list[float], uniform: float) -> None:
    for probs in (f64([row]), f64([row]) / sum(row)):
        token = inverse_cdf(probs, f64([uniform])).item()
        assert probs[0, token] > 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8).filter(lambda row: sum(row) > 1e-3))
def test_every_total_is_reached_at_the_largest_uniform(row: list[float]) -> None:
    """A total just below or above one must not push the draw off the end or onto trailing zeros."""
    probs = f64([[*row, 0.0, 0.0]])
    token = inverse_cdf(probs, f64([LARGEST])).item()
    assert probs[0, token] > 0


def test_the_comparison_must_be_strict() -> None:
    """The control: with `>=` a leading zero is drawn at 0."""
    probs, zero = f64([[0.0, 0.5, 0.5]]), torch.zeros(1).double()
    assert inverse_cdf(probs, zero).tolist() == [1]
    assert torch.searchsorted(probs.cumsum(-1), zero[:, None], right=False).tolist() == [[0]]


def test_each_token_owns_a_share_of_the_line_as_long_as_its_probability() -> None:
    probs = f64([0.1, 0.0, 0.25, 0.4, 0.25])
    grid = (torch.arange(4000).double() + 0.5) / 4000
    tokens = inverse_cdf(probs.expand(4000, 5), grid)
    assert torch.bincount(tokens, minlength=5).tolist() == [400, 0, 1000, 1600, 1000]


def test_numbers_that_are_none_give_some_token_and_no_index_error() -> None:
    assert inverse_cdf(torch.full((1, 3), torch.nan).double(), f64([0.5])).item() in range(3)


def test_a_round_owns_the_first_numbers_of_the_stream_keyed_by_seed_and_round() -> None:
    seeds, k = [0, 7, 2**64 - 1], 3
    streams = SeededStreams(seeds, k)
    for round_ in range(40):  # across several draws ahead
        streams.begin_round()
        for row, seed in enumerate(seeds):
            key = np.array([seed, round_], dtype=np.uint64)
            own = np.random.Generator(np.random.Philox(key=key)).random(2 * k + 1).tolist()
            assert streams.last[row].item() == own[0]
            assert streams.to_draft[row].tolist() == own[1::2]
            assert streams.to_accept[row].tolist() == own[2::2]


def draws(seeds: list[int], k: int, rounds: int = 3) -> list[tuple[list, list, list]]:
    """Each round's numbers: [batch, k] for drafting, [batch, k] for accepting, [batch] for the last token."""
    streams, seen = SeededStreams(seeds, k), []
    for _ in range(rounds):
        streams.begin_round()
        seen.append((streams.to_draft.tolist(), streams.to_accept.tolist(), streams.last.tolist()))
    return seen


def test_a_rows_numbers_do_not_depend_on_the_batch() -> None:
    alone, together = draws([7], 4), draws([3, 7, 11], 4)
    for one, many in zip(alone, together, strict=True):
        assert [part[0] for part in one] == [part[1] for part in many]
    assert together[0][0][0] != together[0][0][1]


def test_a_rows_numbers_do_not_depend_on_k() -> None:
    for small, large in zip(draws([7], 2), draws([7], 16), strict=True):
        assert small[0][0] == large[0][0][:2]
        assert small[1][0] == large[1][0][:2]
        assert small[2] == large[2]
    assert draws([7], 0)[1][2] == draws([7], 5)[1][2]  # naive decoding's only number


def test_rounds_seeds_and_positions_all_have_their_own_numbers() -> None:
    seen = [x for seed in (0, 1, 2**63, 2**63 + 1, 2**64 - 1) for one in draws([seed], 5) for x in flat(one)]
    assert len(seen) == 5 * 3 * 11
    assert len(set(seen)) == len(seen)
    assert all(0 <= x < 1 for x in seen)


def flat(one: tuple[list, list, list]) -> list[float]:
    return [*one[0][0], *one[1][0], *one[2]]


def test_the_same_seed_gives_the_same_numbers_again() -> None:
    assert draws([5, 6], 3) == draws([5, 6], 3)
    assert draws([5, 6], 3) != draws([5, 7], 3)


def test_how_many_tokens_were_drafted_changes_nothing_after() -> None:
    probs = torch.ones(1, 1000).double()
    seen = []
    for drafted in (0, 1, 3):
        streams = SeededStreams([9], k=3)
        streams.begin_round()
        for _ in range(drafted):
            streams.sample(probs)
        _, uniform = streams.accept(torch.zeros(1, drafted).double(), PREFIX)
        assert uniform.tolist() == streams.to_accept[:, :drafted].tolist()
        last = streams.sample(probs).item()
        streams.begin_round()
        seen.append((last, streams.sample(probs).item()))
    assert len(set(seen)) == 1


def test_acceptance_stops_at_the_first_failure() -> None:
    streams = SeededStreams([0, 1, 2, 3], k=3)
    streams.begin_round()
    chance = f64([[1, 1, 1], [1, 0, 1], [0, 1, 1], [0, 0, 0]])
    accepted, uniform = streams.accept(chance, PREFIX)
    assert accepted.tolist() == [3, 1, 0, 0]
    assert torch.equal(uniform, streams.to_accept)


def test_chances_of_zero_and_one_are_certain_at_the_extreme_numbers() -> None:
    streams = SeededStreams([0], k=2)
    streams.begin_round()
    for number in (0.0, LARGEST):
        streams.to_accept = f64([[number, number]])
        assert streams.accept(torch.ones(1, 2).double(), PREFIX)[0].tolist() == [2]
        assert streams.accept(torch.zeros(1, 2).double(), PREFIX)[0].tolist() == [0]


def test_global_random_states_are_left_alone() -> None:
    before = torch.random.get_rng_state(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002
    draws([1, 2, 3], 8)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1:] == (repr(np.random.get_state()), random.getstate())  # noqa: NPY002


def test_numbers_are_spread_evenly() -> None:
    """Sixteen bins of 22,000 numbers. A chi-square of 15 degrees exceeds 44.3 once in 10,000."""
    streams, seen = SeededStreams(range(100), k=5), []
    for _ in range(20):
        streams.begin_round()
        seen += [streams.to_draft.flatten(), streams.to_accept.flatten(), streams.last]
    counts = torch.bincount((torch.cat(seen) * 16).long(), minlength=16).double()
    expected = counts.sum() / 16
    assert ((counts - expected) ** 2 / expected).sum() < 44.3


def explore(play) -> list[tuple[object, float]]:
    """Every path of a game of chance, with its probability."""
    scripts, found = [[]], []
    while scripts:
        branch = Branch(scripts.pop())
        outcome = play(branch)
        scripts += branch.untried()
        found.append((outcome, branch.probability))
    return found


def test_enumeration_visits_every_outcome_once_with_its_probability() -> None:
    probs, chance = f64([[0.5, 0.0, 0.3, 0.2]]), f64([[0.9, 0.4, 0.0]])

    def play(branch: Branch) -> tuple[int, int]:
        return branch.sample(probs).item(), branch.accept(chance, PREFIX)[0].item()

    found = explore(play)
    assert len(found) == len({outcome for outcome, _ in found}) == 3 * 3
    first, verdicts = {0: 0.5, 2: 0.3, 3: 0.2}, {0: 0.1, 1: 0.9 * 0.6, 2: 0.9 * 0.4}
    for (token, accepted), probability in found:
        assert probability == pytest.approx(first[token] * verdicts[accepted], abs=1e-15)


def test_a_rule_decides_which_length_a_way_to_pass_belongs_to() -> None:
    """Up to the first failure, or up to the last pass; a token without a chance has none in either."""
    pass_probs = f64([[0.5, 0.25, 0.0], [1.0, 0.5, 0.5]])
    prefix, last = (length_probs(pass_probs, rule.accepted_length) for rule in (TokenRejection(), BlockVerification()))
    assert torch.allclose(prefix, f64([[0.5, 0.375, 0.125, 0], [0, 0.5, 0.25, 0.25]]), rtol=0, atol=1e-16)
    assert torch.allclose(last, f64([[0.375, 0.375, 0.25, 0], [0, 0.25, 0.25, 0.5]]), rtol=0, atol=1e-16)
    assert length_probs(torch.ones(2, 0).double(), PREFIX).tolist() == [[1.0], [1.0]]
