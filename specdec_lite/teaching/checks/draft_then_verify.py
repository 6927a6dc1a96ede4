"""The exercises of notebook 03, the algorithm built by hand.

The whole loop is compared with the library's own `autoregressive` and `speculative`, on tables in
float64. The small answers are formulas; the tests compare them with the caches of a real run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...acceptance import TokenRejection
from ...decoding import autoregressive, speculative
from ...drafters.model import ModelDrafter
from ...models import TableModel
from ...randomness import SeededStreams
from ...sampling.distributions import Sampling
from ...stopping import Stop
from ..toys import PROMPT, SENTENCE, Reader, ids, pair
from ._framework import Case, Check, shown

GREEDY = Sampling(temperature=0)


def _prefix(drafted: Sequence[int], favourites: Sequence[int]) -> int:
    """By the library's own rule: a greedy chance is 1 or 0."""
    chance = [float(one == other) for one, other in zip(drafted, favourites, strict=False)]
    streams = SeededStreams([0], len(chance))
    streams.begin_round()
    return int(streams.accept(torch.tensor([chance], dtype=torch.float64), TokenRejection().accepted_length)[0])


def _matches(drafted: Sequence[int], favourites: Sequence[int]) -> list[bool]:
    return [one == other for one, other in zip(drafted, favourites, strict=False)]


ROUNDS: tuple[tuple[list[int], list[int], str], ...] = (
    ([], [4], "nothing drafted"),
    ([4], [4, 7], "one guess, and it is right"),
    ([4], [5, 7], "one guess, and it is wrong"),
    ([1, 2], [1, 2, 3], "both right"),
    ([1, 2], [1, 9, 3], "the second one is wrong"),
    ([1, 2, 3], [9, 2, 3, 4], "a match after a mismatch does not count"),
    ([1, 2, 3, 4], [1, 2, 9, 4, 5], "a match after a mismatch does not count"),
    ([3, 5, 5, 5], [5, 5, 5, 5, 5], "each guess is compared with the favourite at its own place"),
)

accepted_prefix = Check(
    "accepted_prefix",
    ("drafted", "favourites"),
    [Case((drafted, best), _prefix(drafted, best), about) for drafted, best, about in ROUNDS],
    {
        "You counted all matches. A guess after a wrong one continued a text that no longer exists.": (
            lambda d, f: sum(_matches(d, f))
        ),
        "That is the number of tokens the round writes. The corrected or bonus token was never drafted.": (
            lambda d, f: _prefix(d, f) + 1
        ),
        "Off by one place: row 0 judges the first guess, since it is what the target says before any guess.": (
            lambda d, f: _prefix(d, f[1:])
        ),
        "A wrong guess in between does not count, nor does anything after it: begin from the left, stop there.": (
            lambda d, f: max([i + 1 for i, each in enumerate(_matches(d, f)) if each], default=0)
        ),
        "All or nothing wastes the guesses before the first wrong one: they are kept.": (
            lambda d, f: len(d) if all(_matches(d, f)) else 0
        ),
    },
    praise="The rest of the algorithm hangs on this number.",
    hint="How many guesses, from the left, equal the favourite at the same place?",
)

FORWARDS: tuple[tuple[int, int, int, str], ...] = (  # tokens of the text, tokens held, guesses
    (1, 0, 1, "the text is one token, nothing is cached"),
    (6, 5, 0, "nothing drafted: the forward reads one token and has one row"),
    (6, 5, 4, "all but the last token is cached, as between two rounds"),
    (6, 0, 4, "nothing is cached, so the forward reads the whole text too"),
    (9, 6, 2, "three tokens of the text have not been read yet"),
    (100, 99, 3, "all but the last token is cached"),
)

rows_that_judge = Check(
    "rows_that_judge",
    ("length", "held", "k"),
    [Case((n, held, k), [n - held - 1 + i for i in range(k + 1)], about) for n, held, k, about in FORWARDS],
    {
        "Row i is what the model says after it has read token i. A guess is judged by the row before its own.": (
            lambda n, held, k: [n - held + i for i in range(k + 1)]
        ),
        "These are positions in the text. The rows of a forward are counted from its own first token.": (
            lambda n, held, k: [n - 1 + i for i in range(k + 1)]
        ),
        "One row is missing: the last one judges nothing, but the bonus token comes from it.": (
            lambda n, held, k: [n - held - 1 + i for i in range(k)]
        ),
        "That holds when the cache lacks one token only. Here the forward reads more of the text first.": (
            lambda n, held, k: list(range(k + 1))
        ),
        "These are all rows. Those before the text's last token predict what the text says already.": (
            lambda n, held, k: list(range(n - held + k))
        ),
    },
    praise="K guesses need K + 1 rows, and the first is that of the text's last token.",
    hint="Write down the tokens that the forward reads, and under each what its row predicts.",
)

