"""Logits processors under speculation: the target's processed distribution, whatever is drafted or rejected."""

from __future__ import annotations

import copy
import inspect
import re
from typing import Any

import pytest
import torch
import transformers.generation.logits_process as listed
from tiny import PROMPT, VOCAB, pair, table_pair
from torch import Tensor
from transformers import (
    ExponentialDecayLengthPenalty,
    ForcedEOSTokenLogitsProcessor,
    LogitsProcessor,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TypicalLogitsWarper,
)

import specdec_lite as sd
from specdec_lite.sampling.processors import KEEP_STATE, RUN_A_MODEL, WANT_PAIRED_ROWS, Processors
from specdec_lite.theory.exact import largest_difference, sequence_distribution, target_distribution

GREEDY = sd.Sampling(temperature=0)


def no_neighbours(input_ids: Tensor, scores: Tensor) -> Tensor:
    """A user's own: never the token before or after the last one. Writes in place, as people do."""
    last = int(input_ids[0, -1])
    for token in (last - 1, last + 1):
        if 0 <= token < scores.shape[1]:
            scores[:, token] -= 3.0
    return scores


def favour_long(input_ids: Tensor, scores: Tensor) -> Tensor:
    """Depends on the length of the prefix, so padding or a place off by one would show."""
    scores[:, input_ids.shape[1] % scores.shape[1]] += 2.0
    return scores


CHAINS: dict[str, list[Any]] = {
    "repetition penalty": [RepetitionPenaltyLogitsProcessor(1.8)],
    "no repeated pair": [NoRepeatNGramLogitsProcessor(2)],
    "bad words": [NoBadWordsLogitsProcessor([[1, 2], [0]])],
    "minimum length": [MinNewTokensLengthLogitsProcessor(3, 2, 2)],
    "own functions": [no_neighbours, favour_long],
    "several": [RepetitionPenaltyLogitsProcessor(1.5), favour_long, TopKLogitsWarper(2)],
}


def fresh(name: str) -> list[Any]:
    return copy.deepcopy(CHAINS[name])  # some keep the width of the first vocabulary that they meet


@pytest.mark.parametrize("rule", [sd.TokenRejection(), sd.SampleAndMatch()], ids=["rejection", "match"])
@pytest.mark.parametrize("name", CHAINS)
def test_enumeration_gives_the_processed_distribution(name: str, rule: Any) -> None:
    target, draft = table_pair(vocab=3)
    common = dict(max_new_tokens=3, stop=sd.Stop([2]), processors=fresh(name))
    truth = target_distribution(target, [0, 1, 0], **common)
    for drafter in (sd.ModelDrafter(draft), sd.PromptLookupDrafter(), None):
        made = sequence_distribution(target, drafter, [0, 1, 0], k=2, rule=rule, **common)
        assert largest_difference(made, truth) < 1e-12
    plain = target_distribution(target, [0, 1, 0], max_new_tokens=3, stop=sd.Stop([2]))
    assert largest_difference(plain, truth) > 1e-3  # it does something here


def leaking(self: Processors, scores: Tensor, texts: Any, tokens: Tensor, before: Any = None) -> Tensor:
    """BUG: every place sees all drafted tokens, so a penalty falls on tokens that were rejected."""
    whole = [torch.tensor([*text, *row]) for text, row in zip(texts, tokens.tolist(), strict=True)]
    done = scores.clone()
    for row, chain in enumerate(self.rows):
        for processor in chain:
            for place in range(scores.shape[1]):
                done[row, place] = processor(whole[row][None], done[row, place][None])[0]
    return done


def test_a_penalty_that_leaks_from_rejected_tokens_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    target, draft = table_pair(vocab=3)
    common = dict(max_new_tokens=3, stop=sd.Stop(), processors=fresh("repetition penalty"))
    truth = target_distribution(target, [0, 1, 0], **common)
    monkeypatch.setattr(Processors, "__call__", leaking)
    made = sequence_distribution(target, sd.ModelDrafter(draft), [0, 1, 0], k=2, **common)
    assert largest_difference(made, truth) > 1e-3


