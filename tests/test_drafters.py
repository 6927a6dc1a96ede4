"""Drafters: what they propose, what they hold, and that no mistake of theirs reaches the text."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import PROMPT, VOCAB, Counted, llama, next_logits, pair, table_pair

import specdec_lite as sd
from specdec_lite.draft import Draft, one_hot_draft
from specdec_lite.drafters.prompt_lookup import Index
from specdec_lite.kv_cache import KVCache
from specdec_lite.randomness import SeededStreams
from specdec_lite.sampling.distributions import Sampler, probabilities
from specdec_lite.sampling.processors import Processors
from specdec_lite.theory.exact import largest_difference, sequence_distribution, target_distribution

GREEDY = sd.Sampling(temperature=0)
SAMPLER = Sampler(GREEDY, Processors())


# A draft model


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_a_draft_model_proposes_is_what_it_would_without_a_cache(temperature: float) -> None:
    """At every round and position, whatever was accepted before: its cache holds the right tokens."""
    target, draft = pair()
    sampling = sd.Sampling(temperature=temperature, top_k=9)
    prompts = [PROMPT, [3], [8, 8, 1]]
    made = sd.speculative(
        target, sd.ModelDrafter(draft), prompts, k=4, max_new_tokens=16, sampling=sampling, trace="full", seed=5
    )
    seen = set()
    for each in made.trace.rounds:
        text = (prompts[each.row] + made.tokens[each.row])[: each.position]
        seen.add(each.accepted == len(each.drafted))
        for i, got in enumerate(each.full_draft):
            truth = probabilities(next_logits(draft, text + each.drafted[:i]), sampling)
            torch.testing.assert_close(torch.tensor(got, dtype=torch.float64), truth, rtol=0, atol=1e-12)
    assert seen == {True, False}


def test_a_draft_identical_to_the_target_has_everything_accepted() -> None:
    for target, temperature in ((pair()[0], 1.0), (pair()[0], 0.0), (sd.TableModel(5, context=40), 1.0)):
        sampling = sd.Sampling(temperature=temperature, top_p=0.95)
        made = sd.speculative(target, sd.ModelDrafter(target), [1, 2], k=5, max_new_tokens=24, sampling=sampling)
        assert [each.kind for each in made.trace.rounds] == ["bonus"] * 4
        assert made.trace.accepted_per_drafted == 1
        assert made.trace.mean_overlap == pytest.approx(1, abs=1e-12)


def test_the_draft_runs_once_a_token_and_is_fed_two_after_full_acceptance() -> None:
    for noise in (0.0, 0.1):
        target, draft = pair(noise)
        counted = Counted(draft)
        made = sd.speculative(target, sd.ModelDrafter(counted), PROMPT, k=3, max_new_tokens=21, seed=2)
        expected = [len(PROMPT) - 1]  # prefill
        fed = 1
        for each in made.trace.rounds:
            if each.drafted:
                expected += [fed] + [1] * (len(each.drafted) - 1)
            fed = 2 if each.drafted and each.accepted == len(each.drafted) else 1
        assert counted.widths == expected
        assert (2 in expected[1:]) and all(counted.last_only)


def test_one_row_with_full_acceptance_costs_the_batch_no_wrong_token() -> None:
    """Rows that lack one token and rows that lack two are fed together."""
    target, draft = pair(0.05)
    counted = Counted(draft)
    made = sd.speculative(target, sd.ModelDrafter(counted), [PROMPT, [9], [2, 3]], k=2, max_new_tokens=20, seed=0)
    by_step: dict[int, set[bool]] = {}
    for each in made.trace.rounds:
        by_step.setdefault(each.index, set()).add(each.accepted == len(each.drafted))
    assert {True, False} in by_step.values()
    for row, prompt in enumerate(([*PROMPT], [9], [2, 3])):
        alone = sd.speculative(target, sd.ModelDrafter(draft), prompt, k=2, max_new_tokens=20, seed=row)
        assert alone.tokens == made.tokens[row]
        assert [r.drafted for r in alone.trace.rounds] == [r.drafted for r in made.trace.rounds if r.row == row]


def test_a_drafter_holds_no_state_between_runs() -> None:
    target, draft = pair()
    drafter = sd.ModelDrafter(draft)
    first = sd.speculative(target, drafter, PROMPT, max_new_tokens=10)
    sd.speculative(target, drafter, [[1], [2, 2, 2]], max_new_tokens=7, seed=9)
    again = sd.speculative(target, drafter, PROMPT, max_new_tokens=10)
    assert first.tokens == again.tokens
    assert vars(drafter) == {"model": draft}


def test_two_interleaved_streams_share_a_drafter() -> None:
    target, draft = pair()
    drafter = sd.ModelDrafter(draft)
    alone = [sd.speculative(target, drafter, p, max_new_tokens=9, seed=1).tokens for p in ([1, 2], [5])]
    streams = [sd.stream(target, drafter, p, max_new_tokens=9, seed=1) for p in ([1, 2], [5])]
    texts: list[list[int]] = [[], []]
    for _ in range(9):
        for text, stream in zip(texts, streams, strict=True):
            each = next(stream, None)
            text += each.kept if each else []
    assert texts == alone


def test_a_draft_on_another_device_is_refused_before_any_forward() -> None:
    target, draft = Counted(pair()[0]), Counted(pair()[1])
    draft.device = torch.device("meta")
    with pytest.raises(ValueError, match=r"on meta and the target on cpu: both need one device"):
        sd.speculative(target, sd.ModelDrafter(draft), PROMPT)
    assert target.widths == draft.widths == []


# Vocabularies padded to different widths over one tokenizer


class Widened(sd.TableModel):
    """A table model with `extra` tokens more, of which the others know nothing."""

    def __init__(self, model: sd.TableModel, extra: int) -> None:
        super().__init__(model.vocab_size + extra, model.context, seed=7)
        shared = model.vocab_size
        self.table[:, :shared, :shared] = model.table


@pytest.mark.parametrize("extra", [(0, 1), (1, 0), (0, 2)], ids=["wider draft", "wider target", "much wider draft"])
@pytest.mark.parametrize("rule", [sd.TokenRejection(), sd.SampleAndMatch()], ids=["rejection", "match"])
@pytest.mark.parametrize("sampling", [sd.Sampling(), sd.Sampling(top_k=2)], ids=["plain", "top-k"])
def test_padded_vocabularies_are_exact(extra: tuple[int, int], rule: object, sampling: sd.Sampling) -> None:
    """The target's own distribution, its padding included; the draft is padded or cut to it."""
    target, draft = (Widened(model, more) for model, more in zip(table_pair(vocab=2), extra, strict=True))
    common = dict(max_new_tokens=4, sampling=sampling, stop=sd.Stop())
    truth = target_distribution(target, [0, 1], **common)
    made = sequence_distribution(target, sd.ModelDrafter(draft), [0, 1], k=2, rule=rule, **common)
    assert largest_difference(made, truth) < 1e-12
    texts = {token for text, probability in truth.items() for token in text if probability > 1e-6}
    assert texts == set(range(target.vocab_size))  # the tokens that only the target has are written too


