"""Every bug is caught by the test that its label names, and the tests stay silent without a bug."""

import itertools
import re
from datetime import date
from fractions import Fraction as F
from functools import cache
from typing import get_args

import pytest
import torch

from specdec_lite import ModelDrafter, Sampling, Stop, TableModel
from specdec_lite.acceptance import SampleAndMatch
from specdec_lite.sampling.distributions import probabilities
from specdec_lite.sampling.processors import apply
from specdec_lite.teaching import check
from specdec_lite.teaching.checks.bug_museum import in_turn
from specdec_lite.teaching.museum import (
    MUSEUM,
    STORIES,
    DraftWith,
    Exhibit,
    FavouriteSession,
    Ledger,
    Setup,
    TriedInTurn,
    alarms,
    frequency_penalty,
    listing,
    mystery,
    story_table,
)
from specdec_lite.teaching.museum.exhibits import VERSIONS, Relation, source
from specdec_lite.teaching.museum.mystery import AMONG, CASES, opened
from specdec_lite.theory.exact import largest_difference, target_distribution
from specdec_lite.theory.statistics import compare

PROMPT = [0, 1]
FILTERED = Sampling(temperature=0.8, top_k=2)
NAMED = {each.name: each for each in MUSEUM}
exhibits = pytest.mark.parametrize("exhibit", MUSEUM, ids=lambda each: each.name)


@cache
def reading(exhibit: Exhibit) -> alarms.Reading:
    return alarms.read(exhibit)


def test_the_collection() -> None:
    """Eleven bugs and one twice, three that only look like bugs, and the control."""
    assert len(NAMED) == len(MUSEUM) == 16
    kinds = [each.kind for each in MUSEUM]
    assert (kinds.count("biased"), kinds.count("exact but slow"), kinds.count("exact")) == (10, 2, 4)
    assert all((each.caught_by is None) == (each.kind == "exact") for each in MUSEUM)


@exhibits
def test_caught_by_the_test_it_names(exhibit: Exhibit) -> None:
    """And the right class of tests stays silent: slow is not biased, and exact rings nothing."""
    rings = reading(exhibit).rings
    if exhibit.caught_by:
        assert rings[exhibit.caught_by]
    if exhibit.kind == "exact":
        assert not any(rings.values())
    if exhibit.kind == "exact but slow":
        assert rings == {"enumeration": False, "twin": True, "dice": False}


@exhibits
def test_enumeration_rings_for_bias_alone(exhibit: Exhibit) -> None:
    """Slow is not biased: the same test that convicts one class acquits the other."""
    biased = exhibit.kind == "biased" and exhibit.caught_by != "dice"  # enumeration replaces the numbers
    off = reading(exhibit).off
    assert off > 0.02 if biased else off < 1e-12


@exhibits
def test_conditions_other_than_those_of_the_alarms(exhibit: Exhibit) -> None:
    """Without a stop and without a penalty; the two bugs that need one are then silent."""
    target, draft = TableModel(3, seed=1), TableModel(3, seed=2)
    found = exhibit.make(target, draft).enumerate(PROMPT, k=2, max_new_tokens=4, sampling=FILTERED)
    off = largest_difference(found, target_distribution(target, PROMPT, max_new_tokens=4, sampling=FILTERED))
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)
    needs = exhibit.name in ("end of text inside a block", "penalty remembers rejected tokens")
    biased = exhibit.kind == "biased" and exhibit.caught_by != "dice" and not needs
    assert off > 1e-3 if biased else off < 1e-12


def test_a_healthy_twin_is_kept_always() -> None:
    assert reading(NAMED["nothing wrong"]).kept == 1.0


def test_a_rule_that_keeps_little_on_purpose_keeps_what_it_promises() -> None:
    for name in ("sample and match", "candidates tried in turn"):
        found = reading(NAMED[name])
        assert found.promised < 0.8
        assert abs(found.kept - found.promised) < alarms.MISSING