OUTCOMES = [(k, accepted) for k in (1, 2, 4) for accepted in range(k + 1)]


def _about(k: int, accepted: int) -> str:
    return "every guess kept" if accepted == k else "every guess rejected" if accepted == 0 else "some kept"


slots_to_rewind = Check(
    "slots_to_rewind",
    ("k", "accepted"),
    [Case((k, a), [k - a, max(0, k - 1 - a)], f"target, draft; {_about(k, a)}") for k, a in OUTCOMES],
    {
        "The draft never read its last guess, so it has one token fewer to forget than the target.": (
            lambda k, a: (k - a, k - a)
        ),
        "One too few in the target: a rejected guess stays in sight, and everything after it shifts.": (
            lambda k, a: (max(0, k - a - 1), max(0, k - 1 - a))
        ),
        "One too many in the target: its cache already lacks the new last token, which was never read.": (
            lambda k, a: (k - a + 1, max(0, k - 1 - a))
        ),
        "A rewind can't be negative. After full acceptance the draft lacks a token; it has none to forget.": (
            lambda k, a: (k - a, k - 1 - a)
        ),
        "That is the other way round: first the target, then the draft.": lambda k, a: (max(0, k - 1 - a), k - a),
        "These slots are worth keeping: an accepted guess has been read already, by both.": (lambda k, a: (k + 1, k)),
    },
    praise="Nobody copies a key or a value: a length is made smaller.",
    hint="What did each cache read in this round? How many of these tokens are in the text now?",
)

FEEDS: tuple[tuple[list[int], int, int], ...] = (
    ([5, 7], 1, 0),
    ([5, 7, 8], 1, 1),
    ([1, 2, 3, 4], 4, 2),
    ([1, 2, 3, 4, 5, 6], 4, 3),
    ([1, 2, 3, 4, 5, 6], 4, 4),
    ([9, 9, 9, 9], 2, 2),
)

tokens_to_feed = Check(
    "tokens_to_feed",
    ("text", "k", "accepted"),
    [
        Case((text, k, a), text[-2:] if a == k else text[-1:], "every guess was kept" if a == k else "a guess failed")
        for text, k, a in FEEDS
    ],
    {
        "After full acceptance the draft's own last guess is in the text, and the draft has never read it.": (
            lambda text, k, a: text[-1:]
        ),
        "Two tokens only after full acceptance. Otherwise the draft has read all but the last one.": (
            lambda text, k, a: text[-2:]
        ),
        "The newest token is missing: the target wrote it, and the draft must read it before it goes on.": (
            lambda text, k, a: text[-2:-1] if a == k else []
        ),
        "That is all that the round wrote. The draft has read its accepted guesses when it made the next one.": (
            lambda text, k, a: text[-(a + 1) :]
        ),
        "The whole text is right but slow: the cache is there so that nothing is read twice.": lambda text, k, a: text,
    },
    praise="Now the draft's cache has no holes.",
    hint="Which tokens at the end of the text are not in the draft's cache?",
)


# The whole loop


class Model(Reader):
    """A reader that is handed out as a fresh copy; `used` is the copy handed out last."""

    def __init__(self, model: TableModel, name: str) -> None:
        super().__init__(model)
        self.name = name
        self.used: Reader = self

    def __deepcopy__(self, _: dict[int, Any]) -> Model:
        self.used = Model(self.model, self.name)  # type: ignore[arg-type]
        return self.used  # type: ignore[return-value]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model)  # to be read from is what it is for: no change of an argument

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{self.name}>"


def _table(seed: int, noise: float = 0.0) -> TableModel:
    """A table of five tokens, or the same with noise."""
    model = TableModel(5, 40, seed=seed)
    model.table = model.table + noise * TableModel(5, 40, seed=seed + 100).table
    return model


