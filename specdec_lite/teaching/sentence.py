"""Two toy models that know one sentence by heart; the draft has three words of it wrong.

They are tables in float64, so what they say is the same on every machine, and they say it only when
their cache holds the right word in the right slot: a hole or a leftover makes them stumble.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..models import TableModel

SENTENCE = (
    *("the", "draft", "guesses", "four", "words", "ahead", "and", "the", "target", "reads", "them", "all"),
    *("at", "once", "then", "it", "keeps", "every", "guess", "up", "to", "the", "first", "slip"),
)
SLIPS = {5: "aloud", 11: "both", 20: "until"}  # place in the sentence -> what the draft takes it for
WORDS = tuple(dict.fromkeys([*SENTENCE, *SLIPS.values()]))  # the vocabulary
PROMPT = 3  # words given
CONTEXT = 40


def ids(words: Sequence[str]) -> list[int]:
    return [WORDS.index(word) for word in words]


def say(tokens: Sequence[int]) -> str:
    """Tokens as words with spaces between them."""
    return " ".join(WORDS[token] for token in tokens)


def pair() -> tuple[TableModel, TableModel]:
    """Target and draft."""
    slipping = [SLIPS.get(i, word) for i, word in enumerate(SENTENCE)]
    return reciter(SENTENCE, slipping), reciter(slipping, SENTENCE)


def reciter(said: Sequence[str], heard: Sequence[str]) -> TableModel:
    """A model that says `said`. Of each place it knows its own word and the one of `heard`.

    Slot j votes 2^j for the word after its own, so the last slot that knows its word decides.
    """
    model = TableModel(len(WORDS), CONTEXT)
    model.table.zero_()
    for j, (one, other, after) in enumerate(zip(ids(said), ids(heard), ids(said)[1:], strict=False)):
        model.table[j, [one, other], after] = 2.0**j
    return model