def test_dice_state_their_power() -> None:
    """Any bias with a total variation of 9% rings at a level of one in a million, 999 times in 1,000."""
    test = alarms.dice(MUSEUM[0])
    assert test.detectable_bias(alpha=alarms.LEVEL, power=0.999) < 0.09


def test_dice_hear_every_bias_but_the_small_one() -> None:
    """A bonus token is the third of a round at K = 2, a penalty needs a penalty: whole texts, under all conditions."""
    deaf = {each.name for each in MUSEUM if each.kind == "biased" and not reading(each).rings["dice"]}
    assert deaf == {"p_draft before top-k"}
    assert reading(NAMED["p_draft before top-k"]).off < alarms.dice(MUSEUM[0]).detectable_bias(alarms.LEVEL, 0.5)


def test_one_uniform_hides_from_single_tokens() -> None:
    """Its first tokens have the right frequencies: without whole texts nobody would notice."""
    exhibit = next(each for each in MUSEUM if each.caught_by == "dice")
    claimed = target_distribution(alarms.models()[0], alarms.PROMPT, max_new_tokens=1, **alarms.CONDITIONS)
    assert compare((tuple(text[:1]) for text in alarms.throw(exhibit)), claimed).p_value > 1e-3


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


def test_a_story_is_told_once_and_belongs_to_an_exhibit() -> None:
    for each in STORIES:
        assert each.exhibit in NAMED
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", each.project)
        assert each.status in ("open", "closed", "merged")
        assert each.relation in get_args(Relation)
        assert date.fromisoformat(each.read) <= date.today()
        assert len(each.said.split()) >= 3
        assert f"[{each.link[1:]}" in story_table()
    assert len({(each.project, each.number) for each in STORIES}) == len(STORIES)


# Candidates tried in turn


def test_candidates_in_turn_write_the_target_whatever_the_list() -> None:
    """Every list over four tokens, the empty one and the whole one included, in fractions."""
    p_target = [F(1, 10), F(2, 10), F(3, 10), F(4, 10)]
    for length in range(5):
        for candidates in itertools.permutations(range(4), length):
            written, reached = [F(0)] * 4, F(1)
            for token, chance in zip(candidates, in_turn(p_target, candidates), strict=True):
                written[token] += reached * chance
                reached *= 1 - chance
            rest = [0 if x in candidates else p for x, p in enumerate(p_target)]
            if sum(rest):
                written = [w + reached * p / sum(rest) for w, p in zip(written, rest, strict=True)]
            assert written == p_target


@pytest.mark.parametrize("candidates", [1, 2, 3, 4])
def test_the_real_loop_tries_any_number_of_candidates_exactly(candidates: int) -> None:
    target, draft = TableModel(3, seed=1), TableModel(3, seed=2)
    for drafter in (DraftWith(draft, FavouriteSession), ModelDrafter(draft)):  # a list of favourites, or of draws
        found = Setup(target, drafter, TriedInTurn(candidates)).enumerate(PROMPT, k=2, max_new_tokens=3)
        assert largest_difference(found, target_distribution(target, PROMPT, max_new_tokens=3)) < 1e-12


def test_after_a_refusal_candidates_and_a_match_write_the_same() -> None:
    p = torch.rand(2, 50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(-1)
    tokens = p[1].argmax(-1)
    one, other = (rule.recovered_probs(p[0], p[1], tokens) for rule in (TriedInTurn(3), SampleAndMatch()))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-14)


# The penalty's book


def test_a_ledger_without_rejections_changes_nothing_and_begins_anew_with_a_new_text() -> None:
    scores, ledger = torch.zeros(1, 4, dtype=torch.float64), Ledger(frequency_penalty, start=2)
    text = torch.tensor([[0, 1, 2, 3]])
    for n in (2, 3, 4):
        assert torch.equal(ledger(text[:, :n], scores), frequency_penalty(text[:, :n], scores))
    other = torch.tensor([[0, 1, 3, 3]])  # token 2 was rejected, and its ghost stays
    assert not torch.equal(ledger(other, scores), frequency_penalty(other, scores))
    ledger(other[:, :2], scores)
    assert torch.equal(ledger(other, scores), frequency_penalty(other, scores))


