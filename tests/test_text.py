"""Text from tokens: whole characters, and nothing that a stop string cuts off."""

from __future__ import annotations

import copy
from functools import cache
from os.path import commonprefix
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import llama, noisy, tokenizer
from tokenizers import Tokenizer, decoders
from tokenizers import models as vocabularies
from transformers import PreTrainedTokenizerFast

import specdec_lite as sd
from specdec_lite.pocket.corpus import train_tokenizer
from specdec_lite.stopping import IncrementalDetokenizer, before_stop

GREEDY = sd.Sampling(temperature=0)


@cache
def bytewise() -> PreTrainedTokenizerFast:
    """A tokenizer with hardly more than the 256 bytes: most characters span tokens."""
    return train_tokenizer(["abc"], 260)


SPACE = "\u2581"
BYTES = [f"<0x{byte:02X}>" for byte in "\u6f22\u00e9\U0001f600".encode()]  # of 3, 2 and 4
LLAMA2 = ["<unk>", "<s>", f"{SPACE}a", f"{SPACE}world", f"{SPACE}is", "b", ".", SPACE, *BYTES]
WORDS = ["[UNK]", "[CLS]", "hello", "##lo", "don", "n't", "n", "'", "s", "'s", ".", "?", "a"]


def made(model: Any, decoder: Any, unknown: str, begin: str, **options: Any) -> PreTrainedTokenizerFast:
    made = Tokenizer(model)
    made.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token=unknown, bos_token=begin, **options)


@cache
def decoding(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer whose decoder treats the beginning of a text, or what two tokens make together, in its own way."""
    ids = {word: i for i, word in enumerate(WORDS if "word" in kind else LLAMA2)}
    if kind == "words, cleaned up":
        model = vocabularies.WordPiece(ids, unk_token="[UNK]")
        return made(model, decoders.WordPiece("##", False), "[UNK]", "[CLS]", clean_up_tokenization_spaces=True)
    if kind == "words":
        return made(vocabularies.WordPiece(ids, unk_token="[UNK]"), decoders.WordPiece("##"), "[UNK]", "[CLS]")
    strip = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    decoder = decoders.Sequence(strip) if kind == "Llama 2" else decoders.Metaspace(SPACE, "always")
    return made(vocabularies.BPE(vocab=ids, merges=[], unk_token="<unk>"), decoder, "<unk>", "<s>")


def difference(tokenizer: PreTrainedTokenizerFast, prompt: list[int], new: list[int]) -> str:
    """What the whole text has beyond the prompt's, from where they part."""
    before, whole = (tokenizer.decode(ids, skip_special_tokens=True) for ids in (prompt, prompt + new))
    return whole[len(commonprefix([before, whole])) :]


@cache
def models(of: str = "letters") -> tuple[sd.TransformersModel, sd.ModelDrafter]:
    made = tokenizer() if of == "letters" else bytewise()
    module = llama(vocab=len(made))
    return sd.TransformersModel(module, made), sd.ModelDrafter(sd.TransformersModel(noisy(module, 0.05), made))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 259), min_size=1, max_size=30))
def test_pieces_together_are_the_text_whatever_the_bytes(tokens: list[int]) -> None:
    pieces = IncrementalDetokenizer(bytewise(), [])
    parts = [pieces.add(token) for token in tokens] + [pieces.close()]
    assert "".join(parts) == bytewise().decode(tokens, skip_special_tokens=True)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="aé漢😀 \n", min_size=1, max_size=12))
def test_no_piece_of_a_proper_text_is_broken(text: str) -> None:
    pieces, tokens = IncrementalDetokenizer(bytewise(), bytewise().encode("é")), bytewise().encode(text)
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
    assert before_stop(bytewise(), stop, before, kept) == text


