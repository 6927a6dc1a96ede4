"""Drafting as many tokens as the past suggests is exact, by enumeration; taking drafts back is not, and is caught.

The rule sees a row's earlier verdicts and nothing else, and each row its own.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from tiny import PROMPT, pair

import specdec_lite as sd
from specdec_lite.draft import Draft, Texts
from specdec_lite.drafters.adaptive import AdaptiveDrafter, BestForPast, Past, Verdict
from specdec_lite.drafters.model import ModelDraftSession
from specdec_lite.kv_cache import KVCache
from specdec_lite.models import LanguageModel
from specdec_lite.theory import exact
from specdec_lite.theory.formulas import best_k

TARGET, DRAFT = sd.TableModel(3, seed=1), sd.TableModel(3, seed=2)


def one_more_after_success(past: Past) -> int:
    """From 1, one more after a round that kept everything, one fewer after another."""
    k = 1
    for verdict in past:
        k = min(3, k + 1) if verdict.accepted == verdict.drafted else max(1, k - 1)
    return k


RULES = {
    "one more after success": one_more_after_success,
    "none after a failure": lambda past: 0 if past and past[-1].accepted < past[-1].drafted else 3,
    "never": lambda past: 0,
    "estimate": BestForPast(draft_cost=0.2, weight=1, memory=2),
    "greedy for k": lambda past: 99,
    "below nothing": lambda past: -1,
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_exact_whatever_the_rule_makes_of_the_past(rule: Any) -> None:
    """The real loop, with every rule, down every branch.

    One row at a time: in a batch a row draws as often as its neighbours want, so that the enumeration would
    find other choices on a second visit. That a batch writes what its rows write alone is tested below.
    """
    drafter = AdaptiveDrafter(sd.ModelDrafter(DRAFT), rule)
    wanted = exact.target_distribution(TARGET, [0, 1], max_new_tokens=3)
    made = exact.sequence_distribution(TARGET, drafter, [0, 1], k=3, max_new_tokens=3, rows=1)
    assert exact.largest_difference(made, wanted) < 1e-12


@pytest.mark.parametrize("rule", [sd.SampleAndMatch(), sd.TokenRejection()], ids=["match", "rejection"])
def test_exact_around_prompt_lookup_and_with_either_verdict(rule: Any) -> None:
    drafter = AdaptiveDrafter(sd.PromptLookupDrafter(), one_more_after_success)
    wanted = exact.target_distribution(TARGET, [0, 1, 0], max_new_tokens=4)
    made = exact.sequence_distribution(TARGET, drafter, [0, 1, 0], k=3, max_new_tokens=4, rule=rule, rows=1)
    assert exact.largest_difference(made, wanted) < 1e-12


class TakesBack(sd.ModelDrafter):
    """The negative control: looks at what it drew, and hands in only what comes before the first unlikely token."""

    def open(self, texts: Texts, target: LanguageModel, cache: KVCache) -> ModelDraftSession:
        session = super().open(texts, target, cache)
        propose = session.propose

        def shorter(*given: Any) -> Draft:
            draft = propose(*given)
            seen = draft.probs.gather(-1, draft.tokens.unsqueeze(-1)).squeeze(-1)  # [batch, k]
            return Draft(draft.tokens, draft.probs, (seen > 1 / 3).cumprod(-1).sum(-1).tolist())

        session.propose = shorter
        return session


def test_a_drafter_that_takes_back_what_it_drew_is_caught() -> None:
    wanted = exact.target_distribution(TARGET, [0, 1], max_new_tokens=3)
    for k in (1, 2):
        made = exact.sequence_distribution(TARGET, TakesBack(DRAFT), [0, 1], k=k, max_new_tokens=3)
        assert exact.total_variation(made, wanted) > 0.01


# What the rule sees


class Spy:
    """Drafts in turn 1, 2, 3 tokens, and remembers what it was shown."""

    def __init__(self) -> None:
        self.seen: list[list[Verdict]] = []

    def __call__(self, past: Past) -> int:
        self.seen.append(list(past))
        return 1 + len(past) % 3


def test_the_rule_sees_the_verdicts_of_the_trace() -> None:
    target, draft = pair(noise=0.3)
    spy = Spy()
    run = dict(k=4, max_new_tokens=40, stop=sd.Stop(), seed=3)
    made = sd.speculative(target, AdaptiveDrafter(sd.ModelDrafter(draft), spy), PROMPT, **run)
    past = [Verdict(len(each.drafted), each.accepted) for each in made.trace.rounds]
    assert {each.drafted for each in past} == {1, 2, 3}
    assert spy.seen == [past[:i] for i in range(len(spy.seen))]
    assert len(spy.seen) >= len(past) - 1  # with one token left to write nothing is drafted, and nobody asks
    assert [each.judged for each in past] == [each.judged for each in made.trace.rounds]


def test_every_row_has_a_past_of_its_own() -> None:
    """A batch writes what its rows write alone, though they draft different numbers and end at different times."""
    target, draft = pair(noise=0.3)
    drafter = AdaptiveDrafter(sd.ModelDrafter(draft), BestForPast(draft_cost=0.1, weight=1, memory=4))
    run: dict[str, Any] = dict(k=5, max_new_tokens=30, stop=sd.Stop([3]))
    prompts = [PROMPT, PROMPT[:2], PROMPT[::-1], PROMPT + PROMPT]
    batch = sd.speculative(target, drafter, prompts, seed=0, **run)
    counts = set()
    for row, prompt in enumerate(prompts):
        alone = sd.speculative(target, drafter, prompt, seed=row, **run)
        assert alone.tokens == batch.tokens[row]
        mine = [each for each in batch.trace.rounds if each.row == row]
        assert [len(each.drafted) for each in mine] == [len(each.drafted) for each in alone.trace.rounds]
        counts |= {len(each.drafted) for each in mine}
    assert len(counts) > 2


def test_no_state_stays_in_the_drafter() -> None:
    target, draft = pair(noise=0.3)
    drafter = AdaptiveDrafter(sd.ModelDrafter(draft), BestForPast(draft_cost=0.1))
    run = dict(k=5, max_new_tokens=24, stop=sd.Stop())
    first = sd.speculative(target, drafter, PROMPT, seed=1, **run)
    sd.speculative(target, drafter, PROMPT[:2], seed=2, **run)
    again = sd.speculative(target, drafter, PROMPT, seed=1, **run)
    assert first.trace.rounds[-1].drafted == again.trace.rounds[-1].drafted
    assert first.tokens == again.tokens


def test_a_rule_that_always_wants_k_changes_nothing() -> None:
    target, draft = pair(noise=0.3)
    run = dict(k=3, max_new_tokens=30, stop=sd.Stop(), seed=5)
    plain = sd.speculative(target, sd.ModelDrafter(draft), PROMPT, **run)
    wrapped = sd.speculative(target, AdaptiveDrafter(sd.ModelDrafter(draft), lambda past: 3), PROMPT, **run)
    assert plain.tokens == wrapped.tokens
    assert [each.drafted for each in plain.trace.rounds] == [each.drafted for each in wrapped.trace.rounds]


def test_nothing_is_drafted_where_the_rule_wants_nothing() -> None:
    target, draft = pair()
    drafter = AdaptiveDrafter(sd.ModelDrafter(draft), lambda past: 0)
    made = sd.speculative(target, drafter, PROMPT, k=4, max_new_tokens=12, stop=sd.Stop(), seed=4)
    assert all(each.kind == "sampled" for each in made.trace.rounds)
    alone = sd.autoregressive(target, PROMPT, max_new_tokens=12, stop=sd.Stop(), seed=4)
    assert made.tokens == alone.tokens


def test_a_draft_model_whose_context_ends_is_not_asked_beyond_it() -> None:
    target, _ = pair(context=160)
    _, small = pair(context=20)
    drafter = AdaptiveDrafter(sd.ModelDrafter(small), lambda past: 4)
    made = sd.speculative(target, drafter, PROMPT, k=4, max_new_tokens=40, stop=sd.Stop())
    assert len(made.tokens) == 40
    assert made.trace.rounds[0].drafted
    assert not made.trace.rounds[-1].drafted


# The estimate


def test_nothing_known_is_the_prior_and_much_known_is_the_share() -> None:
    rule = BestForPast(draft_cost=0.1, prior=0.7, memory=1e6)
    assert rule.estimate([]) == 0.7
    assert rule.estimate([Verdict(0, 0)] * 50) == pytest.approx(0.7)
    often = [Verdict(4, 4), Verdict(4, 2)] * 1000  # 6 of 7 judged
    assert rule.estimate(often) == pytest.approx(6 / 7, abs=1e-3)


def test_old_verdicts_fade_and_the_prior_returns() -> None:
    rule = BestForPast(draft_cost=0.1, prior=0.5, weight=2, memory=8)
    bad, good = [Verdict(1, 0)] * 100, [Verdict(1, 1)] * 100
    assert rule.estimate(bad + good) > 0.85 > 0.15 > rule.estimate(good + bad)
    assert rule.estimate(bad + [Verdict(0, 0)] * 60) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("acceptance", "cost"), list(itertools.product([0.0, 0.3, 0.6, 0.9, 1.0], [0.02, 0.2, 0.6])))
def test_it_asks_for_the_best_k(acceptance: float, cost: float) -> None:
    past = [Verdict(10, 10 * acceptance)] if acceptance == 1 else [Verdict(10**6, 0)]
    rule = BestForPast(draft_cost=cost, prior=acceptance, weight=1e9)
    best, gain = best_k(acceptance, cost)
    assert rule(past) == (best if gain > 1 else 0)


def test_overhead_makes_it_give_up_sooner() -> None:
    never = [Verdict(4, 1)] * 100
    assert BestForPast(draft_cost=0.1)(never) > 0
    assert BestForPast(draft_cost=0.1, overhead=1.0)(never) == 0


@pytest.mark.parametrize("given", [dict(prior=1.1), dict(weight=0), dict(memory=0.5), dict(draft_cost=-1)])
def test_numbers_out_of_range_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="needs|acceptance|costs"):
        BestForPast(**{"draft_cost": 0.1, **given})
    with pytest.raises(TypeError, match="rule must be a function"):
        AdaptiveDrafter(sd.ModelDrafter(DRAFT), 4)
