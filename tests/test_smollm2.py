"""What ships for the chat model, without the model itself: the conversations that heads learn from, and their card."""

from __future__ import annotations

from collections import Counter

import pytest

from specdec_lite.drafters.eagle_head import EagleHead
from specdec_lite.loading.named import SMOLLM2
from specdec_lite.training.conversations import KINDS, Conversation, read
from specdec_lite.training.eagle import SHIPPED

CARD = (SHIPPED.parent / "DATA_CARD.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def conversations() -> list[Conversation]:
    return list(read(SHIPPED))


def test_the_conversations_are_whole(conversations: list[Conversation]) -> None:
    kinds = Counter(each.kind for each in conversations)
    assert set(kinds) == {"own", *KINDS}
    assert {each.temperature for each in conversations} == {0.0, 1.0}
    assert all(0 <= token < 49152 for each in conversations for token in each.prompt + each.answer)
    assert all(each.answer for each in conversations)


def test_the_model_asked_itself_different_questions(conversations: list[Conversation]) -> None:
    own = [tuple(each.prompt) for each in conversations if each.kind == "own"]
    assert len(set(own)) > 0.95 * len(own)


def test_the_card_counts_them(conversations: list[Conversation]) -> None:
    assert f"{len(conversations):,} conversations" in CARD
    assert f"{sum(len(each.answer) for each in conversations):,} tokens of answers" in CARD


@pytest.mark.skipif(not SMOLLM2.head.is_dir(), reason="no head is shipped for this model yet")
def test_the_head_is_small_and_of_this_model() -> None:
    assert sum(file.stat().st_size for file in SMOLLM2.head.iterdir()) < 25e6
    config = EagleHead.load(SMOLLM2.head).config
    assert (config.vocab_size, config.target_hidden_size, config.hidden_size) == (49152, 576, 576)