KINDS = ["Llama 2", "metaspace", "words", "words, cleaned up", "bytes"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_pieces_are_the_difference_of_whole_decodes_whatever_the_decoder(kind: str, data: st.DataObject) -> None:
    tokenizer = bytewise() if kind == "bytes" else decoding(kind)
    ids = st.integers(0, len(tokenizer) - 1)
    prompt, new = data.draw(st.lists(ids, min_size=1, max_size=20)), data.draw(st.lists(ids, min_size=1, max_size=40))
    pieces = IncrementalDetokenizer(tokenizer, prompt)
    parts = [pieces.add(token) for token in new] + [pieces.close()]
    assert "".join(parts) == before_stop(tokenizer, sd.Stop(), prompt, new) == difference(tokenizer, prompt, new)


class Says:
    """A processor that lets nothing but the given tokens be written."""

    def __init__(self, prompt: int, tokens: list[int]) -> None:
        self.prompt, self.tokens = prompt, tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        next_one = self.tokens[min(input_ids.shape[1] - self.prompt, len(self.tokens) - 1)]
        return torch.full_like(scores, -torch.inf).index_fill_(1, torch.tensor([next_one]), 0.0)


@pytest.mark.parametrize(
    ("kind", "prompt", "new", "string", "text"),
    [
        ("Llama 2", "<s> _a", "_world _is _a _world .", None, " world is a world."),
        ("Llama 2", "<s>", "_world _is", None, "world is"),  # at the beginning the space is stripped
        ("Llama 2", "<s> _a", "_world _is _a .", " a.", " world is"),
        ("Llama 2", "<s> _a", "_world _is _a", " wor", ""),
        ("Llama 2", "<s> _a", "_ 0 1 2 _is", None, " 漢 is"),
        ("Llama 2", "<s> _a", "0 1 2 3 4 5 6 7 8 b", "é", "漢"),  # one run of bytes
        ("Llama 2", "_a", "0 1 2 0 1 2 0 1 2 0 1 2 3 4 b", "é", "漢漢漢漢"),  # longer than what is looked at
        ("Llama 2", "_a 0", "1 2 _is", None, "漢 is"),  # the prompt ends inside a character
        ("metaspace", "<s> _a", "_world _is .", "s.", " world i"),
        ("words", "a", "hello ##lo don", None, " hellolo don"),
        ("words", "[CLS]", "hello ##lo don", "lo d", "hello"),
        ("words, cleaned up", "a", "don n't . a", None, " donn't. a"),
        ("words, cleaned up", "a", "hello . a", ".", " hello"),
    ],
)
def test_streamed_text_is_the_text_whatever_the_decoder(
    kind: str, prompt: str, new: str, string: str | None, text: str
) -> None:
    tokenizer = decoding(kind)

    def ids(tokens: str) -> list[int]:
        names = [BYTES[int(each)] if each.isdigit() else each.replace("_", SPACE) for each in tokens.split()]
        return tokenizer.convert_tokens_to_ids(names)

    before, wanted = ids(prompt), ids(new)
    target = sd.TransformersModel(llama(vocab=len(tokenizer)), tokenizer)
    stop = sd.Stop() if string is None else sd.Stop(strings=[string])
    options = dict(max_new_tokens=len(wanted), processors=[Says(len(before), wanted)], stop=stop)
    for k in (1, 4):
        drafter = sd.ModelDrafter(target)
        assert sd.speculative(target, drafter, before, k=k, **options).text == text
        assert "".join(sd.stream_text(target, drafter, before, k=k, **options)) == text
    if string is None:
        assert difference(tokenizer, before, wanted) == text


def test_a_long_stream_decodes_a_few_tokens_each_time() -> None:
    counted, seen = copy.copy(bytewise()), []

    def decode(tokens: list[int], **options: Any) -> str:
        seen.append(len(tokens))
        return bytewise().decode(tokens, **options)

    counted.decode = decode
    pieces, tokens = (
        IncrementalDetokenizer(counted, [1] * 500),
        [token for i in range(500) for token in (66 + i % 20, 200 - i % 40)],
    )
    assert "".join([pieces.add(token) for token in tokens] + [pieces.close()]) == difference(bytewise(), [1], tokens)
    assert sum(seen) < 30 * len(tokens)


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
