"""The loop: the target's own text, in one target forward a round, never a token too many."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from tiny import PROMPT, Counted, llama, pair, table_pair

import specdec_lite as sd
from specdec_lite.decoding import MAX_K, start

GREEDY = sd.Sampling(temperature=0)
PROMPTS = [PROMPT, [3], [8, 8, 1, 30, 2, 2, 11, 4, 9], [6, 0]]


@cache
def generated(prompt: tuple[int, ...], new: int) -> list[int]:
    """What transformers' own greedy search writes."""
    module = pair()[0].module
    text = torch.tensor([prompt])
    with torch.inference_mode():
        out = module.generate(text, attention_mask=torch.ones_like(text), do_sample=False, max_new_tokens=new)
    return out[0, len(prompt) :].tolist()


# Greedy: three programs, one text


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_naive_greedy_text_is_that_of_transformers(prompt: list[int]) -> None:
    made = sd.autoregressive(pair()[0], prompt, max_new_tokens=24, sampling=GREEDY)
    assert made.tokens == generated(tuple(prompt), 24)
    assert len(set(made.tokens)) > 4  # something happens


def test_speculative_greedy_text_is_that_of_transformers_for_every_k() -> None:
    accepted = []
    for k in range(1, MAX_K + 1):
        target, draft = pair(0.02 if k > 5 else 0.05)
        made = sd.speculative(target, sd.ModelDrafter(draft), PROMPT, k=k, max_new_tokens=24, sampling=GREEDY)
        assert made.tokens == generated(tuple(PROMPT), 24), k
        accepted += [(each.accepted, len(each.drafted)) for each in made.trace.rounds if len(each.drafted) > 1]
        assert max(len(each.drafted) for each in made.trace.rounds) == k
    assert any(a == n for a, n in accepted), "no round was accepted in full"
    assert any(0 < a < n for a, n in accepted), "no round was accepted in part"
    assert any(a == 0 for a, _ in accepted), "no round was rejected at once"