@pytest.mark.parametrize("name", CHAINS)
def test_greedy_text_is_that_of_transformers(name: str) -> None:
    target, draft = pair(0.15)
    chain = fresh(name)
    if name == "minimum length":
        chain = [MinNewTokensLengthLogitsProcessor(len(PROMPT), 20, 2)]
    theirs = target.module.generate(
        torch.tensor([PROMPT]), max_new_tokens=30, do_sample=False, logits_processor=LogitsProcessorList(chain),
        pad_token_id=0, eos_token_id=None,
    )[0, len(PROMPT) :].tolist()  # fmt: skip
    common = dict(max_new_tokens=30, sampling=GREEDY, processors=chain, stop=sd.Stop())
    assert sd.autoregressive(target, PROMPT, **common).tokens == theirs
    for k in (1, 4, 9):
        made = sd.speculative(target, sd.ModelDrafter(draft), PROMPT, k=k, **common)
        assert made.tokens == theirs
        assert {each.kind for each in made.trace.rounds} >= {"corrected"}


def test_rows_of_a_ragged_batch_each_see_their_own_prefix() -> None:
    target, draft = pair(0.1)
    prompts = [[5, 1, 7], [3], [9, 9, 2, 8, 1, 4]]
    chain = [RepetitionPenaltyLogitsProcessor(1.7), NoRepeatNGramLogitsProcessor(3), favour_long]
    for sampling in (GREEDY, sd.Sampling(0.9)):
        common = dict(k=4, max_new_tokens=18, sampling=sampling, processors=chain, stop=sd.Stop([11]))
        made = sd.speculative(target, sd.ModelDrafter(draft), prompts, seed=3, **common)
        for row, prompt in enumerate(prompts):
            alone = sd.speculative(target, sd.ModelDrafter(draft), prompt, seed=3 + row, **common)
            assert alone.tokens == made.tokens[row]


def test_a_list_of_lists_gives_each_row_its_own() -> None:
    target, draft = pair(0.1)
    prompts, common = [[5, 1, 7], [3]], dict(k=3, max_new_tokens=12, sampling=GREEDY, stop=sd.Stop())
    chains = [[NoBadWordsLogitsProcessor([[7]])], []]
    made = sd.speculative(target, sd.ModelDrafter(draft), prompts, processors=chains, **common)
    for row, prompt in enumerate(prompts):
        alone = sd.speculative(target, sd.ModelDrafter(draft), prompt, processors=chains[row], **common)
        assert alone.tokens == made.tokens[row]
    assert 7 not in made.tokens[0]


def test_draft_and_target_are_processed_alike() -> None:
    """A draft identical to the target keeps everything, also under a strong penalty."""
    target, _ = pair()
    chain = [RepetitionPenaltyLogitsProcessor(2.5), favour_long, TypicalLogitsWarper(0.7)]
    made = sd.speculative(target, sd.ModelDrafter(target), PROMPT, k=5, max_new_tokens=40, processors=chain)
    assert made.trace.accepted_per_judged == 1.0


def test_a_processor_that_writes_over_its_ids_changes_no_other_place() -> None:
    """Every place, row and model has ids of its own: the prefix that holds there."""
    seen: list[list[int]] = []

    def vandal(input_ids: Tensor, scores: Tensor) -> Tensor:
        seen.append(input_ids[0].tolist())
        input_ids.fill_(0)
        return scores

    Processors([[vandal], [vandal]])(torch.zeros(2, 3, VOCAB), [PROMPT, [3]], torch.tensor([[4, 6], [8, 9]]))
    rows = [[*PROMPT, 4, 6], [3, 8, 9]]
    assert seen == [row[: len(row) - 2 + place] for row in rows for place in range(3)]


def test_the_given_scores_and_ids_stay_as_they_were() -> None:
    def vandal(input_ids: Tensor, scores: Tensor) -> Tensor:
        input_ids.fill_(0)
        scores.fill_(-1.0)
        scores[:, 3] = 1.0
        return scores

    target, draft = pair()
    made = sd.speculative(
        target, sd.ModelDrafter(draft), PROMPT, max_new_tokens=9, sampling=GREEDY, processors=[vandal]
    )
    assert made.tokens == [3] * 9
    scores, tokens = torch.zeros(1, 2, VOCAB).double(), torch.tensor([[4]])
    done = Processors([[vandal]])(scores, [PROMPT], tokens)
    assert scores.abs().sum() == 0 and tokens.tolist() == [[4]] and done[0, 0, 3] == 1.0


def random_bias(input_ids: Tensor, scores: Tensor) -> Tensor:
    return scores + torch.rand(())


