"""A text ends at the budget, a stop token or a stop string, whichever comes first; nothing follows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import PROMPT, ids, pair, table_pair, tokenizer

import specdec_lite as sd
from specdec_lite.decoding import start
from specdec_lite.theory.exact import target_distribution

GREEDY = sd.Sampling(temperature=0)


def with_text(noise: float = 0.05) -> tuple[sd.TransformersModel, sd.ModelDrafter]:
    """The tiny pair with a tokenizer."""
    target, draft = (sd.TransformersModel(model.module, tokenizer()) for model in pair(noise))
    return target, sd.ModelDrafter(draft)


def until(tokens: list[int], ends: Any) -> list[int]:
    """The shortest beginning that `ends` says yes to, else everything."""
    return next((tokens[:n] for n in range(1, len(tokens) + 1) if ends(tokens[:n])), tokens)


# The cut itself


@given(
    st.lists(st.integers(0, 4), max_size=4),
    st.lists(st.integers(0, 4), min_size=1, max_size=6),
    st.integers(1, 7),
    st.sets(st.integers(0, 4), max_size=2),
)
def test_the_earliest_end_wins(new: list[int], block: list[int], budget: int, stops: set[int]) -> None:
    kept, ended = sd.Stop(token_ids=sorted(stops)).cut(new, block, budget, None)
    within = block[:budget]
    assert kept == until(within, lambda text: text[-1] in stops)
    assert ended == ("stop" if kept[-1] in stops else "length" if len(kept) == budget else None)


def test_strings_are_looked_for_after_every_token() -> None:
    stop = sd.Stop(strings=["bc", "cd"], token_ids=[9])
    words = {1: "a", 2: "b", 3: "c", 4: "d", 9: "!"}

    def decode(tokens: list[int]) -> str:
        return "".join(words[token] for token in tokens)

    assert stop.cut([1, 2], [3, 4], 5, decode) == ([3], "stop")  # completed across the block's edge
    assert stop.cut([1, 2], [1, 3, 4, 1], 5, decode) == ([1, 3, 4], "stop")
    assert stop.cut([], [1, 9, 2, 3], 5, decode) == ([1, 9], "stop")
    assert stop.cut([], [2, 3, 9], 5, decode) == ([2, 3], "stop")
    assert stop.cut([], [3, 4], 1, decode) == ([3], "length")
    assert stop.cut([], [3, 4], 2, decode) == ([3, 4], "stop")
    assert stop.cut([], [1, 2], 5, decode) == ([1, 2], None)
    assert stop.completed([1, 2, 3], decode) == 2  # "bc" began two characters ago
    assert stop.completed([1, 2, 3, 4], decode) == 2  # "cd" now, "bc" was before
    assert stop.completed([1, 2], decode) is None
    assert stop.completed([3], decode) is None  # the prompt's last token alone stops nothing
    assert sd.Stop(strings=["bcd", "cd", "d"]).completed([1, 2, 3, 4], decode) == 3  # the earliest of several
    assert stop.pending([1, 2], decode) == 1  # "b" may begin "bc"
    assert stop.pending([1, 1], decode) == 0


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        (dict(strings="ab"), "list of non-empty strings, got 'ab'"),
        (dict(strings=["ab", ""]), "non-empty"),
        (dict(strings=["ab", 3]), "non-empty"),
        (dict(strings=(s for s in "ab")), "list of non-empty"),
        (dict(token_ids=[-1]), r"at least 0, got \[-1\]"),
        (dict(token_ids=[1.0]), r"whole numbers.*1\.0"),
        (dict(token_ids=["a"]), "whole numbers"),
        (dict(token_ids=3), "a list of whole numbers.*got 3"),
        (dict(token_ids=iter([1])), "whole numbers"),
    ],
)
def test_what_cannot_stop_anything_is_refused(kwargs: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sd.Stop(**kwargs)


# Stop tokens in a run


@pytest.mark.parametrize("k", [1, 4, 16])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_earliest_of_several_ids_ends_the_text(k: int, noise: float) -> None:
    """Whatever the block it falls in: its seed and k make each run repeat the free one up to its end."""
    target, draft = pair(noise)
    free = sd.speculative(target, sd.ModelDrafter(draft), PROMPT, k=k, max_new_tokens=20, stop=sd.Stop(), seed=6)
    assert len(free.tokens) == 20
    kinds = []
    for at in range(0, 20, 3):
        stops = [36, free.tokens[at], free.tokens[(at + 5) % 20]]
        made = sd.speculative(
            target, sd.ModelDrafter(draft), PROMPT, k=k, max_new_tokens=20, stop=sd.Stop(stops), seed=6
        )
        assert made.tokens == until(free.tokens, lambda text, stops=stops: text[-1] in stops)
        last = made.trace.rounds[-1]
        assert last.ended == "stop"
        assert last.kept[-1] in stops
        assert last.kept_kinds() == (["accepted"] * last.accepted + [last.kind])[: len(last.kept)]
        kinds.append(last.kept_kinds()[-1])
    assert "accepted" in kinds or noise > 0


def test_a_stop_inside_an_accepted_block_leaves_nothing_behind() -> None:
    target, draft = pair(0.0)  # everything is accepted: a block is 9 tokens
    free = sd.autoregressive(target, PROMPT, max_new_tokens=20, sampling=GREEDY).tokens
    at = next(i for i in range(2, 8) if free[i] not in free[:i])
    run = start(
        target, sd.ModelDrafter(draft), PROMPT, k=8, max_new_tokens=20, sampling=GREEDY, stop=sd.Stop([free[at]]),
        seed=0, rule=None, trace="summary",
    )  # fmt: skip
    (only,) = run.round()
    assert (only.accepted, len(only.kept), only.ended) == (8, at + 1, "stop")
    assert run.token_ids == [PROMPT + free[: at + 1]]
    assert run.cache.lengths == run.cache.length.tolist() == [len(PROMPT) + at]
    assert not run.unfinished


def test_the_models_own_end_tokens_count_when_no_stop_is_given() -> None:
    target, draft = table_pair(4)
    free = sd.autoregressive(target, [1], max_new_tokens=30, sampling=GREEDY, stop=sd.Stop())
    target.end_tokens = (free.tokens[3],)
    stopped = until(free.tokens, lambda text: text[-1] == free.tokens[3])
    for decode in (
        lambda **more: sd.autoregressive(target, [1], max_new_tokens=30, sampling=GREEDY, **more),
        lambda **more: sd.speculative(target, sd.ModelDrafter(draft), [1], max_new_tokens=30, sampling=GREEDY, **more),
    ):
        assert decode().tokens == stopped
        assert decode(stop=None).tokens == stopped
        assert decode(stop=sd.Stop()).tokens == free.tokens


@pytest.mark.parametrize(
    ("stop", "ids"),
    [
        (sd.Stop(), ()),
        (sd.Stop(token_ids=()), ()),
        (sd.Stop(token_ids=[], strings=["#"]), []),  # switched off by name
        (sd.Stop(token_ids=[5]), [5]),  # these and no others
        (sd.Stop(token_ids=[5], strings=["#"]), [5]),
        (sd.Stop(strings=["#"]), (7,)),
        (sd.Stop(strings=[]), (7,)),
        (sd.Stop(None, ["#"]), (7,)),
    ],
    ids=str,
)
def test_the_models_own_end_tokens_stay_unless_token_ids_are_named(stop: sd.Stop, ids: Any) -> None:
    assert stop.of([7]).token_ids == ids
    assert stop.of([7]).strings == stop.strings


@pytest.mark.parametrize("prompt", ["ab", ["ab", "hi there", "x"]], ids=["one", "batch"])
def test_stop_strings_leave_the_models_own_end_of_text_on(prompt: Any) -> None:
    """In every way to decode, and in the enumeration that judges them."""
    target, drafter = with_text()
    common = dict(max_new_tokens=12, sampling=GREEDY)
    free = sd.autoregressive(target, prompt, stop=sd.Stop(), **common).tokens
    rows = free if isinstance(prompt, list) else [free]
    target.end_tokens = (rows[0][4],)
    wanted = [until(row, lambda text: text[-1] in target.end_tokens) for row in rows]
    for stop in (sd.Stop(strings=["#", "??"]), sd.Stop(strings=[])):
        for made in (
            sd.autoregressive(target, prompt, stop=stop, **common),
            sd.speculative(target, drafter, prompt, stop=stop, **common),
        ):
            assert (made.tokens if isinstance(prompt, list) else [made.tokens]) == wanted
        rounds = list(sd.stream(target, drafter, prompt, stop=stop, **common))
        assert sum((each.kept for each in rounds if each.row == 0), []) == wanted[0]
        ended = target_distribution(target, ids("ab"), stop=stop, **common)
        assert set(ended) == {tuple(wanted[0])}
    off = sd.autoregressive(target, prompt, stop=sd.Stop(token_ids=(), strings=["#"]), **common).tokens
    assert off == free != wanted


def test_a_stop_token_in_the_prompt_is_only_a_token() -> None:
    target, _ = pair()
    assert len(sd.autoregressive(target, [5, 17, 17], max_new_tokens=3, stop=sd.Stop([17]), seed=1).tokens) >= 1


def test_a_row_that_ended_gets_no_more_rounds() -> None:
    target, draft = pair(0.05)
    made = sd.speculative(
        target, sd.ModelDrafter(draft), [PROMPT, [3], [6, 2]], k=3, max_new_tokens=25, stop=sd.Stop([17, 2, 29]), seed=1
    )
    for row in range(3):
        own = [each for each in made.trace.rounds if each.row == row]
        assert [each.ended for each in own[:-1]] == [None] * (len(own) - 1)
        assert own[-1].ended in ("stop", "length")
        assert [each.index for each in own] == list(range(len(own)))
        assert sum((each.kept for each in own), []) == made.tokens[row]
        assert not set(made.tokens[row][:-1]) & {17, 2, 29}
    assert len({each.index for each in made.trace.rounds if each.ended}) > 1


# Stop strings in a run


@pytest.mark.parametrize("k", [1, 5])
def test_strings_end_the_text_wherever_tokens_meet(k: int) -> None:
    """Every string of 1 to 3 letters of a free run, so also those inside one token and across several."""
    target, drafter = with_text()
    common = dict(k=k, max_new_tokens=14, seed=3)
    free = sd.speculative(target, drafter, "abc", stop=sd.Stop(), **common)
    decode = tokenizer().decode
    text, shapes = decode(free.tokens), set()
    for size in (1, 2, 3):
        for at in range(0, len(text) - size, 2):
            wanted = text[at : at + size]
            made = sd.speculative(target, drafter, "abc", stop=sd.Stop(strings=["never", wanted]), **common)
            kept = until(free.tokens, lambda tokens, wanted=wanted: wanted in decode(tokens))
            assert made.tokens == kept
            assert made.text == decode(kept)[: decode(kept).index(wanted)]
            assert made.trace.rounds[-1].ended == "stop"
            shapes.add(("inside", "across")[wanted not in decode(kept[-1:])])
    assert shapes == {"inside", "across"}


def test_naive_and_speculative_text_stop_at_the_same_place() -> None:
    target, drafter = with_text()
    free = sd.autoregressive(target, "ab", max_new_tokens=16, sampling=GREEDY).text
    stop = sd.Stop(strings=[free[5:7], free[8:11]])
    naive = sd.autoregressive(target, "ab", max_new_tokens=16, sampling=GREEDY, stop=stop)
    for k in (1, 3, 9):
        fast = sd.speculative(target, drafter, "ab", k=k, max_new_tokens=16, sampling=GREEDY, stop=stop)
        assert (fast.tokens, fast.text) == (naive.tokens, naive.text)
    assert len(naive.text) < len(free)


def test_a_batch_of_strings_stops_each_row_by_itself() -> None:
    target, drafter = with_text()
    prompts, common = ["ab", "x", "hi there"], dict(k=4, max_new_tokens=16, stop=sd.Stop(strings=["a", "e", "i", "o"]))
    made = sd.speculative(target, drafter, prompts, seed=2, **common)
    for row, prompt in enumerate(prompts):
        alone = sd.speculative(target, drafter, prompt, seed=2 + row, **common)
        assert (alone.tokens, alone.text) == (made.tokens[row], made.text[row])
        assert not set(alone.text) & set("aeio")


def test_a_string_may_begin_in_the_prompts_last_token() -> None:
    """A prompt that ends with half of a blank line: the other half ends the text at once."""
    target, drafter = with_text()
    free = sd.autoregressive(target, "hi", max_new_tokens=8, sampling=GREEDY, stop=sd.Stop()).text
    stop = sd.Stop(strings=["hi" + free[:3]])
    assert len(ids("hi")) == 1
    for k in (1, 4):
        made = sd.speculative(target, drafter, "hi", k=k, max_new_tokens=8, sampling=GREEDY, stop=stop)
        assert made.text == ""
        assert made.trace.rounds[-1].ended == "stop"
        assert tokenizer().decode(made.tokens).startswith(free[:3])
        assert sum((each.kept for each in made.trace.rounds), []) == made.tokens
    inside = sd.Stop(strings=["h", "hi"])  # wholly in the prompt: no end
    assert sd.autoregressive(target, "hi", max_new_tokens=8, sampling=GREEDY, stop=inside).text == free


def test_nothing_after_a_stop_stays_in_the_cache() -> None:
    target, drafter = with_text()
    free = sd.speculative(target, drafter, "abc", k=5, max_new_tokens=14, seed=3, stop=sd.Stop()).text
    run = start(target, drafter, "abc", k=5, max_new_tokens=14, seed=3, stop=sd.Stop(strings=[free[6:8]]))
    while run.unfinished:
        run.round()
    assert run.cache.lengths == [len(run.token_ids[0]) - 1]
    assert run.cache.length.tolist() == run.cache.lengths
    assert tokenizer().decode(run.token_ids[0]).endswith(free[6:8]) or free[6:8] in tokenizer().decode(
        run.token_ids[0][-2:]
    )


def test_the_string_of_a_special_token_stops_too() -> None:
    target, drafter = with_text()
    for seed in range(40):
        made = sd.speculative(target, drafter, "ab", max_new_tokens=30, stop=sd.Stop(strings=["<end>"]), seed=seed)
        if made.trace.rounds[-1].ended == "stop":
            break
    assert made.tokens[-1] == 0
    assert 0 not in made.tokens[:-1]
    assert made.text == tokenizer().decode(made.tokens[:-1])


def test_text_comes_without_special_tokens_and_a_stop_token_is_kept_among_the_ids() -> None:
    target, drafter = with_text()
    for seed in range(40):
        made = sd.speculative(target, drafter, ids("ab"), max_new_tokens=30, stop=sd.Stop([0]), seed=seed)
        if made.trace.rounds[-1].ended == "stop":
            break
    assert made.tokens[-1] == 0
    assert "<end>" not in made.text
    assert made.text == tokenizer().decode(made.tokens[:-1])
