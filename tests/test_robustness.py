"""A thousand random cases, and an interrupt at every line: no crash, no overshoot, no nan, nothing left broken."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import VOCAB, pair, table_pair, tokenizer
from transformers import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

import specdec_lite as sd

tokens = st.integers(0, VOCAB - 1)
samplings = st.builds(
    sd.Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 5]),
    top_p=st.sampled_from([1.0, 0.8, 0.2]),
    min_p=st.sampled_from([0.0, 0.3, 1.0]),
)
stops = st.builds(
    sd.Stop,
    token_ids=st.lists(tokens, max_size=3),
    strings=st.lists(st.text("abcdxy\n", min_size=1, max_size=3), max_size=2),
)
processors = st.lists(
    st.sampled_from([RepetitionPenaltyLogitsProcessor(1.3), NoRepeatNGramLogitsProcessor(3)]), max_size=2
)
drafters = st.sampled_from(["good", "bad", "lookup", "same"])


def checked(made: sd.Decoded, prompts: list[list[int]], budget: int, k: int, stop: sd.Stop) -> None:
    """What must hold of every run."""
    for row, new in enumerate(made.tokens):
        rounds = [each for each in made.trace.rounds if each.row == row]
        assert 1 <= len(new) <= budget
        assert sum((each.kept for each in rounds), []) == new
        assert all(0 <= token < VOCAB for token in new)
        assert [each.ended for each in rounds[:-1]] == [None] * (len(rounds) - 1)
        assert rounds[-1].ended == ("length" if len(new) == budget and rounds[-1].ended != "stop" else "stop")
        assert not set(new[:-1]) & set(stop.token_ids)
        assert not any(string in made.text[row] for string in stop.strings)
        assert rounds[0].position == len(prompts[row])
        for each in rounds:
            assert 1 <= len(each.kept) <= len(each.drafted) + 1 <= k + 1
            assert each.accepted <= len(each.drafted)
            numbers = [*each.p_target, *each.p_draft, *each.overlap, *each.chance]
            assert all(math.isfinite(value) and -1e-12 <= value <= 1 + 1e-9 for value in numbers)


def drafter_of(kind: str) -> Any:
    target, near = pair(0.05)
    far = pair(0.6)[1]
    return {
        "good": sd.ModelDrafter(near), "bad": sd.ModelDrafter(far), "lookup": sd.PromptLookupDrafter(),
        "same": sd.ModelDrafter(target),
    }[kind]  # fmt: skip


def target_with_text() -> sd.TransformersModel:
    return sd.TransformersModel(pair(0.05)[0].module, tokenizer())


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    prompts=st.lists(st.lists(tokens, min_size=1, max_size=9), min_size=1, max_size=3),
    k=st.integers(1, 16), budget=st.integers(1, 8), sampling=samplings, stop=stops, chain=processors,
    kind=drafters, seed=st.integers(0, 2**32), rule=st.sampled_from([sd.TokenRejection(), sd.SampleAndMatch()]),
)  # fmt: skip
def test_a_thousand_random_runs(
    prompts: list[list[int]], k: int, budget: int, sampling: sd.Sampling, stop: sd.Stop, chain: list[Any],
    kind: str, seed: int, rule: Any,
) -> None:  # fmt: skip
    target = target_with_text()
    common = dict(max_new_tokens=budget, sampling=sampling, stop=stop, processors=chain, seed=seed)
    made = sd.speculative(target, drafter_of(kind), prompts, k=k, rule=rule, **common)
    checked(made, prompts, budget, k, stop)
    row = random.Random(seed).randrange(len(prompts))
    alone = sd.speculative(target, drafter_of(kind), prompts[row], k=k, rule=rule, **common | {"seed": seed + row})
    assert (alone.tokens, alone.text) == (made.tokens[row], made.text[row])
    if sampling.greedy or sampling.top_k == 1:
        naive = sd.autoregressive(target, prompts, **common)
        assert (naive.tokens, naive.text) == (made.tokens, made.text)
    if kind == "same" and isinstance(rule, sd.TokenRejection):
        assert all(each.accepted == len(each.drafted) for each in made.trace.rounds)


# An interrupt at every line


HOME = str(Path(sd.__file__).parent)


class Interrupt:
    """Counts the lines that the library runs, and raises KeyboardInterrupt at the one asked for."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.lines = at, 0

    def __call__(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(HOME):
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                raise KeyboardInterrupt
        return self


def traced(run: Callable[[], Any], at: int | None = None) -> Interrupt:
    tracer, before = Interrupt(at), sys.gettrace()
    sys.settrace(tracer)
    try:
        run()
    finally:
        sys.settrace(before)
    return tracer


@pytest.mark.slow
def test_an_interrupt_at_every_line_leaves_everything_usable() -> None:
    """Models, drafter, processors and an unfinished neighbour stream all go on as if nothing had been."""
    target, draft = table_pair(vocab=4)
    drafter, chain = sd.ModelDrafter(draft), [RepetitionPenaltyLogitsProcessor(1.4)]
    common = dict(k=2, max_new_tokens=4, seed=1, processors=chain)

    def run() -> list[int]:
        return sum((each.kept for each in sd.stream(target, drafter, [1, 2], **common)), [])

    truth, table = run(), target.table.clone()
    neighbour_truth = [each.kept for each in sd.stream(target, drafter, [3], **common)]
    lines = traced(run).lines
    assert lines > 200
    for at in range(1, lines + 1):
        neighbour = sd.stream(target, drafter, [3], **common)
        first = next(neighbour).kept
        with pytest.raises(KeyboardInterrupt):
            traced(run, at)
        assert [first] + [each.kept for each in neighbour] == neighbour_truth
    assert run() == truth
    assert table.equal(target.table)
