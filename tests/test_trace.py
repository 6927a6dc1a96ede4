"""The trace says what happened, and can be kept."""

from __future__ import annotations

import json
import math

import pytest
import torch
from tiny import PROMPT, VOCAB, next_logits, pair

import specdec_lite as sd
from specdec_lite.randomness import SeededStreams
from specdec_lite.sampling.distributions import probabilities
from specdec_lite.trace import COLUMNS, NUMBERS, Round, Trace

PROMPTS = [PROMPT, [3], [8, 2]]
SAMPLING = sd.Sampling(temperature=0.8, top_k=12)


def run(trace: str = "summary", prompt: list = PROMPTS, **more: object) -> sd.Decoded:
    target, draft = pair(0.05)
    common = dict(k=4, max_new_tokens=14, sampling=SAMPLING, seed=3, stop=sd.Stop([17, 29])) | more
    return sd.speculative(target, sd.ModelDrafter(draft), prompt, trace=trace, **common)


@pytest.fixture(scope="module")
def full() -> sd.Decoded:
    return run("full")


def made(accepted: int, drafted: int, kept: int | None = None, **more: object) -> Round:
    """A round by hand, of which everything or the first `kept` tokens were kept."""
    kind = "sampled" if drafted == 0 else "bonus" if accepted == drafted else "corrected"
    block = [*range(1, accepted + 1), 9][:kept]
    return Round(
        **(
            dict(row=0, index=0, position=0, drafted=list(range(1, drafted + 1)), accepted=accepted, token=9)
            | dict(kind=kind, kept=block, ended=None)
            | more
        )
    )


# What a round records


def test_probabilities_are_those_of_the_models_without_a_cache(full: sd.Decoded) -> None:
    target, draft = pair(0.05)
    for each in full.trace.rounds:
        text = (PROMPTS[each.row] + full.tokens[each.row])[: each.position]
        for i, token in enumerate(each.drafted):
            before = text + each.drafted[:i]
            p_target, p_draft = (probabilities(next_logits(model, before), SAMPLING) for model in (target, draft))
            assert each.p_target[i] == pytest.approx(p_target[token].item(), abs=1e-12)
            assert each.p_draft[i] == pytest.approx(p_draft[token].item(), abs=1e-12)
            assert each.overlap[i] == pytest.approx(torch.minimum(p_target, p_draft).sum().item(), abs=1e-12)
            assert each.chance[i] == pytest.approx(min(1, each.p_target[i] / each.p_draft[i]), abs=1e-12)


def test_the_number_that_decided_is_in_the_trace(full: sd.Decoded) -> None:
    verdicts = set()
    for row in range(3):
        streams = SeededStreams([3 + row], k=4)
        for each in (each for each in full.trace.rounds if each.row == row):
            streams.begin_round()
            assert each.uniform == streams.to_accept[0, : len(each.drafted)].tolist()
            below = [u < chance for u, chance in zip(each.uniform, each.chance, strict=True)]
            assert each.accepted == (below + [False]).index(False)
            verdicts.add(each.kind)
    assert verdicts >= {"bonus", "corrected"}


def test_whole_distributions_sum_to_one_and_agree_with_the_summary(full: sd.Decoded) -> None:
    for each in full.trace.rounds:
        assert len(each.full_target) == len(each.top_target) == len(each.drafted) + 1
        assert len(each.full_draft) == len(each.top_draft) == len(each.drafted)
        for probs, top in zip(each.full_target + each.full_draft, each.top_target + each.top_draft, strict=True):
            assert len(probs) == VOCAB
            assert sum(probs) == pytest.approx(1, abs=1e-12)
            assert [p for _, p in top] == sorted(probs, reverse=True)[: len(top)]
            assert all(probs[token] == p > 0 for token, p in top)
            assert 1 <= len(top) <= 3
        assert [probs[t] for probs, t in zip(each.full_draft, each.drafted, strict=True)] == each.p_draft


