"""A chat in a notebook: the answer grows in colours, with speculation on or off."""

from __future__ import annotations

import time
from html import escape
from typing import Any

from ..bench.chat import Answer, Chat, figures
from ..draft import Drafter
from ..loading.pair import Pair
from ..sampling.distributions import Sampling
from ..trace import Trace
from .explorer import MISSING, STYLE, WIDGET, live_possible
from .tokens import tokens_html

REDRAW = 0.1  # seconds between two pictures of a growing answer


class ChatBox:
    """Ask a chat model; see which tokens of its answer were drafted, and how fast it came.

    `box.ask("...")` asks from code, `box.text` is what the readout says.

    Args:
        pair: a target whose tokenizer has a chat template, such as `sd.load_pair("smollm2")`.
        drafter: default the pair's own.
        k: tokens drafted a round, where the slider starts.
        max_new_tokens: of an answer at most.

    Raises:
        ValueError: no chat template.
    """

    def __init__(self, pair: Pair, drafter: Drafter | None = None, k: int = 4, max_new_tokens: int = 200) -> None:
        self.drafter = pair.drafter if drafter is None else drafter
        self.chat = Chat(pair, self.drafter, k, Sampling(temperature=0), max_new_tokens)
        self.speculative = True
        self.live: Any = None
        if live_possible():
            self._open()

    def _open(self) -> None:
        import ipywidgets as w

        wide = w.Layout(width="560px")
        self.question = w.Text(placeholder="Ask something", continuous_update=False, layout=wide)
        self.send = w.Button(description="Ask", button_style="primary", layout=w.Layout(width="90px"))
        self.switch = w.ToggleButtons(options=[("speculative", True), ("naive", False)], value=True)
        self.slider = w.IntSlider(self.chat.k, 1, 12, description="K", layout=w.Layout(width="330px"))
        self.readout, self.words = w.HTML(self._readout()), w.HTML()
        self.send.on_click(lambda _: self._sent())
        self.live = w.VBox(
            [w.HBox([self.question, self.send]), w.HBox([self.switch, self.slider]), self.readout, self.words]
        )

    def _sent(self) -> None:
        """The button: ask what stands in the field, as the controls say."""
        if not (question := self.question.value.strip()):
            return
        self.question.value, self.send.disabled = "", True
        try:
            self.ask(question, speculative=self.switch.value, k=self.slider.value)
        except ValueError as error:  # which a callback would hide
            self.readout.value = self._readout(f"{error}; make a new ChatBox to begin again")
        finally:
            self.send.disabled = False

    def ask(self, question: str, speculative: bool = True, k: int | None = None) -> None:
        """Let the model answer. The answer is in `text`, `html` and the widget; the conversation goes on.

        Raises:
            ValueError: the conversation has grown as long as the model's context; begin a new `ChatBox`.
        """
        self.chat.k, self.chat.drafter = k or self.chat.k, self.drafter if speculative else None
        rounds, shown = self.chat.ask(question), time.monotonic()
        growing = Answer(question)
        for each in rounds:
            growing.rounds.append(each)
            if self.live is not None and time.monotonic() - shown > REDRAW:
                self.words.value, shown = self.html(growing), time.monotonic()
        self.chat.time_naive()
        if self.live is not None:
            self.words.value, self.readout.value = self.html(), self._readout()

    @property
    def asked(self) -> list[str]:
        """The questions that were answered."""
        return [each.question for each in self.chat.answers]

    def html(self, growing: Answer | None = None) -> str:
        """The conversation, its answers token by token; `growing` is one that is not finished."""
        answers = self.chat.answers + ([] if growing is None else [growing])
        parts = []
        for each in answers:
            parts.append(f'<div style="{STYLE}"><b>{escape(each.question)}</b></div>')
            parts.append(tokens_html(Trace(each.rounds, self.chat.k), self._decode, legend=len(parts) == 1))
        return "".join(parts)

    def _decode(self, tokens: list[int]) -> str:
        """As in a text, but without what ends a turn."""
        return self.chat.pair.tokenizer.decode(
            [each for each in tokens if each not in self.chat.pair.target.end_tokens]
        )

    @property
    def text(self) -> str:
        """What the last answer cost."""
        if not self.chat.answers:
            return "Ask something: the first answer takes a moment longer."
        how = "speculative" if self.chat.drafter is not None else "naive"
        return f"{how}: {figures(self.chat.answers[-1])}."

    def _readout(self, text: str | None = None) -> str:
        return f'<div class="specdec-readout" role="status" style="{STYLE}">{escape(text or self.text)}</div>'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        if self.live is None:
            return {"text/html": self.html(), "text/plain": f"{self.text}\n{MISSING}"}
        return {
            WIDGET: {"version_major": 2, "version_minor": 0, "model_id": self.live.model_id},
            "text/plain": self.text,
        }
