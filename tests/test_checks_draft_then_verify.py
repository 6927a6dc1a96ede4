"""The exercises of notebook 03: what they call right is what the caches of a real run do, and mistakes are named.

`test_checks` runs what holds for every exercise, with the wrong answers below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

import specdec_lite as sd
from specdec_lite.kv_cache import KVCache
from specdec_lite.teaching import check
from specdec_lite.teaching import toys as sentence
from specdec_lite.teaching.checks.draft_then_verify import FEEDS, GREEDY, OUTCOMES
from specdec_lite.teaching.toys import Reader

NAMES = ("accepted_prefix", "rows_that_judge", "slots_to_rewind", "tokens_to_feed", "greedy_speculative")

# The whole loop, as a student may write it


def naive(target: Any, draft: Any, prompt: list[int], k: int, new: int) -> list[int]:
    text = list(prompt)
    while len(text) < len(prompt) + new:
        text.append(int(target.read(text[target.held :])[-1].argmax()))
    return text[len(prompt) :]


def loop(
    target: Any,
    draft: Any,
    prompt: list[int],
    k: int,
    new: int,
    *,
    feed_last_only: bool = False,
    one_by_one: bool = False,
    again: bool = False,
    budget: bool = True,
    cut: bool = True,
    prefill: bool = False,
    slack: int = 0,
    draft_slack: int = 0,
    row: int = 0,
    whole: bool = False,
) -> Any:
    """Right with the defaults; each switch is something that students do."""
    text = list(prompt)
    if prefill and len(prompt) > 1:
        target.read(prompt[:-1])
        draft.read(prompt[:-1])
    while len(text) < len(prompt) + new:
        room = min(k, len(prompt) + new - len(text) - 1) if budget else k
        feed, guesses = (text[-1:] if feed_last_only and draft.held else text[draft.held :]), []
        for _ in range(room):
            guesses.append(int(draft.read(feed)[-1].argmax()))
            feed = guesses[-1:]
        if again:
            target.rewind(target.held)
        unread = text[target.held :] or text[-1:]
        if one_by_one:
            best = [target.read(unread)[-1].argmax().item()] + [target.read([x])[-1].argmax().item() for x in guesses]
        else:
            best = target.read([*unread, *guesses]).argmax(-1).tolist()[len(unread) - 1 :]
        accepted = 0
        while accepted < len(guesses) and guesses[accepted] == best[min(accepted + row, len(best) - 1)]:
            accepted += 1
        text += [*guesses[:accepted], best[accepted]]
        target.rewind(max(0, target.held - (len(text) - 1) - slack))
        draft.rewind(max(0, draft.held - (len(text) - 1) - draft_slack))
    if whole:
        return text
    return text[len(prompt) :][:new] if cut else text[len(prompt) :]


def switched(**switch: Any) -> Callable[..., Any]:
    return lambda *given: loop(*given, **switch)


def prefix(drafted: Sequence[int], favourites: Sequence[int]) -> int:
    i = 0
    while i < len(drafted) and drafted[i] == favourites[i]:
        i += 1
    return i


WRONG: dict[str, list[tuple[Callable[..., Any], str]]] = {
    "accepted_prefix": [
        (lambda d, f: sum(a == b for a, b in zip(d, f, strict=False)), "a match after a mismatch does not count"),
        (lambda d, f: sum(a == b for a, b in zip(d, f, strict=False)), "You counted all matches"),
        (lambda d, f: prefix(d, f) + 1, "number of tokens the round writes"),
        (lambda d, f: prefix(d, f[1:] + [None]), "row 0 judges the first guess"),
        (lambda d, f: len(d) * (d == f[: len(d)]), "All or nothing"),
        (lambda d, f: d[: prefix(d, f)], "expected a number"),
    ],
    "rows_that_judge": [
        (lambda n, held, k: list(range(n - held, n - held + k + 1)), "the row before its own"),
        (lambda n, held, k: list(range(n - 1, n + k)), "counted from its own first token"),
        (lambda n, held, k: list(range(n - held - 1, n - held + k - 1)), "the bonus token comes from it"),
        (lambda n, held, k: list(range(k + 1)), "reads more of the text first"),
        (lambda n, held, k: list(range(n - held + k)), "predict what the text says already"),
    ],
    "slots_to_rewind": [
        (lambda k, a: (k - a, k - a), "never read its last guess"),
        (lambda k, a: (k + 1 - a, max(0, k - a - 1)), "One too many in the target"),
        (lambda k, a: (max(k - a - 1, 0), max(k - a - 1, 0)), "One too few in the target"),
        (lambda k, a: (k - a, k - a - 1), "can't be negative"),
        (lambda k, a: (max(k - a - 1, 0), k - a), "the other way round"),
        (lambda k, a: k - a, "expected a list of 2 numbers"),
    ],
    "tokens_to_feed": [
        (lambda text, k, a: [text[-1]], "has never read it"),
        (lambda text, k, a: text[-2:], "Two tokens only after full acceptance"),
        (lambda text, k, a: text, "right but slow"),
        (lambda text, k, a: text[len(text) - a - 1 :], "all that the round wrote"),
        (lambda text, k, a: text[-1], "expected a list of 1 numbers"),
    ],
    "greedy_speculative": [
        (naive, "without asking the draft"),
        (switched(one_by_one=True), "forwards of the target, and "),
        (switched(feed_last_only=True), "slot 9 of the draft's cache holds "),
        (switched(draft_slack=1), "a cache leaves out the text's last one"),
        (switched(again=True), "keep its cache"),
        (switched(budget=False, cut=False), "cut what is beyond the budget"),
        (switched(slack=1), "rewound one too few"),
        (switched(slack=1), "of the target's cache holds "),
        (switched(slack=99), "never rewound"),
        (switched(row=1), "not by its own"),
        (switched(whole=True), "return the new tokens alone"),
        (lambda t, d, p, k, n: loop(t, d, p, k, n)[0], "expected a list of 1 new tokens"),
        (lambda t, d, p, k, n: t.rewind(1), "raised ValueError: can forget 0 to 0 tokens, got 1"),
    ],
}


@pytest.mark.parametrize("name", NAMES)
def test_three_mistakes_or_more_are_tried(name: str) -> None:
    assert len(WRONG[name]) >= 3


@pytest.mark.parametrize(("name", "wrong", "told"), [(n, *each) for n, all_ in WRONG.items() for each in all_])
def test_a_wrong_answer_is_named(name: str, wrong: Callable[..., Any], told: str) -> None:
    verdict = getattr(check, name).judge(wrong)
    assert not verdict.passed
    assert told in verdict.text
    assert verdict.text.count("\n") <= 1


@pytest.mark.parametrize(
    "switches", [{}, dict(prefill=True), dict(budget=False)], ids=["unread", "prefill first", "cut at the end"]
)
def test_every_right_loop_passes(switches: dict[str, bool]) -> None:
    for _ in range(2):  # a check can be asked again
        verdict = check.greedy_speculative.judge(switched(**switches))
        assert verdict.passed, verdict.text


# What the library does


class Watched(sd.TableModel):
    """A model that keeps its caches where a test sees them, and tells what each forward read."""

    def __init__(self, slips: int, context: int = 40) -> None:
        """Says 1 everywhere; says 2 from the place `slips` on."""
        super().__init__(3, context)
        self.table.zero_()
        for slot in range(context):
            self.table[slot, :, 1 if slot < slips else 2] = 2.0**slot
        self.caches: list[KVCache] = []
        self.reads: list[list[int]] = []
        self.held: list[int] = []  # after each rewind

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        self.caches.append(super().new_cache(batch, capacity))
        return self.caches[-1]

    def forward(self, tokens: torch.Tensor, cache: KVCache, last_only: bool = False) -> torch.Tensor:
        self.held.append(cache.lengths[0])
        self.reads.append(tokens[0].tolist())
        return super().forward(tokens, cache, last_only)


@pytest.mark.parametrize(("k", "accepted"), OUTCOMES)
def test_the_formulas_are_what_the_library_does(k: int, accepted: int) -> None:
    prompt = [0, 0]
    target, draft = Watched(99), Watched(len(prompt) - 1 + accepted)
    rounds = sd.stream(
        target, sd.ModelDrafter(draft), prompt, k=k, max_new_tokens=3 * k + 3, sampling=GREEDY, stop=sd.Stop()
    )
    first = next(rounds)
    assert first.accepted == accepted
    text = prompt + first.kept
    full, seen = len(prompt) - 1 + k + 1, len(draft.reads)
    next(rounds)  # the draft rewinds when it is asked again
    fed = draft.reads[seen]
    on_target = full - target.held[-1]
    on_draft = len(prompt) - 1 + k - draft.held[seen]
    (expected,) = [each.expected for each in check.slots_to_rewind.cases if each.arguments == (k, accepted)]
    assert [on_target, on_draft] == expected
    assert fed == (text[-2:] if accepted == k else text[-1:])


def test_both_answers_on_feeding_are_asked_for() -> None:
    assert {len(case.expected) for case in check.tokens_to_feed.cases} == {1, 2}
    assert all(0 <= accepted <= k < len(text) + 1 for text, k, accepted in FEEDS)


@pytest.mark.parametrize("case", check.rows_that_judge.cases, ids=lambda case: case.about)
def test_a_row_judges_the_token_that_naive_decoding_writes_there(case: Any) -> None:
    n, held, k = case.arguments
    model = sd.TableModel(5, 120, seed=3)
    text = torch.randint(5, (n,), generator=torch.Generator().manual_seed(n)).tolist()
    alone = sd.autoregressive(model, text, max_new_tokens=k + 1, sampling=GREEDY, stop=sd.Stop()).tokens
    reader = Reader(model, 128)
    if held:
        reader.read(text[:held])
    best = reader.read(text[held:] + alone[:k]).argmax(-1).tolist()
    assert [best[row] for row in case.expected] == alone


# The reader and the sentence


def test_a_reader_remembers_what_lies_in_stale_slots() -> None:
    reader = Reader(sd.TableModel(5, seed=1))
    rows = reader.read([1, 2, 3, 4])
    assert rows.shape == (4, 5)
    reader.rewind(2)
    assert (reader.held, reader.slots) == (2, [1, 2, 3, 4])
    again = reader.read([3])
    assert (reader.held, reader.slots, reader.reads) == (3, [1, 2, 3, 4], [4, 1])
    torch.testing.assert_close(again[0], rows[2])  # what is stale is not seen
    reader.read([0])
    assert reader.slots == [1, 2, 3, 0]


@pytest.mark.parametrize("n", [-1, 2])
def test_a_reader_refuses_to_forget_what_it_does_not_hold(n: int) -> None:
    reader = Reader(sd.TableModel(5))
    reader.read([1])
    with pytest.raises(ValueError, match="can forget 0 to 1 tokens"):
        reader.rewind(n)
    with pytest.raises(ValueError, match="no tokens to read"):
        reader.read([])


def test_the_toy_pair_recites_and_slips_where_it_should() -> None:
    target, draft = sentence.pair()
    prompt, rest = sentence.ids(sentence.SENTENCE[: sentence.PROMPT]), sentence.SENTENCE[sentence.PROMPT :]
    common = dict(max_new_tokens=len(rest), sampling=GREEDY, stop=sd.Stop())
    alone = sd.autoregressive(target, prompt, **common)
    assert sentence.say(alone.tokens) == " ".join(rest)
    made = sd.speculative(target, sd.ModelDrafter(draft), prompt, k=4, **common)
    assert made.tokens == alone.tokens
    assert [each.accepted for each in made.trace.rounds] == [2, 4, 0, 4, 3, 2]
    slips = [each.position + each.accepted for each in made.trace.rounds if each.kind == "corrected"]
    assert slips == list(sentence.SLIPS)