def test_the_detail_changes_what_is_kept_and_not_what_is_written(full: sd.Decoded) -> None:
    summary, off = run("summary"), run("off")
    assert full.tokens == summary.tokens == off.tokens
    for whole, some, none in zip(full.trace.rounds, summary.trace.rounds, off.trace.rounds, strict=True):
        assert some.full_target == some.full_draft == []
        assert (some.p_target, some.uniform, some.top_target) == (whole.p_target, whole.uniform, whole.top_target)
        assert all(getattr(none, name) == [] for name in (*NUMBERS, "top_target", "top_draft", "full_target"))
        assert (none.drafted, none.accepted, none.token, none.kept) == (
            whole.drafted,
            whole.accepted,
            whole.token,
            whole.kept,
        )
        assert set(none.seconds) == {"draft", "verify", "rest"}


def test_rounds_add_up_to_the_texts(full: sd.Decoded) -> None:
    for row, prompt in enumerate(PROMPTS):
        text = list(prompt)
        for each in (each for each in full.trace.rounds if each.row == row):
            assert each.position == len(text)
            block = [*each.drafted[: each.accepted], each.token]
            assert each.kept == block[: len(each.kept)]
            assert len(each.kept) == len(each.kept_kinds()) >= 1
            text += each.kept
        assert text == prompt + full.tokens[row]
    assert full.trace.new_tokens == sum(map(len, full.tokens))
    assert full.trace.prompts == PROMPTS


def test_naive_rounds_record_the_targets_alternatives() -> None:
    naive = sd.autoregressive(pair()[0], PROMPT, max_new_tokens=4, trace="full")
    for each in naive.trace.rounds:
        assert (each.kind, each.drafted, each.accepted, each.judged) == ("sampled", [], 0, 0)
        assert len(each.top_target) == len(each.full_target) == 1
        assert each.full_draft == each.top_draft == each.chance == []


# Keeping it


@pytest.mark.parametrize("detail", ["off", "summary", "full"])
def test_json_and_back_is_equal(detail: str) -> None:
    naive = sd.autoregressive(pair()[0], PROMPT, max_new_tokens=3, trace=detail)
    for trace in (run(detail).trace, run(detail, PROMPT).trace, naive.trace):
        text = trace.to_json()
        again = Trace.from_json(text)
        assert again == trace
        assert again.to_json() == text
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_json_of_another_trace_differs() -> None:
    assert Trace.from_json(run(seed=3).trace.to_json()) != run(seed=4).trace


def test_the_frame_has_a_line_for_every_token(full: sd.Decoded) -> None:
    frame = full.trace.to_frame()
    assert list(frame.columns) == COLUMNS
    for row, tokens in enumerate(full.tokens):
        assert frame[(frame.row == row) & frame.kept].token.tolist() == tokens
        positions = frame[(frame.row == row) & frame.kept].position.tolist()
        assert positions == list(range(len(PROMPTS[row]), len(PROMPTS[row]) + len(tokens)))
    rounds = full.trace.rounds
    counts = frame.kind.value_counts()
    assert counts["accepted"] == sum(each.accepted for each in rounds)
    assert counts["rejected"] == sum(each.accepted < len(each.drafted) for each in rounds)
    assert counts["not judged"] == sum(len(each.drafted) - each.judged for each in rounds)
    drafted = frame[frame.kind.isin(["accepted", "rejected", "not judged"])]
    assert drafted[NUMBERS].notna().all().all()
    assert (drafted.chance - (drafted.p_target / drafted.p_draft).clip(upper=1)).abs().max() < 1e-12
    judged = drafted[drafted.kind != "not judged"]
    assert ((judged.uniform < judged.chance) == (judged.kind == "accepted")).all()


def test_the_frame_by_hand() -> None:
    trace = Trace([made(1, 3), made(2, 2, kept=1, index=1, position=2, ended="stop"), made(0, 0, index=2, position=3)])
    lines = trace.to_frame()[["round", "position", "token", "kind", "kept"]].to_numpy().tolist()
    assert lines == [
        [0, 0, 1, "accepted", True],
        [0, 1, 2, "rejected", False],
        [0, 2, 3, "not judged", False],
        [0, 1, 9, "corrected", True],
        [1, 2, 1, "accepted", True],
        [1, 3, 2, "accepted", False],  # after the stop
        [2, 3, 9, "sampled", True],
    ]