@torch.inference_mode()
def test_a_wider_draft_is_normalised_over_the_shared_tokens() -> None:
    target, draft = table_pair(vocab=3)[0], Widened(table_pair(vocab=3)[1], 2)
    for wider, narrower in ((draft, target), (target, sd.TableModel(2, 16, seed=3))):
        session = sd.ModelDrafter(wider).open([[0, 1, 1]], narrower, KVCache(1, 16))
        streams = SeededStreams([0], k=3)
        streams.begin_round()
        made = session.propose([[0, 1, 1]], 3, Sampler(sd.Sampling(), Processors()), streams)
        assert made.probs.shape == (1, 3, narrower.vocab_size)
        torch.testing.assert_close(made.probs.sum(-1), torch.ones(1, 3).double(), rtol=0, atol=1e-12)
    session = sd.ModelDrafter(sd.TableModel(2, 16)).open([[0, 2, 1]], sd.TableModel(3, 16), KVCache(1, 16))
    streams.begin_round()
    made = session.propose([[0, 2, 1]], 3, Sampler(sd.Sampling(), Processors()), streams)  # 2 is unknown to the draft
    assert made.probs[..., 2].abs().max() == 0


def test_padded_transformers_models_write_the_targets_text() -> None:
    for mine, others in ((VOCAB, VOCAB + 3), (VOCAB + 3, VOCAB)):
        target = sd.TransformersModel(llama(vocab=mine))
        draft = sd.TransformersModel(llama(seed=0, vocab=others))
        prompts = [PROMPT, [mine - 1, 3]]
        naive = sd.autoregressive(target, prompts, max_new_tokens=20, sampling=GREEDY)
        made = sd.speculative(target, sd.ModelDrafter(draft), prompts, max_new_tokens=20, sampling=GREEDY)
        assert made.tokens == naive.tokens