@pytest.mark.parametrize("rule", [sd.TokenRejection(), sd.SampleAndMatch()], ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_the_best_and_the_worst_draft_write_the_same_text(noise: float, rule: object) -> None:
    target, draft = pair(noise)
    made = sd.speculative(target, sd.ModelDrafter(draft), PROMPT, k=4, max_new_tokens=24, sampling=GREEDY, rule=rule)
    assert made.tokens == generated(tuple(PROMPT), 24)
    assert (made.trace.accepted_per_drafted == 1) == (noise == 0)


@pytest.mark.parametrize("k", [1, 3, 16])
def test_prompt_lookup_writes_the_same_text(k: int) -> None:
    prompt = [*PROMPT, *generated(tuple(PROMPT), 24)[:12], *PROMPT]
    drafter = sd.PromptLookupDrafter()
    made = sd.speculative(pair()[0], drafter, prompt, k=k, max_new_tokens=24, sampling=GREEDY)
    assert made.tokens == generated(tuple(prompt), 24)
    assert 0 < made.trace.accepted_per_drafted < 1


def test_a_ragged_batch_writes_what_its_rows_write_alone() -> None:
    target, draft = pair(0.05)
    made = sd.speculative(target, sd.ModelDrafter(draft), PROMPTS, k=4, max_new_tokens=24, sampling=GREEDY)
    assert made.tokens == [generated(tuple(prompt), 24) for prompt in PROMPTS]
    assert len({tuple(r.accepted for r in made.trace.rounds if r.row == row) for row in range(len(PROMPTS))}) > 1


def test_a_wrong_text_would_show() -> None:
    """The control: a draft that is trusted blindly writes something else."""
    trusting = type(
        "Trusting", (sd.TokenRejection,), {"accept_prob": lambda self, t, d, tokens: torch.ones(tokens.shape)}
    )
    target, draft = pair(0.05)
    made = sd.speculative(
        target, sd.ModelDrafter(draft), PROMPT, k=4, max_new_tokens=24, sampling=GREEDY, rule=trusting()
    )
    assert made.tokens != generated(tuple(PROMPT), 24)


# Sampled: a row is its own


@pytest.mark.parametrize("rule", [sd.TokenRejection(), sd.SampleAndMatch()], ids=lambda rule: type(rule).__name__)
def test_a_rows_tokens_do_not_depend_on_its_batch(rule: object) -> None:
    """Ragged prompts, rows that stop at different times, and each row as if it were alone."""
    target, draft = pair(0.05)
    drafter, stop = sd.ModelDrafter(draft), sd.Stop(token_ids=[17, 2, 29])
    common = dict(k=4, max_new_tokens=30, stop=stop, rule=rule)
    made = sd.speculative(target, drafter, PROMPTS, seed=[11, 5, 0, 2**63 + 7], **common)
    lengths = [len(row) for row in made.tokens]
    assert len(set(lengths)) > 2, lengths
    for row, (prompt, seed) in enumerate(zip(PROMPTS, [11, 5, 0, 2**63 + 7], strict=True)):
        alone = sd.speculative(target, drafter, prompt, seed=seed, **common)
        assert alone.tokens == made.tokens[row]
        pairs = zip(alone.trace.rounds, [r for r in made.trace.rounds if r.row == row], strict=True)
        assert all((a.index, a.drafted, a.uniform, a.kept) == (b.index, b.drafted, b.uniform, b.kept) for a, b in pairs)
    turned = sd.speculative(target, drafter, PROMPTS[::-1], seed=[2**63 + 7, 0, 5, 11], **common)
    assert turned.tokens == made.tokens[::-1]


def test_naive_sampling_does_not_depend_on_the_batch_either() -> None:
    target = pair()[0]
    together = sd.autoregressive(target, PROMPTS, max_new_tokens=10, seed=4)
    alone = [sd.autoregressive(target, p, max_new_tokens=10, seed=4 + row).tokens for row, p in enumerate(PROMPTS)]
    assert together.tokens == alone


def test_seeds_decide() -> None:
    target, draft = table_pair(6)
    texts = [sd.speculative(target, sd.ModelDrafter(draft), [1], max_new_tokens=12, seed=s).tokens for s in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    one = sd.speculative(target, sd.ModelDrafter(draft), [[1], [1]], max_new_tokens=12, seed=0)
    assert one.tokens == [texts[0], texts[2]]  # row r draws from seed + r


# How often the models run


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("drafted_by", ["model", "lookup", "nobody"])
def test_the_target_runs_once_a_round(temperature: float, drafted_by: str) -> None:
    target, draft = Counted(pair()[0]), Counted(pair()[1])
    drafter = {"model": sd.ModelDrafter(draft), "lookup": sd.PromptLookupDrafter(), "nobody": None}[drafted_by]
    k = 4 if drafter else 0
    rounds = list(
        sd.stream(target, drafter, PROMPT, k=4, max_new_tokens=15, sampling=sd.Sampling(temperature=temperature))
    )
    prefill, *verified = target.widths
    assert prefill == len(PROMPT) - 1
    assert verified == [len(each.drafted) + 1 for each in rounds]
    assert target.last_only == [True] + [False] * len(rounds)
    assert max(verified) == k + 1 if drafted_by != "lookup" else max(verified) > 1
    if drafted_by == "model":
        assert len(draft.widths) == 1 + sum(len(each.drafted) for each in rounds)


def test_a_batch_is_one_forward_too_and_as_wide_as_rows_that_still_go_need() -> None:
    target, draft = Counted(pair()[0]), Counted(pair()[1])
    made = sd.speculative(target, sd.ModelDrafter(draft), PROMPTS, k=3, max_new_tokens=12, stop=sd.Stop([17, 2]))
    assert [len(row) == 12 for row in made.tokens].count(True) in (1, 2, 3)  # some end early, some at the budget
    steps = 1 + max(each.index for each in made.trace.rounds)
    widest = [max(len(r.drafted) for r in made.trace.rounds if r.index == i) for i in range(steps)]
    assert len(target.widths) == 1 + steps
    assert target.widths[1:] == [width + 1 for width in widest]
    assert len(draft.widths) == 1 + sum(widest)


# Budget and contexts


@pytest.mark.parametrize("new", [1, 2, 3, 5, 17])
def test_the_budget_is_met_exactly_and_k_gives_way(new: int) -> None:
    target, draft = pair(0.0)
    counted = Counted(draft)
    for prompt in ([2], PROMPT):
        counted.widths.clear()
        made = sd.speculative(target, sd.ModelDrafter(counted), prompt, k=16, max_new_tokens=new)
        assert len(made.tokens) == new
        assert made.trace.rounds[-1].ended == "length"
        assert [len(each.drafted) for each in made.trace.rounds] == [new - 1]  # one place is the target's own token
        assert len(counted.widths) == (len(prompt) > 1) + new - 1
        assert len(sd.autoregressive(target, prompt, max_new_tokens=new).tokens) == new


@pytest.mark.parametrize("k", [1, 4, 16])
@pytest.mark.parametrize("length", [1, 9, 15])
def test_a_text_may_fill_the_targets_context(k: int, length: int) -> None:
    target = sd.TransformersModel(llama(context=16))
    prompt = list(range(1, length + 1))
    for drafter in (sd.ModelDrafter(target), sd.PromptLookupDrafter()):
        made = sd.speculative(target, drafter, prompt, k=k, max_new_tokens=16 - length, sampling=GREEDY)
        assert made.tokens == generated(tuple(prompt), 16 - length)
        assert all(each.position + len(each.drafted) <= 16 for each in made.trace.rounds)


def test_a_row_near_its_budget_does_not_hold_back_the_others() -> None:
    """All rows have the same budget, but reach it at different times; those that wait take no part."""
    target, draft = pair(0.05)
    made = sd.speculative(target, sd.ModelDrafter(draft), PROMPTS, k=6, max_new_tokens=14, seed=8)
    assert [len(row) for row in made.tokens] == [14] * 4
    last = [max(r.index for r in made.trace.rounds if r.row == row) for row in range(4)]
    assert len(set(last)) > 1
    for each in made.trace.rounds:
        start_of_row = len(PROMPTS[each.row])
        assert len(each.drafted) <= start_of_row + 14 - each.position - 1
        assert each.position + len(each.kept) <= start_of_row + 14


def test_after_every_round_the_cache_holds_all_but_the_last_token() -> None:
    target, draft = pair(0.05)
    run = start(
        target, sd.ModelDrafter(draft), PROMPTS, k=4, max_new_tokens=15, sampling=None, stop=sd.Stop([17, 2]),
        seed=11, rule=None, trace="off",
    )  # fmt: skip
    while run.unfinished:
        run.round()
        assert run.cache.lengths == run.cache.length.tolist() == [len(text) - 1 for text in run.token_ids]
    with torch.inference_mode():  # and what it holds is the text's own keys
        fresh = target.new_cache(1, 80)
        for row, text in enumerate(run.token_ids):
            fresh.rewind(fresh.lengths)
            target.forward(torch.tensor([text[:-1]]), fresh)
            for layer, (keys, values) in run.cache.layers.items():
                for kept, truth in ((keys, fresh.layers[layer][0]), (values, fresh.layers[layer][1])):
                    n = len(text) - 1
                    torch.testing.assert_close(kept[row, :, :n], truth[0, :, :n], rtol=0, atol=1e-12)


def test_nothing_of_a_run_is_kept_for_a_gradient() -> None:
    """The prompt's forward too runs without a graph, or its activations would stay in memory."""
    target, draft = pair()
    run = start(
        target, sd.ModelDrafter(draft), PROMPT, k=2, max_new_tokens=5, sampling=None, stop=None, seed=0, rule=None,
        trace="off",
    )  # fmt: skip
    for each in (run.cache, run.session.cache):
        assert not any(kept.requires_grad for layer in each.layers.values() for kept in layer)


# What comes back


def test_one_prompt_gives_a_list_and_a_batch_a_list_of_lists() -> None:
    target, draft = table_pair()
    one = sd.speculative(target, sd.ModelDrafter(draft), [1, 2], max_new_tokens=3)
    many = sd.speculative(target, sd.ModelDrafter(draft), [[1, 2]], max_new_tokens=3)
    assert many.tokens == [one.tokens]
    assert all(type(token) is int for token in one.tokens)
    assert one.text is None and many.text is None
    assert one.tokens_per_second == pytest.approx(3 / one.seconds)
    assert many.trace.prompts == one.trace.prompts == [[1, 2]]
    assert one.trace.k == 4
    assert sd.autoregressive(target, [1, 2], max_new_tokens=3).trace.k == 0


def test_the_prompt_is_not_changed() -> None:
    prompt, batch = [1, 2], [[1, 2], [3]]
    target, draft = table_pair()
    sd.speculative(target, sd.ModelDrafter(draft), prompt, max_new_tokens=4)
    sd.speculative(target, sd.ModelDrafter(draft), batch, max_new_tokens=4)
    assert prompt == [1, 2]
    assert batch == [[1, 2], [3]]


def test_top_k_one_is_greedy() -> None:
    target, draft = pair(0.05)
    made = sd.speculative(target, sd.ModelDrafter(draft), PROMPT, max_new_tokens=12, sampling=sd.Sampling(top_k=1))
    assert made.tokens == generated(tuple(PROMPT), 24)[:12]


def test_tokens_stay_within_what_sampling_allows() -> None:
    """Each new token of a sampled text is among the target's two most probable."""
    target, draft = table_pair(8, noise=2.0)
    made = sd.speculative(
        target, sd.ModelDrafter(draft), [1], k=3, max_new_tokens=30, sampling=sd.Sampling(top_k=2), trace="full"
    )
    text = [1, *made.tokens]
    for i in range(1, len(text)):
        logits = target.table[torch.arange(i), torch.tensor(text[:i])].sum(0)
        assert text[i] in logits.topk(2).indices.tolist()
    assert made.trace.accepted_per_judged < 1