def test_frames_have_the_same_columns_whatever_was_recorded() -> None:
    naive = sd.autoregressive(pair()[0], PROMPT, max_new_tokens=2).trace
    for trace in (Trace(), naive, run("off").trace):
        frame = trace.to_frame()
        assert list(frame.columns) == COLUMNS
        assert frame[NUMBERS].isna().all().all()


# Metrics


def test_metrics_by_hand() -> None:
    trace = Trace([made(4, 4), made(1, 4), made(0, 0), made(0, 4)])
    assert trace.new_tokens == 5 + 2 + 1 + 1
    assert trace.tokens_per_round_with_bonus == 9 / 4
    assert trace.tokens_per_round_without_bonus == 8 / 4
    assert trace.accepted_per_drafted == 5 / 12
    assert trace.accepted_per_judged == 5 / (4 + 2 + 1)
    table = trace.acceptance_by_position()
    assert table.position.tolist() == [1, 2, 3, 4]
    assert table.judged.tolist() == [3, 2, 1, 1]
    assert table.accepted.tolist() == [2, 1, 1, 1]
    assert table.rate.tolist() == [2 / 3, 1 / 2, 1, 1]


def test_tokens_cut_off_by_a_stop_are_not_counted() -> None:
    assert Trace([made(4, 4, kept=2)]).tokens_per_round_with_bonus == 2
    assert Trace([made(4, 4, kept=2)]).tokens_per_round_without_bonus == 2
    assert made(4, 4, kept=2).kept_kinds() == ["accepted", "accepted"]
    assert made(4, 4).kept_kinds() == ["accepted"] * 4 + ["bonus"]
    assert made(0, 4).kept_kinds() == ["corrected"]


def test_overlap_is_averaged_over_judged_tokens_only() -> None:
    trace = Trace([made(1, 3, overlap=[0.9, 0.5, 0.1]), made(2, 2, overlap=[0.8, 0.6])])
    assert trace.mean_overlap == pytest.approx((0.9 + 0.5 + 0.8 + 0.6) / 4)


def test_metrics_of_nothing_are_not_numbers() -> None:
    trace = Trace()
    for name in ("tokens_per_round_with_bonus", "accepted_per_drafted", "accepted_per_judged", "mean_overlap"):
        assert math.isnan(getattr(trace, name))
    assert trace.new_tokens == 0
    assert trace.acceptance_by_position().empty
    assert trace.time_split() == {}


def test_acceptance_by_position_counts_a_real_run(full: sd.Decoded) -> None:
    table, rounds = full.trace.acceptance_by_position(), full.trace.rounds
    assert table.accepted.sum() == sum(each.accepted for each in rounds)
    assert table.judged.sum() == sum(each.judged for each in rounds)
    assert table.accepted.sum() / table.judged.sum() == full.trace.accepted_per_judged
    assert table.judged.is_monotonic_decreasing


def test_a_batchs_time_is_counted_once() -> None:
    shared, next_ = {"draft": 1.0, "verify": 2.0, "rest": 0.5}, {"draft": 3.0, "verify": 1.0, "rest": 0.5}
    rounds = [made(0, 1, row=0, seconds=shared), made(0, 1, row=1, seconds=shared), made(0, 1, index=1, seconds=next_)]
    assert Trace(rounds).time_split() == {"draft": 4.0, "verify": 3.0, "rest": 1.0}


def test_the_time_split_fits_in_the_time(full: sd.Decoded) -> None:
    split = full.trace.time_split()
    assert set(split) == {"draft", "verify", "rest"}
    assert all(seconds > 0 for seconds in split.values())
    assert sum(split.values()) < full.seconds


def test_a_vocabulary_of_two_has_two_alternatives() -> None:
    target = sd.TableModel(2, context=12)
    trace = sd.speculative(target, sd.ModelDrafter(target), [1], k=2, max_new_tokens=5, trace="full").trace
    assert {len(top) for each in trace.rounds for top in each.top_target + each.top_draft} == {2}
    assert Trace.from_json(trace.to_json()) == trace