def test_a_broken_draft_costs_speed_and_not_truth() -> None:
    """Its logits are no numbers at all: nothing it says is accepted, and the text is the target's."""
    target, draft = pair()
    module = copy.deepcopy(draft.module)
    with torch.no_grad():
        module.lm_head.weight[3] = torch.nan
    broken = sd.ModelDrafter(sd.TransformersModel(module))
    for rule in (sd.TokenRejection(), sd.SampleAndMatch()):
        made = sd.speculative(target, broken, PROMPT, k=2, max_new_tokens=8, sampling=GREEDY, rule=rule)
        assert made.tokens == sd.autoregressive(target, PROMPT, max_new_tokens=8, sampling=GREEDY).tokens
    sampled = sd.speculative(target, broken, PROMPT, k=2, max_new_tokens=8)
    assert all(each.accepted == 0 for each in sampled.trace.rounds)


def test_a_broken_target_is_named_as_the_cause() -> None:
    module = copy.deepcopy(pair()[0].module)
    with torch.no_grad():
        module.lm_head.weight[3] = torch.nan
    broken = sd.TransformersModel(module)
    for temperature in (0.0, 1.0):
        for trace in ("off", "summary"):
            sampling = sd.Sampling(temperature=temperature)
            with pytest.raises(ValueError, match=r"target's largest logit is nan.*bfloat16 or float32"):
                sd.autoregressive(broken, PROMPT, sampling=sampling, trace=trace)
            with pytest.raises(ValueError, match="target's largest logit is nan"):
                sd.speculative(broken, sd.ModelDrafter(pair()[1]), PROMPT, sampling=sampling, trace=trace)


# The draft's context


@pytest.mark.parametrize("prompt", [[1], PROMPT, list(range(11)), list(range(12)), list(range(20))], ids=len)
def test_a_draft_with_a_shorter_context_drafts_while_it_can(prompt: list[int]) -> None:
    target, draft = pair()[0], Counted(sd.TransformersModel(llama(seed=0, context=12)))
    reached = []
    new_cache = draft.model.new_cache

    def watched(batch: int, capacity: int):
        reached.append(new_cache(batch, capacity))
        return reached[-1]

    draft.new_cache = watched
    made = sd.speculative(target, sd.ModelDrafter(draft), prompt, k=4, max_new_tokens=16, sampling=GREEDY)
    assert made.tokens == sd.autoregressive(target, prompt, max_new_tokens=16, sampling=GREEDY).tokens
    for each in made.trace.rounds:
        assert len(each.drafted) <= max(0, 12 - each.position)
        assert (each.kind == "sampled") == (not each.drafted)
    assert any(each.kind == "sampled" for each in made.trace.rounds)
    assert reached[0].lengths[0] <= 12
    if len(prompt) >= 12:
        assert draft.widths == []


def test_rows_beyond_the_drafts_context_do_not_keep_others_from_drafting() -> None:
    """One prompt is longer than the draft's context, the others are shorter, of any length."""
    target = pair()[0]
    drafter = sd.ModelDrafter(sd.TransformersModel(llama(seed=0, context=12)))
    prompts = [list(range(15)), [4, 2], [1], list(range(12))]
    made = sd.speculative(target, drafter, prompts, k=3, max_new_tokens=14, seed=1)
    for row, prompt in enumerate(prompts):
        alone = sd.speculative(target, drafter, prompt, k=3, max_new_tokens=14, seed=1 + row)
        assert alone.tokens == made.tokens[row]
    drafted = [sum(len(each.drafted) for each in made.trace.rounds if each.row == row) for row in range(4)]
    assert drafted[0] == drafted[3] == 0
    assert drafted[1] > 0 and drafted[2] > 0


