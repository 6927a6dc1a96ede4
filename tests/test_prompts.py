"""What a user passes in is checked before any model runs, and an error says what to do."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from tiny import PROMPT, VOCAB, Counted, ids, pair, tokenizer

import specdec_lite as sd
from specdec_lite.prompts import is_single, to_token_ids

TARGET, DRAFT = pair()
WITH_TEXT = sd.TransformersModel(TARGET.module, tokenizer())


def test_every_form_of_prompt_becomes_rows_of_ids() -> None:
    for prompt, rows in [
        ([1, 2], [[1, 2]]),
        ((1, 2), [[1, 2]]),
        (range(3), [[0, 1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ([(1, 2), range(2)], [[1, 2], [0, 1]]),
        (([1],), [[1]]),
        ("ab", [[tokenizer().convert_tokens_to_ids("ab")]]),
        (["ab", "ba"], [[30], [2, 1]]),
        (["ab", [5]], [[30], [5]]),
    ]:
        assert to_token_ids(prompt, WITH_TEXT) == rows


BAD_PROMPTS: list[tuple[Any, type, str]] = [
    ([], ValueError, "prompt is empty.*at least one token"),
    ("", ValueError, "prompt is empty.*at least one token"),
    ([[]], ValueError, "prompt is empty"),
    ([[1], []], ValueError, "prompt is empty"),
    (["ab", ""], ValueError, "prompt is empty"),
    ([VOCAB], ValueError, rf"token {VOCAB} is outside the vocabulary \(0 to {VOCAB - 1}\)"),
    ([1, -1], ValueError, "token -1 is outside the vocabulary"),
    ([[1], [2, 99]], ValueError, "token 99 is outside"),
    (None, TypeError, "got NoneType"),
    (5, TypeError, "got int"),
    (b"ab", TypeError, "got bytes"),
    ([b"ab"], TypeError, "string or a list of token ids, got b'ab'"),
    ({"input_ids": [1]}, TypeError, "got dict"),
    ((token for token in [1]), TypeError, "got generator"),
    (torch.tensor([1, 2]), TypeError, r"got Tensor: pass what its \.tolist\(\) gives"),
    (np.array([1, 2]), TypeError, r"got ndarray: pass what its \.tolist\(\) gives"),
    ([torch.tensor([1, 2])], TypeError, r"got tensor\(\[1, 2\]\): pass what its \.tolist\(\) gives"),
    (list(np.array([1, 2])), TypeError, r"got (np\.int64\()?1\)?: pass what its \.tolist\(\) gives"),
    ([1, np.int64(2)], TypeError, r"token id must be an int, got (np\.int64\()?2\)?: pass what"),
    (tokenizer()("ab"), TypeError, "got BatchEncoding: pass its input_ids"),
    ([1.0, 2.0], TypeError, r"got 1\.0"),
    ([1, 2.0], TypeError, r"token id must be an int, got 2\.0"),
    ([1, "ab"], TypeError, "token id must be an int, got 'ab'"),
    ([True, False], TypeError, "token id must be an int, got True"),
    ([1, None], TypeError, "got None"),
    ([[[1]]], TypeError, r"got \[1\]"),
]

BAD_OPTIONS: list[tuple[dict[str, Any], type, str]] = [
    (dict(max_new_tokens=0), ValueError, "max_new_tokens.*at least 1, got 0"),
    (dict(max_new_tokens=-3), ValueError, "got -3"),
    (dict(max_new_tokens=2.0), ValueError, r"got 2\.0"),
    (dict(max_new_tokens=np.int64(2)), ValueError, r"whole number of at least 1, got np\.int64\(2\)"),
    (dict(max_new_tokens=None), ValueError, "got None"),
    (dict(max_new_tokens=156), ValueError, "5 tokens and 156 new.*context is 160: shorten"),
    (dict(seed=-1), ValueError, "seed.*got -1"),
    (dict(seed=2**64), ValueError, "seed must be a whole number from 0 to 2"),
    (dict(seed=None), ValueError, "got None"),
    (dict(seed=1.5), ValueError, r"got 1\.5"),
    (dict(seed="7"), ValueError, "got '7'"),
    (dict(seed=[1, 2]), ValueError, r"one for each row, got \[1, 2\]"),
    (dict(seed=[]), ValueError, r"got \[\]"),
    (dict(trace="all"), ValueError, "off, summary, full, got 'all'"),
    (dict(trace=True), ValueError, "trace must be one of"),
    (dict(trace=[]), ValueError, "trace must be one of"),
    (dict(sampling=0), TypeError, r"sampling must be Sampling\(temperature=\.\.\.\), got 0"),
    (dict(sampling=0.7), TypeError, "sampling must be"),
    (dict(sampling=sd.Sampling), TypeError, "sampling must be"),
    (dict(sampling={"temperature": 1}), TypeError, "sampling must be"),
    (dict(stop=[0]), TypeError, r"stop must be Stop\(token_ids=\[\.\.\.\]"),
    (dict(stop="\n"), TypeError, r"stop must be Stop.*got '\\n'"),
]

BAD_SPECULATION: list[tuple[dict[str, Any], type, str]] = [
    (dict(k=0), ValueError, "k must be a whole number from 1 to 16, got 0"),
    (dict(k=17), ValueError, "got 17"),
    (dict(k=-1), ValueError, "got -1"),
    (dict(k=4.0), ValueError, r"got 4\.0"),
    (dict(k=np.int64(4)), ValueError, r"got np\.int64\(4\)"),
    (dict(k=None), ValueError, "got None"),
    (dict(rule=sd.TokenRejection), TypeError, r"rule must be a rule, such as TokenRejection\(\)"),
    (dict(rule="token"), TypeError, "rule must be a rule"),
]


def refuse(kind: type, words: str, prompt: Any, decode: Any = sd.speculative, **options: Any) -> None:
    """The call fails, and neither model has run."""
    target, draft = Counted(WITH_TEXT), Counted(DRAFT)
    drafter = () if decode is sd.autoregressive else (sd.ModelDrafter(draft),)
    with pytest.raises(kind, match=words):
        decode(target, *drafter, prompt, **options)
    assert target.widths == draft.widths == []


@pytest.mark.parametrize("decode", [sd.autoregressive, sd.speculative, sd.stream], ids=lambda f: f.__name__)
def test_prompts_that_are_none_are_refused(decode: Any) -> None:
    for prompt, kind, words in BAD_PROMPTS:
        refuse(kind, words, prompt, decode)


@pytest.mark.parametrize("decode", [sd.autoregressive, sd.speculative, sd.stream], ids=lambda f: f.__name__)
def test_options_that_cannot_work_are_refused(decode: Any) -> None:
    for options, kind, words in BAD_OPTIONS:
        refuse(kind, words, PROMPT, decode, **options)


@pytest.mark.parametrize("decode", [sd.speculative, sd.stream], ids=lambda f: f.__name__)
def test_speculation_that_cannot_work_is_refused(decode: Any) -> None:
    for options, kind, words in BAD_SPECULATION:
        refuse(kind, words, PROMPT, decode, **options)


def test_a_model_in_the_place_of_a_drafter_is_refused_with_what_to_pass() -> None:
    target = Counted(TARGET)
    for drafter in (DRAFT, DRAFT.module, sd.PromptLookupDrafter, "draft"):
        with pytest.raises(TypeError, match=r"drafter must be a drafter, such as ModelDrafter\(pair\.draft\)"):
            sd.speculative(target, drafter, PROMPT)
    with pytest.raises(TypeError, match=r"drafter is None.*autoregressive\(\)"):
        sd.speculative(target, None, PROMPT)
    assert target.widths == []


def test_a_bare_module_in_the_place_of_a_target_is_refused_with_what_to_pass() -> None:
    for target in (TARGET.module, "gpt2", None):
        with pytest.raises(TypeError, match=r"target must be a TransformersModel, such as load_pair\(\)\.target"):
            sd.autoregressive(target, PROMPT)


def test_strings_need_a_tokenizer() -> None:
    target = Counted(TARGET)
    for prompt in ("ab", ["ab"], [[1], "ab"]):
        with pytest.raises(ValueError, match="string prompt needs a tokenizer: load the model with one, or pass token"):
            sd.autoregressive(target, prompt)
    with pytest.raises(ValueError, match="stop strings need a tokenizer.*or stop on token ids"):
        sd.autoregressive(target, PROMPT, stop=sd.Stop(strings=["a"]))
    assert target.widths == []


def test_the_longest_row_must_fit() -> None:
    target = Counted(TARGET)
    with pytest.raises(ValueError, match="the prompt has 150 tokens and 11 new"):
        sd.autoregressive(target, [[1], [2] * 150], max_new_tokens=11)
    assert target.widths == []


def test_text_in_gives_text_out() -> None:
    drafter = sd.ModelDrafter(DRAFT)
    one = sd.speculative(WITH_TEXT, drafter, "ab cd", max_new_tokens=6, seed=2)
    assert one.text == tokenizer().decode(one.tokens, skip_special_tokens=True)
    assert one.trace.prompts == [tokenizer().encode("ab cd")]
    many = sd.speculative(WITH_TEXT, drafter, ["ab cd", "x"], max_new_tokens=6, seed=2)
    assert many.text[0] == one.text
    assert many.tokens[0] == one.tokens
    assert len(many.text) == len(many.tokens) == 2


def test_importing_the_package_imports_nothing_heavy_but_torch() -> None:
    code = """
