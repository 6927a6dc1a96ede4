"""What a user passes in is checked before any model runs, and an error says what to do."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import PROMPT, VOCAB, Counted, ids, pair, tokenizer

import specdec_lite as sd
from specdec_lite.bench.prompt_files import prompts_for
from specdec_lite.loading.pair import Pair
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


MASKED = {"input_ids": [[0, 0, 5], [1, 2, 3]], "attention_mask": [[0, 0, 1], [1, 1, 1]]}
ARRAYS: list[tuple[Any, list[list[int]], bool]] = [
    (torch.tensor([1, 2]), [[1, 2]], True),
    (torch.tensor([[1, 2]]), [[1, 2]], False),  # a batch of one
    (torch.tensor([[1, 2], [3, 4]]), [[1, 2], [3, 4]], False),
    (np.array([[1, 2]]), [[1, 2]], False),
    (list(torch.tensor([1, 2])), [[1, 2]], True),
    (list(np.array([1, 2])), [[1, 2]], True),
    ([1, np.int64(2)], [[1, 2]], True),
    ([torch.tensor([1, 2]), np.array([3]), [4], "ab"], [[1, 2], [3], [4], [30]], False),
    ([torch.tensor([[1, 2]]), torch.tensor([[3]])], [[1, 2], [3]], False),  # each as a tokenizer gives it
    ({"input_ids": [1, 2]}, [[1, 2]], True),
    ({"input_ids": torch.tensor([[1, 2]])}, [[1, 2]], False),
    (tokenizer()("ab"), [[30]], True),
    (tokenizer()(["ab", "ba"]), [[30], [2, 1]], False),
    (tokenizer()("ab", return_tensors="pt"), [[30]], False),
    ([tokenizer()("ab"), tokenizer()("ba", return_tensors="pt")], [[30], [2, 1]], False),
    (MASKED, [[5], [1, 2, 3]], False),
    ({name: torch.tensor(each) for name, each in MASKED.items()}, [[5], [1, 2, 3]], False),
    ({name: [torch.tensor(row) for row in each] for name, each in MASKED.items()}, [[5], [1, 2, 3]], False),
    ({"input_ids": [7, 0, 0], "attention_mask": torch.tensor([True, False, False])}, [[7]], True),
]


@pytest.mark.parametrize(("prompt", "rows", "single"), ARRAYS, ids=lambda each: f"{each!r:.50}")
def test_tensors_arrays_and_encodings_are_prompts(prompt: Any, rows: list[list[int]], single: bool) -> None:
    assert to_token_ids(prompt, WITH_TEXT) == rows
    assert {type(token) for row in to_token_ids(prompt, WITH_TEXT) for token in row} == {int}
    assert is_single(prompt) == single
    made, plain = (sd.autoregressive(WITH_TEXT, each, max_new_tokens=3, seed=1) for each in (prompt, rows))
    assert (made.tokens, made.text) == ((plain.tokens[0], plain.text[0]) if single else (plain.tokens, plain.text))


@pytest.mark.parametrize("kind", ["uint8", "int8", "int16", "int32", "int64"])
def test_token_ids_may_have_any_integer_type(kind: str) -> None:
    assert to_token_ids(torch.tensor([1, 2], dtype=getattr(torch, kind)), TARGET) == [[1, 2]]
    assert to_token_ids(np.array([1, 2], dtype=kind), TARGET) == [[1, 2]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_left_out_on_either_side(side: str) -> None:
    made = copy.deepcopy(tokenizer())
    made.pad_token, made.padding_side = "<end>", side
    padded = made(["ab", "hi there"], padding=True, return_tensors="pt")
    assert padded["attention_mask"].min() == 0
    assert to_token_ids(padded, WITH_TEXT) == to_token_ids(["ab", "hi there"], WITH_TEXT)


# What a tokenizer puts before a text


def beginning(template: str, tokens: list[tuple[str, int]], chat: str = "") -> sd.TransformersModel:
    from tokenizers import processors

    made = copy.deepcopy(tokenizer())
    made.add_special_tokens({"bos_token": "z"})  # a token that a text may spell out, as they all are
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=tokens)
    made.chat_template = chat or "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    return sd.TransformersModel(pair()[0].module, made)


Z, Y, END = ids("z")[0], ids("y")[0], 0


def test_a_chat_rendered_to_a_string_begins_once() -> None:
    target = beginning("z $A", [("z", Z)])
    rendered = target.tokenizer.apply_chat_template(ASK, tokenize=False)
    assert to_token_ids(rendered, target) == to_token_ids(ASK, target) == [[Z, *ids("hi there")]]


def test_a_rendered_chat_in_a_file_begins_once(tmp_path: Path) -> None:
    target = beginning("z $A", [("z", Z)])
    (tmp_path / "prompts.txt").write_text("zhi\nhi\n", encoding="utf-8")
    settings = SimpleNamespace(prompts=2, max_new_tokens=4)
    made = prompts_for(Pair(target, target, target.tokenizer), settings, str(tmp_path / "prompts.txt"))
    assert made == [[Z, *ids("hi")]] * 2


@pytest.mark.parametrize(
    ("template", "text", "wanted"),
    [
        ("z $A", "hi", [Z, *ids("hi")]),
        ("z $A", "zhi", [Z, *ids("hi")]),
        ("z $A", "zzhi", [Z, Z, *ids("hi")]),  # written twice, on purpose
        ("z $A", "z", [Z]),
        ("z $A", "hiz", [Z, *ids("hi"), Z]),
        ("$A", "zzhi", [Z, Z, *ids("hi")]),  # nothing is added
        ("z y $A", "zyhi", [Z, Y, *ids("hi")]),
        ("z y $A", "zhi", [Z, Y, Z, *ids("hi")]),
        ("z $A <end>", "zhi", [Z, *ids("hi"), END]),
        ("$A <end>", "<end>hi", [END, *ids("hi"), END]),
    ],
)
def test_a_beginning_that_is_written_is_not_added(template: str, text: str, wanted: list[int]) -> None:
    target = beginning(template, [("z", Z), ("y", Y), ("<end>", END)])
    assert to_token_ids(text, target) == [wanted]
    assert to_token_ids([Z, Z, 1], target) == [[Z, Z, 1]]  # ids are left alone


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
    ((token for token in [1]), TypeError, "got generator"),
    (torch.tensor([1.0, 2.0]), TypeError, "token id must be an int, got a Tensor of torch.float32"),
    (np.array([[1.0]]), TypeError, "got a ndarray of float64"),
    (np.array(["ab"]), TypeError, "got a ndarray of <U2"),
    (torch.tensor([True]), TypeError, "got a Tensor of torch.bool"),
    ([1, torch.tensor(True)], TypeError, "must be an int, got tensor"),
    ([torch.tensor([1.0])], TypeError, "got a Tensor of torch.float32"),
    ([1, torch.tensor(2.0)], TypeError, "must be an int, got tensor"),
    ([1, np.bool_(True)], TypeError, "must be an int, got"),
    (torch.tensor(5), ValueError, r"shape \[n\] or \[batch, n\], got \[\]"),
    (torch.ones(1, 2, 3, dtype=torch.long), ValueError, r"got \[1, 2, 3\]"),
    (torch.tensor([]), ValueError, "prompt is empty"),
    (torch.zeros(2, 0), ValueError, "prompt is empty"),
    (torch.zeros(0, 2), ValueError, "prompt is empty"),
    ([torch.tensor([[1], [2]]), [3]], ValueError, "a prompt in a list must be one row, got 2"),
    ({}, ValueError, "needs input_ids"),
    ({"inputs": [1]}, ValueError, r"needs input_ids.*got the keys \['inputs'\]"),
    ({"role": "user", "content": "hi"}, ValueError, "a chat is a list of messages"),
    ({"input_ids": None}, TypeError, "got NoneType"),
    ({"input_ids": []}, ValueError, "prompt is empty"),
    ({"input_ids": [1, 2], "attention_mask": [0, 0]}, ValueError, "prompt is empty"),
    ({"input_ids": [1, 2], "attention_mask": [1]}, ValueError, r"shape of input_ids, got \[1\] for \[1, 2\]"),
    ({"input_ids": [[1], [2]], "attention_mask": [1, 1]}, ValueError, "shape of input_ids, got 1"),
    ({"input_ids": [1, 2], "attention_mask": [[1, 1]]}, ValueError, "shape of input_ids"),
    ({"input_ids": [1, 2], "attention_mask": 1}, ValueError, "shape of input_ids, got 1"),
    ({"input_ids": [1, 2], "attention_mask": [0.0, -1e9]}, ValueError, "1 where a token counts and 0 elsewhere"),
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
    (dict(sampling=0), TypeError, r"sampling must be Sampling\(temperature=\.\.\.\) or .* generation_config, got 0"),
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


def chatty(template: str = TEMPLATE) -> sd.TransformersModel:
    made = copy.deepcopy(tokenizer())
    made.chat_template = template
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


@pytest.mark.parametrize("chat", [[*ASK, "ab"], [[1, ASK[0]]]], ids=str)
def test_messages_that_are_none_are_refused(chat: Any) -> None:
    with pytest.raises(TypeError, match=r"a chat message must be a dict, such as .*got ('ab'|1)"):
        sd.autoregressive(chatty(), chat)


TOOLS = (
    "{% for m in messages %}{% if m.role == 'cat' %}{{ raise_exception('no cats') }}{% endif %}{{ m.role[0] }}."
    "{% if m.tool_calls %}{% for call in m.tool_calls %}{{ call.function.name }}{% endfor %}"
    "{% elif m.content is string %}{{ m.content }}{% else %}{% for part in m.content or [] %}{{ part.text }}"
    "{% endfor %}{% endif %}{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}a.{% endif %}"
)
CALL = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}]}


@pytest.mark.parametrize(
    ("chat", "text"),
    [
        ([*ASK, CALL, {"role": "tool", "content": "three"}], "u.hi there\na.f\nt.three\na."),
        ([*ASK, CALL | {"content": None}, *ASK], "u.hi there\na.f\nu.hi there\na."),
        ([*ASK, CALL], "u.hi there\na.f\na."),  # there is nothing to go on with
        ([*ASK, CALL | {"content": ""}], "u.hi there\na.f\na."),
        ([*ASK, {"role": "assistant", "content": None}], "u.hi there\na.\na."),
        ([*ASK, {"role": "assistant"}, *ASK], "u.hi there\na.\nu.hi there\na."),
        ([{"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": "ab"}]}], "u.hiab\na."),
        ([*ASK, {"role": "assistant", "content": [{"type": "text", "text": "hi"}]}], "u.hi there\na.hi"),
        ([{"role": "system", "content": "x", "name": "ab"}, *ASK], "s.x\nu.hi there\na."),
        ((*ASK,), "u.hi there\na."),
    ],
)
def test_messages_reach_the_template_as_they_are(chat: Any, text: str) -> None:
    target = chatty(TOOLS)
    before = copy.deepcopy(chat)
    assert to_token_ids(chat, target) == [ids(text)]
    assert to_token_ids([chat, [1]], target) == [ids(text), [1]]
    assert chat == before


@pytest.mark.parametrize(
    ("template", "chat", "words"),
    [
        (
            TEMPLATE,
            [*ASK, {"role": "assistant"}, *ASK],
            "message 1: 'dict object' has no attribute 'content'; got {'role",
        ),
        (TEMPLATE, [{"role": "user"}], "message 0: 'dict object' has no attribute 'content'"),
        (TEMPLATE, [*ASK, *ASK, {"role": "user", "content": 3}], "message 2: .*; got {'role': 'user', 'content': 3}"),
        (TOOLS, [*ASK, {"role": "cat", "content": "purr"}, *ASK], "message 1: no cats; got {'role': 'cat'"),
        ("{{ raise_exception('never\nat all') }}", ASK, "message 0: never at all; got"),
        ("{% if messages|length > 1 %}{{ missing.name }}{% endif %}", ASK * 3, "message 1: 'missing' is undefined"),
        ("{% for", ASK, "message 0: "),
    ],
)
def test_what_a_template_does_not_take_is_told_with_its_words(template: str, chat: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"^the chat template says of {words}") as caught:
        sd.autoregressive(chatty(template), chat)
    assert "\n" not in str(caught.value)


def test_messages_need_a_template() -> None:
    for target in (sd.TransformersModel(pair()[0].module, tokenizer()), pair()[0]):
        with pytest.raises(ValueError, match="need a tokenizer with a chat template.*pass a string"):
            sd.autoregressive(target, ASK)
