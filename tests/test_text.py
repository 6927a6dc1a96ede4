"""Text from tokens: whole characters, and nothing that a stop string cuts off."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import llama, noisy, tokenizer
from transformers import PreTrainedTokenizerFast

import specdec_lite as sd
from specdec_lite.pocket.corpus import train_tokenizer
from specdec_lite.text import Pieces, before_stop

GREEDY = sd.Sampling(temperature=0)


@cache
def bytewise() -> PreTrainedTokenizerFast:
    """A tokenizer with hardly more than the 256 bytes: most characters span tokens."""
    return train_tokenizer(["abc"], 260)


@cache
def models(of: str = "letters") -> tuple[sd.TransformersModel, sd.ModelDrafter]:
    made = tokenizer() if of == "letters" else bytewise()
    module = llama(vocab=len(made))
    return sd.TransformersModel(module, made), sd.ModelDrafter(sd.TransformersModel(noisy(module, 0.05), made))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 259), min_size=1, max_size=30))
def test_pieces_together_are_the_text_whatever_the_bytes(tokens: list[int]) -> None:
    pieces = Pieces(bytewise(), [])
    parts = [pieces.add(token) for token in tokens] + [pieces.close()]
    assert "".join(parts) == bytewise().decode(tokens, skip_special_tokens=True)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="aé漢😀 \n", min_size=1, max_size=12))
def test_no_piece_of_a_proper_text_is_broken(text: str) -> None:
    pieces, tokens = Pieces(bytewise(), bytewise().encode("é")), bytewise().encode(text)
    parts = [pieces.add(token) for token in tokens]
    assert "".join(parts) == text
    assert not any("\ufffd" in part for part in parts)


def test_a_decoder_a_token_at_a_time_would_break_them() -> None:
    tokens = bytewise().encode("é")
    assert "".join(bytewise().decode([token]) for token in tokens) != "é"


@pytest.mark.parametrize(
    ("prompt", "new", "string", "text"),
    [
        ("x", "abcde", "cd", "ab"),
        ("x", "ab", "xa", ""),  # begins in the prompt's last token
        ("x", "é!", "!", "é"),
        ("x", "aé", "é", "a"),  # the last token completes a character that is the string
        ("é", "b", "éb", "b"),  # begins in the prompt, but before its last token: no match
    ],
)
def test_text_before_a_stop(prompt: str, new: str, string: str, text: str) -> None:
    stop, tokens, before = sd.Stop(strings=[string]), bytewise().encode(new), bytewise().encode(prompt)
    kept, _ = stop.cut(before[-1:], tokens, 100, bytewise().decode)
    assert before_stop(bytewise(), stop, before[-1], kept) == text


@pytest.mark.parametrize("of", ["letters", "bytes"])
@pytest.mark.parametrize("sampling", [GREEDY, sd.Sampling(1.0)], ids=["greedy", "sampled"])
def test_streamed_text_is_the_text(of: str, sampling: sd.Sampling) -> None:
    target, drafter = models(of)
    for seed in range(6):
        common = dict(k=4, max_new_tokens=30, sampling=sampling, seed=seed)
        whole = sd.speculative(target, drafter, "ab", stop=sd.Stop(), **common).text
        parts = list(sd.stream_text(target, drafter, "ab", stop=sd.Stop(), **common))
        assert "".join(parts) == whole
        assert len(parts) > 3 and all(parts)
        for at in range(0, len(whole) - 3, 4):  # a string that occurs, and one that only begins
            stop = sd.Stop(strings=[whole[at : at + 3], whole[at : at + 2] + "#"])
            made = sd.speculative(target, drafter, "ab", stop=stop, **common)
            assert "".join(sd.stream_text(target, drafter, "ab", stop=stop, **common)) == made.text


def test_a_stop_string_that_spans_pieces_is_never_shown() -> None:
    target, drafter = models()
    free = sd.autoregressive(target, "ab", max_new_tokens=20, sampling=GREEDY, stop=sd.Stop()).text
    stop = sd.Stop(strings=[free[6:11]])
    shown = ""
    for piece in sd.stream_text(target, None, "ab", max_new_tokens=20, sampling=GREEDY, stop=stop):
        shown += piece
        assert free[: free.index(free[6:11])].startswith(shown)
    assert shown == free[: free.index(free[6:11])]


def test_streamed_text_needs_a_tokenizer_and_one_prompt() -> None:
    target, drafter = models()
    with pytest.raises(ValueError, match="text needs a tokenizer"):
        sd.stream_text(sd.TableModel(3), None, [1])
    with pytest.raises(ValueError, match="one prompt, got 2"):
        sd.stream_text(target, drafter, ["a", "b"])
