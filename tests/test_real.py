"""The chat model itself, which is fetched (93 MB): its text, and what drafts for it. `make test-real` runs this."""

from __future__ import annotations

import pytest
import torch

import specdec_lite as sd
from specdec_lite.bench.kinds import QUESTIONS
from specdec_lite.drafters import DRAFTERS, drafter_named
from specdec_lite.loading.named import SMOLLM2
from specdec_lite.loading.pair import Pair
from specdec_lite.prompts import Chat, to_token_ids

pytestmark = pytest.mark.real
ROUNDING = ("same", "tie", "rounding")
GREEDY = sd.Sampling(temperature=0)
ASKED = [[{"role": "user", "content": some[0]}] for some in QUESTIONS.values()]
HEAD = pytest.mark.skipif(not SMOLLM2.head.is_dir(), reason="no head is shipped for this model yet")
WITHOUT_DRAFT = [pytest.param(name, marks=HEAD if name == "head" else ()) for name in DRAFTERS if name != "model"]


def ids_of(pair: Pair, asked: Chat) -> list[int]:
    return to_token_ids(asked, pair.target)[0]


@pytest.fixture(scope="module")
def pair() -> Pair:
    return sd.load_pair("smollm2")


@pytest.fixture(scope="module")
def in_bfloat16() -> Pair:
    return sd.load_pair("smollm2", dtype="bfloat16")


def test_its_text_is_transformers_own(pair: Pair) -> None:
    made = sd.autoregressive(pair.target, ASKED[0], max_new_tokens=40, sampling=GREEDY)
    ids = pair.tokenizer.apply_chat_template(ASKED[0], add_generation_prompt=True, return_tensors="pt")["input_ids"]
    theirs = pair.target.module.generate(ids, max_new_tokens=40, do_sample=False)
    assert made.tokens == theirs[0, ids.shape[1] :].tolist()
    assert "cat" in made.text.lower()  # of which it was asked


@pytest.mark.parametrize("name", WITHOUT_DRAFT)
def test_every_drafter_leaves_its_text_alone(pair: Pair, name: str) -> None:
    drafter = drafter_named(name, None, pair.head)
    for asked in ASKED[:2]:
        naive = sd.autoregressive(pair.target, asked, max_new_tokens=40, sampling=GREEDY)
        made = sd.speculative(pair.target, drafter, asked, k=4, max_new_tokens=40, sampling=GREEDY)
        assert sd.explain_difference(pair.target, ids_of(pair, asked), naive.tokens, made.tokens).kind in ROUNDING


def test_in_bfloat16_too(in_bfloat16: Pair) -> None:
    target, how = in_bfloat16.target, dict(max_new_tokens=40, sampling=GREEDY)
    assert target.dtype == torch.bfloat16
    naive = sd.autoregressive(target, ASKED[0], **how)
    made = sd.speculative(target, in_bfloat16.drafter, ASKED[0], **how)
    found = sd.explain_difference(target, ids_of(in_bfloat16, ASKED[0]), naive.tokens, made.tokens)
    assert found.kind in ROUNDING


@HEAD
def test_the_head_reads_its_mind(pair: Pair) -> None:
    """Where the answer repeats nothing, it has far more tokens a round than prompt lookup."""
    how = dict(k=4, max_new_tokens=64, sampling=GREEDY)
    rounds = {
        name: len(sd.speculative(pair.target, drafter_named(name, None, pair.head), ASKED[0], **how).trace.rounds)
        for name in ("head", "lookup")
    }
    assert rounds["head"] < 0.75 * rounds["lookup"]


def test_prompt_lookup_lives_on_repeats(pair: Pair) -> None:
    lookup, how = sd.PromptLookupDrafter(), dict(k=4, max_new_tokens=48, sampling=GREEDY)
    per_round = {
        kind: sd.speculative(pair.target, lookup, asked, **how).trace.tokens_per_round_with_bonus
        for kind, asked in zip(QUESTIONS, ASKED, strict=True)
        if kind in ("chat", "rewrite")
    }
    assert per_round["rewrite"] > 1.5 * per_round["chat"]