def test_a_model_without_a_limit_always_has_room() -> None:
    target, draft = table_pair(context=40)
    endless = copy.copy(draft)
    endless.context = None
    session = sd.ModelDrafter(draft).open([[1, 2]], sd.TableModel(4), KVCache(1, 50))
    assert [session.max_draft_tokens(n) for n in (1, 39, 40, 41)] == [39, 1, 0, 0]
    session.model = endless
    assert session.max_draft_tokens(10**6) > 100


# Prompt lookup


def found_by_search(text: list[int], k: int, longest: int, shortest: int) -> list[int]:
    """The longest ending that occurred before, at its latest place, copied token by token over the text's end."""
    for n in range(longest, shortest - 1, -1):
        places = [s for s in range(len(text) - n) if n < len(text) and text[s : s + n] == text[len(text) - n :]]
        if places:
            longer = list(text)
            for i in range(k):
                longer.append(longer[places[-1] + n + i])
            return longer[len(text) :]
    return []


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=14), st.integers(1, 5), st.integers(1, 3), st.integers(0, 3)
)  # fmt: skip
def test_prompt_lookup_finds_what_followed_the_longest_ending(text: list, k: int, shortest: int, more: int) -> None:
    got = Index(shortest + more, shortest).continuation(text, k)
    assert got == found_by_search(text, k, shortest + more, shortest)
    assert len(got) in (0, k)
    growing, at = Index(shortest + more, shortest), 1
    while at <= len(text):  # the same, asked while the text grows
        assert growing.continuation(text[:at], k) == found_by_search(text[:at], k, shortest + more, shortest)
        at += 1 + text[at - 1]


@pytest.mark.parametrize(
    ("text", "proposed"),
    [
        ([1], []),
        ([1, 2], []),
        ([1, 1], [1, 1, 1, 1]),  # the occurrence overlaps the ending
        ([1, 2, 3, 9, 1, 2, 3], [9, 1, 2, 3]),
        ([5, 1, 2, 1, 2], [1, 2, 1, 2]),  # a period goes on
        ([1, 2, 5, 1, 2, 7, 1, 2], [7, 1, 2, 7]),  # the latest occurrence
        ([4, 2, 6, 9, 2, 7, 4, 2], [6, 9, 2, 7]),  # two tokens match better than one
        ([1, 2, 3, 4], []),
    ],
    ids=str,
)
def test_prompt_lookup_by_example(text: list[int], proposed: list[int]) -> None:
    assert Index(3, 1).continuation(text, 4) == proposed
    assert Index(3, 1).continuation(text, 2) == proposed[:2]


def test_prompt_lookup_passes_over_what_it_entered_beyond_the_text() -> None:
    index = Index(2, 1)
    assert index.continuation([1, 2, 3, 1, 2], 1) == [3]
    assert index.continuation([1, 2, 3], 1) == []  # timing a piece of a round goes back