import sys, torch
before = set(sys.modules)
import specdec_lite
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
"""
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "specdec_lite" in loaded
    third = set(loaded) - set(sys.stdlib_module_names) - {"specdec_lite", "torch", "numpy"}
    assert third == set()  # neither transformers nor pandas, plotly or tqdm


# Chat messages


TEMPLATE = (
    "{% for m in messages %}{{ m['role'][0] + '.' + m['content'] }}{% if not loop.last or m['role'] != 'assistant' %}"
    "{{ '\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}a.{% endif %}"
)
ASK = [{"role": "user", "content": "hi there"}]


def chatty() -> sd.TransformersModel:
    made = copy.deepcopy(tokenizer())
    made.chat_template = TEMPLATE
    return sd.TransformersModel(pair()[0].module, made)


def test_chat_messages_go_through_the_tokenizers_template() -> None:
    target = chatty()
    again = [*ASK, {"role": "assistant", "content": "yes"}]
    assert to_token_ids(ASK, target) == [ids("u.hi there\na.")]
    assert to_token_ids([ASK, again], target) == [ids("u.hi there\na."), ids("u.hi there\na.yes")]  # goes on
    assert to_token_ids([ASK, "ab", [1, 2]], target) == [ids("u.hi there\na."), ids("ab"), [1, 2]]
    assert is_single(ASK) and not is_single([ASK])
    made = sd.speculative(target, sd.ModelDrafter(pair()[1]), ASK, max_new_tokens=6, seed=2)
    assert made.tokens == sd.speculative(
        target, sd.ModelDrafter(pair()[1]), ids("u.hi there\na."), max_new_tokens=6, seed=2
    ).tokens  # fmt: skip
    assert isinstance(made.text, str)


@pytest.mark.parametrize(
    ("messages", "error", "words"),
    [
        ([{"role": "user"}], TypeError, "a dict with 'role' and 'content', got"),
        ([*ASK, "ab"], TypeError, "a dict with 'role' and 'content', got 'ab'"),
        ([[1, ASK[0]]], TypeError, "a dict with 'role' and 'content', got 1"),
    ],
)
def test_messages_that_are_none_are_refused(messages: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        sd.autoregressive(chatty(), messages)


def test_messages_need_a_template() -> None:
    for target in (sd.TransformersModel(pair()[0].module, tokenizer()), pair()[0]):
        with pytest.raises(ValueError, match="need a tokenizer with a chat template.*pass a string"):
            sd.autoregressive(target, ASK)
