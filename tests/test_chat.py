"""A conversation: turns follow each other, an answer can be broken off, and the figures are those of its rounds."""

from __future__ import annotations

import copy
import io
import sys
from pathlib import Path

import pytest
from test_named import cache, save  # noqa: F401 (a fixture)
from tiny import llama, pair, tokenizer

import specdec_lite as sd
from specdec_lite import cli
from specdec_lite.bench.chat import Answer, Chat
from specdec_lite.loading.pair import Pair
from specdec_lite.trace import Round


def chat_pair(context: int = 400) -> Pair:
    words = copy.deepcopy(tokenizer())
    words.chat_template = "{% for m in messages %}{{ m.content }}.{% endfor %}"
    return Pair(sd.TransformersModel(llama(context=context), words), None, words)


def chat(drafter: object = None, **options: object) -> Chat:
    return Chat(chat_pair(), drafter or sd.PromptLookupDrafter(), max_new_tokens=12, **options)


def test_an_answer_is_what_decoding_the_conversation_gives() -> None:
    one = chat()
    for question in ("abc", "de"):
        asked = [*one.messages, {"role": "user", "content": question}]
        expected = sd.autoregressive(one.pair.target, asked, max_new_tokens=12, sampling=sd.Sampling(temperature=0))
        for _ in one.ask(question):
            pass
        assert one.answers[-1].tokens == expected.tokens
        assert one.messages == [*asked, {"role": "assistant", "content": expected.text}]
    one.forget()
    assert one.messages == []
    assert len(one.answers) == 2


def test_an_answer_that_is_broken_off_is_kept_as_far_as_it_went() -> None:
    one = chat()
    rounds = one.ask("abc")
    first = next(rounds)
    rounds.close()
    assert one.messages[-1]["content"] == one.pair.tokenizer.decode(first.kept)
    unheard = one.ask("de")
    unheard.close()
    assert [each["content"] for each in one.messages][:1] == ["abc"]
    assert len(one.messages) == 2


def test_a_question_without_room_is_not_kept() -> None:
    one = Chat(chat_pair(context=24), None, max_new_tokens=12)
    for _ in one.ask("abc"):
        pass
    before = list(one.messages)
    with pytest.raises(ValueError, match="the target's context is 24"):
        one.ask("defgh")
    assert one.messages == before


def test_a_chat_needs_a_template() -> None:
    with pytest.raises(ValueError, match="a chat needs a tokenizer with a chat template"):
        Chat(Pair(pair()[0], None, None), None)


def test_figures_are_of_the_rounds() -> None:
    rounds = [Round(0, i, 5, [1], 1, 2, "bonus", [1, 2], None, {"draft": 0.1, "verify": 0.3}) for i in range(2)]
    made = Answer(rounds=rounds, naive_step=0.3)
    assert made.rate == pytest.approx(4 / 0.8)
    assert made.speed_up == pytest.approx(1.5)


def test_the_naive_step_is_a_median_at_the_answers_end(monkeypatch: pytest.MonkeyPatch) -> None:
    one = chat()
    for _ in one.ask("abc"):
        pass
    before = [dict(each) for each in one.messages]
    one.time_naive()
    assert 0 < one.answers[-1].naive_step < 1
    assert one.messages == before


def talk(lines: str, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    return cli.main(["chat", "--max-new-tokens", "12", *options])


def test_a_conversation_in_the_terminal(
    cache: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save(cache / "smollm2")
    assert talk("abc\n\nde\n/new\nabc\n", monkeypatch, "--show") == 0
    told = capsys.readouterr().out
    assert told.count("tokens a round") == 3
    assert "times naive decoding" in told
    assert "corrected  written by the target in place of a rejected draft" in told
    first, _, third = (part.split("\n\n")[0] for part in told.split("> ") if part.strip() and "a second" in part)
    assert first.splitlines()[0] == third.splitlines()[0] == "abc"


def test_ctrl_c_stops_the_answer_and_not_the_program(
    cache: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save(cache / "smollm2")
    shown = Chat.shown_tokens

    def interrupted(self: Chat, each: Round) -> list[tuple[int, str]]:
        if len(self.answers) == 0 and each.index == 2:
            raise KeyboardInterrupt
        return shown(self, each)

    monkeypatch.setattr(Chat, "shown_tokens", interrupted)
    assert talk("abc\nde\n", monkeypatch) == 0
    told = capsys.readouterr().out
    assert told.count("stopped") == 1
    assert told.count("tokens a round") == 2


def test_a_conversation_that_is_full_says_how_to_go_on(
    cache: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save(cache / "smollm2")
    assert talk("abc\n" + "abcdefgh" * 400 + "\n/new\nabc\n", monkeypatch) == 0
    told = capsys.readouterr().out
    assert "/new begins another conversation" in told
    assert told.count("tokens a round") == 2


def test_an_answer_stopped_before_its_first_token_has_no_figures(
    cache: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save(cache / "smollm2")
    follow = Chat._follow

    def interrupted(self: Chat, *arguments: object) -> object:
        if self.answers:
            raise KeyboardInterrupt
        yield from follow(self, *arguments)

    monkeypatch.setattr(Chat, "_follow", interrupted)
    assert talk("abc\nde\n", monkeypatch) == 0
    assert capsys.readouterr().out.count("tokens a round") == 1