def test_the_healthy_decoder_is_exact_under_the_penalty_and_the_penalty_matters() -> None:
    target, _ = alarms.models()
    conditions = alarms.CONDITIONS | dict(processors=[])
    without = target_distribution(target, alarms.PROMPT, max_new_tokens=alarms.NEW, **conditions)
    assert largest_difference(without, alarms.wanted()) > 0.1
    ids = torch.tensor([0, 1, 1])
    assert apply([frequency_penalty], ids, torch.zeros(3)).tolist() == pytest.approx([-0.7, -1.4, 0.0])


def test_the_end_of_a_text_is_kept_and_nothing_behind_it() -> None:
    target, draft = alarms.models()
    prompts, seeds = [alarms.PROMPT] * 200, range(200)
    run = dict(seeds=seeds, k=3, max_new_tokens=12, stop=Stop([alarms.END]))
    for name in ("nothing wrong", "end of text inside a block"):
        texts = NAMED[name].make(target, draft).decode(prompts, **run).tokens
        goes_on = any(alarms.END in text[:-1] for text in texts)
        assert goes_on == (name != "nothing wrong")


# Decoders without a label


def test_a_mystery_is_always_the_same_and_does_not_tell() -> None:
    assert mystery(3).make is mystery(3).make
    told = repr(mystery(3)) + repr(mystery(3).make(*alarms.models())) + mystery(3).name
    assert not any(name in told for name in NAMED)
    assert "Slack" not in told
    assert repr(mystery(3).make(*alarms.models())) == "Setup()"
    assert {opened(n) for n in range(200)} == set(MUSEUM[:AMONG])  # those that came later change no number
    for wrong in (-1, 1.5, "3"):
        with pytest.raises(ValueError, match="a whole number of at least 0"):
            mystery(wrong)


def test_the_mysteries_of_the_exercise_need_every_alarm() -> None:
    cases = [opened(number) for number in CASES]
    assert {each.kind for each in cases} == {each.kind for each in MUSEUM}
    assert {each.caught_by for each in cases} == {"enumeration", "twin", "dice", None}
    assert any(each.kind == "exact" and reading(each).promised < 0.9 for each in cases)


def test_the_worked_triage_tells_every_exhibit() -> None:
    from test_checks import solutions

    solve = solutions()["triage"]
    for exhibit in MUSEUM:
        found = reading(exhibit)
        assert solve(found.off, found.kept, found.promised, found.p_value) == exhibit.kind


# Listings


def test_a_listing_has_numbers_and_one_wrong_line() -> None:
    for version, (number, line) in VERSIONS.items():
        shown = listing(version).splitlines()
        assert [int(each.split()[0]) for each in shown] == list(range(1, 11))
        changed = [i for i, (a, b) in enumerate(zip(shown, listing("D").splitlines(), strict=True), 1) if a != b]
        assert changed == ([number] if number else [])
        assert not number or line in shown[number - 1]
    with pytest.raises(ValueError, match="version must be one of"):
        listing("Z")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_listing_that_is_right_is_a_round_and_the_others_are_not(version: str) -> None:
    """On the cases of notebook 04, and on one in which two positions need two uniforms."""

    def pick(probs: list[F], uniform: F) -> int:
        return next(x for x in range(len(probs)) if uniform < sum(probs[: x + 1]))

    names = {"pick": pick}
    exec(source(version), names)
    wide, narrow = [F(1, 2), F(1, 2)], [F(1, 4), F(3, 4)]
    two = names["round"]([wide, narrow, wide], [narrow, wide], [1, 0], [F(1, 4), F(3, 4)], F(1, 2))
    right = check.speculative_round.judge(names["round"]).passed and two == [1, 1]
    assert right == (VERSIONS[version][0] == 0)
