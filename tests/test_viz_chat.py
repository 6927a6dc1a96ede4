"""The chat of a notebook: what its button does, what it shows, and that it works without a widget."""

from __future__ import annotations

import pytest
from test_chat import chat_pair

import specdec_lite as sd
from specdec_lite.viz import chat_box
from specdec_lite.viz.chat_box import ChatBox


def box(**options: int) -> ChatBox:
    return ChatBox(chat_pair(), max_new_tokens=12, **options)


def test_the_button_asks_what_stands_in_the_field() -> None:
    one = box(k=3)
    assert one.text.startswith("Ask something")
    one.send.click()  # nothing stands there
    assert one.chat.answers == []
    one.question.value, one.slider.value = "abc", 2
    one.send.click()
    assert one.question.value == ""
    assert not one.send.disabled
    assert one.text.startswith("speculative: 12 tokens, ")
    assert "abc" in one.words.value
    assert one.chat.k == 2
    one.switch.value, one.question.value = False, "de"
    one.send.click()
    assert one.text.startswith("naive: 12 tokens, ")
    assert not any(each.drafted for each in one.chat.answers[-1].rounds)
    assert len(one.chat.messages) == 4
    assert one.words.value.index("abc") < one.words.value.index("de")


def test_an_answer_is_that_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_box, "REDRAW", 0.0)
    one, seen = box(), []
    one.words.observe(lambda change: seen.append(change["new"]), "value")
    one.ask("abc")
    asked = [{"role": "user", "content": "abc"}]
    truth = sd.autoregressive(one.chat.pair.target, asked, max_new_tokens=12, sampling=sd.Sampling(temperature=0))
    assert one.chat.answers[0].tokens == truth.tokens
    assert len(seen) >= len(one.chat.answers[0].rounds) - 1  # it was seen to grow
    assert len(seen[0]) < len(seen[-1])


def test_without_widgets_it_is_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_box, "live_possible", lambda: False)
    one = box()
    one.ask("<b>")
    shown = one._repr_mimebundle_()
    assert "&lt;b&gt;" in shown["text/html"]
    assert "install ipywidgets" in shown["text/plain"]


def test_a_failing_question_leaves_the_button_usable() -> None:
    one = ChatBox(chat_pair(context=24), max_new_tokens=12)
    one.question.value = "abcdefghijklmnopqrs"
    one.send.click()
    assert "context is 24" in one.readout.value
    with pytest.raises(ValueError, match="context is 24"):
        one.ask("abcdefghijklmnopqrs")
    assert not one.send.disabled
    assert one.asked == []