@pytest.mark.parametrize(("k", "rounds"), [(4, 13), (8, 8), (16, 4)])
@pytest.mark.parametrize("period", [1, 3])
def test_prompt_lookup_fills_k_where_a_text_repeats(k: int, rounds: int, period: int) -> None:
    """64 tokens of a text that goes on as it did: k + 1 a forward, and the budget bounds the last."""
    target = sd.TableModel(3, context=90)
    prompt = [i % period for i in range(12)]

    def goes_on(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores.index_fill(1, torch.tensor([input_ids.shape[1] % period]), 50.0)

    common = dict(max_new_tokens=64, sampling=GREEDY, processors=[goes_on], stop=sd.Stop())
    made = sd.speculative(target, sd.PromptLookupDrafter(), prompt, k=k, **common)
    assert made.tokens == [(12 + i) % period for i in range(64)]
    assert len(made.trace.rounds) == rounds
    assert all(len(each.drafted) <= k for each in made.trace.rounds)


@pytest.mark.parametrize("kwargs", [dict(shortest=0), dict(longest=2, shortest=3), dict(longest=0)], ids=str)
def test_prompt_lookup_refuses_impossible_lengths(kwargs: dict) -> None:
    with pytest.raises(ValueError, match="1 <= shortest <= longest"):
        sd.PromptLookupDrafter(**kwargs)


def test_a_certain_draft_is_one_hot_and_padded() -> None:
    draft = one_hot_draft([[2, 0], [], [3]], 4, torch.device("cpu"))
    assert draft.tokens.tolist() == [[2, 0], [0, 0], [3, 0]]
    assert draft.count == [2, 0, 1]
    assert torch.equal(draft.probs.argmax(-1), draft.tokens)
    assert (draft.probs.sum(-1) == 1).all()
    nothing = one_hot_draft([[], []], 4, torch.device("cpu"))
    assert nothing.tokens.shape == (2, 0)
    assert nothing.probs.shape == (2, 0, 4)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("rule", [sd.TokenRejection(), sd.SampleAndMatch()], ids=lambda rule: type(rule).__name__)
def test_rows_with_and_without_a_proposal_go_together(temperature: float, rule: object) -> None:
    target = pair()[0]
    prompts = [[1, 2, 3, 1, 2], [7], [4, 5, 6], [9, 9, 9, 9]]
    common = dict(k=3, max_new_tokens=12, sampling=sd.Sampling(temperature=temperature), rule=rule)
    made = sd.speculative(target, sd.PromptLookupDrafter(), prompts, seed=3, **common)
    first = [each for each in made.trace.rounds if each.index == 0]
    assert [len(each.drafted) for each in first] == [3, 0, 0, 3]
    assert [each.kind == "sampled" for each in first] == [False, True, True, False]
    for row, prompt in enumerate(prompts):
        alone = sd.speculative(target, sd.PromptLookupDrafter(), prompt, seed=3 + row, **common)
        assert alone.tokens == made.tokens[row]
        if temperature == 0:
            naive = sd.autoregressive(target, prompt, max_new_tokens=12, sampling=common["sampling"])
            assert naive.tokens == alone.tokens


# Any drafter


class Erratic:
    """Proposes whatever it likes: any number of tokens for each row, from any distribution."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def open(self, texts, target, cache) -> Erratic:
        self.chance, self.vocab_size = random.Random(self.seed), target.vocab_size
        return self

    def max_draft_tokens(self, length: int) -> int:
        return self.chance.choice([0, 1, 2, 100])

    def propose(self, texts, k, sampler, randomness) -> Draft:
        width = self.chance.randint(0, k)
        generator = torch.Generator().manual_seed(self.chance.randint(0, 10**6))
        probs = torch.randn(len(texts), width, self.vocab_size, generator=generator).double().softmax(-1)
        tokens = torch.stack([randomness.sample(probs[:, i]) for i in range(width)], 1) if width else None
        tokens = torch.zeros(len(texts), 0, dtype=torch.long) if tokens is None else tokens
        return Draft(tokens, probs, [self.chance.randint(0, width) for _ in texts])


@pytest.mark.parametrize("seed", range(4))
def test_an_erratic_drafter_cannot_change_greedy_text(seed: int) -> None:
    target = sd.TableModel(6, context=40)
    prompts = [[1, 2, 3], [4], [5, 0]]
    naive = sd.autoregressive(target, prompts, max_new_tokens=25, sampling=GREEDY)
    made = sd.speculative(target, Erratic(seed), prompts, k=5, max_new_tokens=25, sampling=GREEDY)
    assert made.tokens == naive.tokens
    counts = {len(each.drafted) for each in made.trace.rounds}
    assert len(counts) > 2 and 0 in counts


def test_a_draft_session_asks_for_its_own_numbers_only() -> None:
    """Prompt lookup needs no chance, so its rounds still have all of theirs."""
    streams = SeededStreams([0], k=3)
    streams.begin_round()
    sd.PromptLookupDrafter().open([[1, 1]], sd.TableModel(4), KVCache(1, 9)).propose([[1, 1]], 3, SAMPLER, streams)
    assert streams.drafted == 0