class Loop:
    """What a greedy loop must do: the tokens of naive decoding, in as few forwards as the library needs."""

    def __init__(self, target: Model, draft: Model, prompt: list[int], k: int, new: int) -> None:
        common = dict(max_new_tokens=new, sampling=GREEDY, stop=Stop())
        self.target, self.draft, self.prompt, self.k, self.new = target, draft, prompt, k, new
        self.tokens: list[int] = autoregressive(target.model, prompt, **common).tokens  # type: ignore[arg-type]
        made = speculative(target.model, ModelDrafter(draft.model), prompt, k=k, **common)  # type: ignore[arg-type]
        self.rounds = len(made.trace.rounds)

    def __call__(self, answer: Any) -> str:
        """What is wrong, "" when nothing is."""
        if not isinstance(answer, (list, tuple)):
            return f"gave {shown(answer)}, expected a list of {self.new} new tokens"
        answer = list(answer)
        if answer != self.tokens:
            return self._tokens(answer)
        return self._work()

    def _tokens(self, answer: list[int]) -> str:
        if answer == self.prompt + self.tokens:
            return "gave the prompt too: return the new tokens alone"
        if answer[: self.new] == self.tokens:
            return f"gave {len(answer)} tokens, and {self.new} were asked for: cut what is beyond the budget"
        told = f"gave {shown(answer)}, naive decoding writes {shown(self.tokens)}"
        return told + _hole(self.target, self.prompt + self.tokens, "target")

    def _work(self) -> str:
        if not self.draft.used.reads and self.new > 1:
            return "wrote the right tokens without asking the draft"
        forwards, tokens = len(self.target.used.reads), sum(self.target.used.reads)
        first = self.target.used.reads[0] <= len(self.prompt)  # the prompt was read by itself
        if forwards > self.rounds + first:
            why = _hole(self.draft, self.prompt + self.tokens, "draft")
            if self.draft.model is self.target.model:
                why += "; this draft is the target itself, so every guess should be kept"
            return f"wrote the right tokens in {forwards} forwards of the target, and {self.rounds} will do{why}"
        most = len(self.prompt) + self.rounds * (self.k + 1)
        if tokens > most:
            return f"wrote the right tokens, but the target read {tokens} tokens, and {most} will do: keep its cache"
        return ""


def _hole(reader: Model, text: list[int], name: str) -> str:
    """Where the cache parts from the text, if it does."""
    seen = reader.used.slots[: reader.used.held]
    for j, (one, other) in enumerate(zip(seen, text, strict=False)):
        if one != other:
            return f"; slot {j} of the {name}'s cache holds {one}, the text has {other} there"
    return ""


def _loops() -> list[Case]:
    settings = [  # target, draft, prompt, k, new tokens, about
        (_table(1), _table(2), [0], 1, 1, "one new token: no room for a guess"),
        (_table(1), _table(2), [0, 1], 2, 6, "a draft that knows little"),
        (_table(3), _table(3, 0.4), [0, 1], 3, 12, "a draft that often agrees"),
        (_table(4), _table(4, 0.3), [2, 0, 1], 4, 16, "a draft that often agrees"),
        (*pair(), ids(SENTENCE[:PROMPT]), 4, 21, "the sentence of the notebook"),
        (same := pair()[0], same, ids(SENTENCE[:PROMPT]), 4, 21, "a draft identical to the target"),
    ]
    cases = []
    for target, draft, prompt, k, new, about in settings:
        handed = (Model(target, "target"), Model(draft, "draft"), prompt, k, new)
        cases.append(Case(handed, Loop(*handed), about))
    return cases


def _mistaken(row: int = 0, write: int | None = None, keep: int = 0, every: bool = False) -> Callable[..., list[int]]:
    """The loop, with one part exchanged.

    Args:
        row: which row judges the first guess.
        write: from which row on the last token is taken, when it is another.
        keep: slots that the target's rewind leaves too many.
        every: keep all guesses, unjudged.
    """

    def loop(target: Reader, draft: Reader, prompt: list[int], k: int, new: int) -> list[int]:
        text, end = list(prompt), len(prompt) + new
        while len(text) < end:
            guesses: list[int] = []
            while len(guesses) < min(k, end - len(text) - 1):
                feed = guesses[-1:] or text[draft.held :]
                guesses.append(int(draft.read(feed)[-1].argmax()))
            unread = text[target.held :] or text[-1:]
            best = target.read(unread + guesses).argmax(-1).tolist()[len(unread) - 1 :]
            judge = best[row:] + best[-1:]
            accepted = len(guesses) if every else _prefix(guesses, judge)
            last = judge if write is None else best[write:]
            text += guesses[:accepted] + [last[accepted]]
            target.rewind(max(0, target.held - len(text) + 1 - keep))
            draft.rewind(max(0, draft.held - len(text) + 1))
        return text[len(prompt) : end]

    return loop


greedy_speculative = Check(
    "greedy_speculative",
    ("target", "draft", "prompt", "k", "new_tokens"),
    _loops(),
    {
        "Off by one row: the row of the text's last token judges the first guess.": _mistaken(row=1),
        "The first guess is judged by the row of the text's last token, not by its own.": _mistaken(row=1, write=0),
        "The target was rewound one too few, so a rejected guess stays in sight and shifts all after it.": (
            _mistaken(keep=1)
        ),
        "The target was never rewound: rejected guesses are still in its sight.": _mistaken(keep=100),
        "Guesses went into the text unjudged: keep only those that equal the target's favourite.": (
            _mistaken(every=True)
        ),
    },
    praise="Naive decoding's text, in fewer forwards: you have built speculative decoding.",
    hint="After every round, print the text, target.slots[:target.held] and draft.slots[:draft.held].",
)
