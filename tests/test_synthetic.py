"""Acceptance that is set: the rate is the one asked for, the work is real, and nobody takes it for exact."""

from __future__ import annotations

import json

import pytest
import tiny

import specdec_lite as sd
from specdec_lite.bench.synthetic import LABEL, SyntheticDrafter, SyntheticRule, synthetic
from specdec_lite.theory.formulas import acceptance_of, expected_tokens
from specdec_lite.trace import Trace


@pytest.mark.parametrize("agreement", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("free", [True, False])
def test_the_measured_acceptance_is_the_one_set(agreement: float, free: bool) -> None:
    target, draft = tiny.table_pair(vocab=5, context=100)
    drafter = SyntheticDrafter(None if free else draft, agreement)
    made = synthetic(target, drafter, [[0]] * 24, k=4, max_new_tokens=80, seed=11)
    found = acceptance_of(made.trace.rounds, confidence=0.9999)
    assert found.judged > 500
    assert found.low <= agreement <= found.high
    full = [each for each in made.trace.rounds if len(each.drafted) == 4]  # the last rounds draft less
    tokens = sum(each.accepted + 1 for each in full) / len(full)
    assert tokens == pytest.approx(expected_tokens(agreement, 4), abs=0.35)


def test_the_target_runs_once_a_round_over_all_its_rows_and_the_draft_k_times() -> None:
    target, draft = (tiny.Counted(model) for model in tiny.pair())
    made = synthetic(target, SyntheticDrafter(draft, 0.7), tiny.PROMPT, k=3, max_new_tokens=40)
    assert len(made.tokens) == 40
    assert len(target.widths) == 1 + len(made.trace.rounds)  # and the prefill
    assert [each.accepted for each in made.trace.rounds]
    widths = [len(each.drafted) + 1 for each in made.trace.rounds]
    assert target.widths[1:] == widths
    assert len(draft.widths) == 1 + sum(len(each.drafted) for each in made.trace.rounds)


def test_a_free_draft_runs_no_model_and_costs_the_same_tensor_once() -> None:
    target, _ = tiny.pair()
    session = SyntheticDrafter().open([tiny.PROMPT], target, target.new_cache(1, 20))
    one, again = (session.propose([tiny.PROMPT], 4, None, None) for _ in range(2))
    assert one is again
    assert one.tokens.shape == (1, 4)
    made = synthetic(target, SyntheticDrafter(agreement=0.5), tiny.PROMPT, k=4, max_new_tokens=24)
    assert len(made.tokens) == 24


def test_everything_says_that_the_acceptance_was_set() -> None:
    target, draft = tiny.pair()
    made = synthetic(target, SyntheticDrafter(draft, 0.6), tiny.PROMPT, k=2, max_new_tokens=12)
    assert made.label == made.trace.label == LABEL == "synthetic acceptance"
    assert LABEL in repr(made)
    assert made.trace.agreement == 0.6
    assert json.loads(made.trace.to_json())["label"] == LABEL
    assert made.text is None
    assert Trace.from_json(made.trace.to_json()).rounds == made.trace.rounds


@pytest.mark.parametrize("call", [sd.speculative, sd.stream])
def test_what_promises_the_target_s_distribution_refuses_the_rule(call) -> None:
    target, draft = tiny.pair()
    with pytest.raises(ValueError, match="SyntheticRule is not exact, and this promises the target's distribution"):
        call(target, sd.ModelDrafter(draft), tiny.PROMPT, rule=SyntheticRule(0.9))


def test_with_an_exact_rule_the_drafter_is_one_like_any_other() -> None:
    """Its proposals are what they say, so the text is the target's own."""
    target, draft = tiny.pair()
    common = dict(max_new_tokens=24, sampling=sd.Sampling(temperature=0), stop=sd.Stop())
    base = sd.autoregressive(target, tiny.PROMPT, **common)
    for model in (draft, None):
        fast = sd.speculative(target, SyntheticDrafter(model, 0.9), tiny.PROMPT, k=3, **common)
        assert fast.tokens == base.tokens


@pytest.mark.parametrize("agreement", [-0.1, 1.5, float("nan")])
def test_an_agreement_that_is_no_chance_is_refused(agreement: float) -> None:
    with pytest.raises(ValueError, match="agreement is the chance to keep a drafted token, from 0 to 1, got"):
        SyntheticDrafter(agreement=agreement)


def test_another_drafter_or_rule_is_refused() -> None:
    target, draft = tiny.pair()
    with pytest.raises(TypeError, match="drafter must be a SyntheticDrafter"):
        synthetic(target, sd.ModelDrafter(draft), tiny.PROMPT)
    with pytest.raises(TypeError, match="rule"):
        synthetic(target, SyntheticDrafter(draft), tiny.PROMPT, rule=sd.TokenRejection())