class Counter:
    """Remembers how often it was asked."""

    calls = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.calls += 1
        return scores + self.calls


class Seen:
    """Penalises every token that it ever met, those of rejected drafts too."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.seen |= set(input_ids[0].tolist())
        scores[:, list(self.seen)] -= 1.0
        return scores


@pytest.mark.parametrize(
    ("processors", "error", "words"),
    [
        ([random_bias], ValueError, "random_bias answers one question in two ways"),
        ([Counter()], ValueError, "Counter answers one question in two ways"),
        ([lambda ids, scores: scores[0]], ValueError, r"must return scores of shape \(1, 37\), got \(37,\)"),
        ([lambda ids, scores: None], ValueError, "got NoneType"),
        ([3], TypeError, "called with .*got 3"),
        ([RepetitionPenaltyLogitsProcessor], TypeError, "called with"),
        (RepetitionPenaltyLogitsProcessor(1.2), TypeError, "a list of them"),
        ([[no_neighbours]], ValueError, "1 lists for 2 prompts"),
        (
            [PrefixConstrainedLogitsProcessor(lambda b, ids: [1], 1)],
            ValueError,
            "its place in the batch: pass a list of",
        ),
        ([MinNewTokensLengthLogitsProcessor(2, 3, 0)], ValueError, "length of its prompt"),
        ([ExponentialDecayLengthPenalty((5, 1.5), 0, 2)], ValueError, "length of its prompt"),
    ],
)
def test_what_cannot_be_right_is_refused_before_any_forward(processors: Any, error: type, words: str) -> None:
    target, draft = pair()
    with pytest.raises(error, match=words):
        sd.speculative(target, sd.ModelDrafter(draft), [[1, 2], [3]], processors=processors)
    with pytest.raises(error, match=words):
        sd.autoregressive(target, [[1, 2], [3]], processors=processors)


def test_a_memory_of_tokens_is_noticed() -> None:
    for _ in range(20):  # whatever token it is asked about
        with pytest.raises(ValueError, match="Seen answers one question in two ways"):
            sd.autoregressive(pair()[0], PROMPT, processors=[Seen()])


def test_a_mask_of_everything_is_an_error_and_not_a_token() -> None:
    target, draft = pair()

    def nothing_after_eight(input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores - torch.inf if input_ids.shape[1] > 8 else scores

    for sampling in (GREEDY, sd.Sampling()):
        with pytest.raises(ValueError, match="left no token with a probability"):
            sd.speculative(target, sd.ModelDrafter(draft), PROMPT, sampling=sampling, processors=[nothing_after_eight])


def test_every_processor_of_transformers_is_refused_or_keeps_no_state() -> None:
    """A new one that writes a field when it is called makes this fail, so that a person looks at it."""
    kinds = [kind for kind in vars(listed).values() if inspect.isclass(kind) and issubclass(kind, LogitsProcessor)]
    known = KEEP_STATE | RUN_A_MODEL | WANT_PAIRED_ROWS
    assert known <= {kind.__name__ for kind in kinds}
    writers = {kind.__name__ for kind in kinds if re.search(r"self\.\w+ \|?=[^=]", inspect.getsource(kind.__call__))}
    # These two move a tensor of their own to the device of the scores.
    assert writers - known <= {"RepetitionPenaltyLogitsProcessor", "ExponentialDecayLengthPenalty"}
    assert writers & known
    synth = listed.SynthIDTextWatermarkLogitsProcessor(
        ngram_len=3, keys=[1, 2], sampling_table_size=64, sampling_table_seed=0, context_history_size=8,
        device=torch.device("cpu"),
    )  # fmt: skip
    with pytest.raises(ValueError, match="SynthIDTextWatermarkLogitsProcessor keeps state"):
        sd.autoregressive(pair()[0], PROMPT, processors=[synth])


def test_a_length_that_forces_the_end_is_met_at_the_right_place() -> None:
    target, draft = pair(0.05)
    chain = [ForcedEOSTokenLogitsProcessor(len(PROMPT) + 6, 4)]
    made = sd.speculative(
        target, sd.ModelDrafter(draft), PROMPT, k=4, max_new_tokens=20, stop=sd.Stop([4]), processors=chain, seed=5
    )
    assert len(made.tokens) <= 6 and made.tokens[-1] == 4
