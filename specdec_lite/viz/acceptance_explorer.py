"""A widget for acceptance: temperature and K, over texts that were recorded, so that no move runs a model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any

from ..pocket.places import Places, load_places
from ..theory.acceptance_counts import Verdicts, expected
from .acceptance import metrics_parts, verdicts_parts
from .figures import bundle
from .theme import INK, PAPER, SANS, template
from .tokens import chances_html
from .widgets import MISSING, WIDGET, WIDTH, live_possible

if TYPE_CHECKING:
    import plotly.graph_objects as go

KS = range(1, 9)
MOVING = ("x", "y", "base", "text", "hovertext")


class AcceptanceExplorer:
    """Two sliders over the pocket pair's recorded agreement: bars by position, metrics by K, the text itself.

    What a hand can move, code can too: `explorer.move(temperature=0.5, k=8, text=3)`. `explorer.text` is
    what the line under the sliders says. Every count is expected, not drawn: see `theory.verdicts`.

    Args:
        places: by temperature; default, those that ship with the package.
        temperature, k: where the sliders start.
    """

    def __init__(self, places: Mapping[float, Places] | None = None, temperature: float = 1.0, k: int = 4) -> None:
        self.places = dict(places or load_places())
        self.by_k = cache(self._by_k)
        self.most = max(self.by_k(each)[KS[-1]].tokens_per_round for each in self.places)
        self.state: dict[str, Any] = dict(temperature=temperature, k=k, text=1)
        self.live: Any = None
        self.move()
        self.live = self._build() if live_possible() else None

    def _by_k(self, temperature: float) -> dict[int, Verdicts]:
        chances = [each.chance for each in self.places[temperature].texts]
        return {k: expected(chances, k) for k in KS}

    def move(self, **changes: Any) -> None:
        """Set any of temperature, k, text (which of the recorded ones is shown, from 1).

        Raises:
            ValueError: a name or a value that is not there.
        """
        if unknown := changes.keys() - self.state.keys():
            raise ValueError(f"there is no control {sorted(unknown)}; there are {sorted(self.state)}")
        state = self.state | changes
        if state["temperature"] not in self.places:
            raise ValueError(f"temperature must be one of {list(self.places)}, got {state['temperature']!r}")
        if state["k"] not in KS:
            raise ValueError(f"k must be one of {list(KS)}, got {state['k']!r}")
        if not 1 <= state["text"] <= len(self.here(state).texts):
            raise ValueError(f"text must be from 1 to {len(self.here(state).texts)}, got {state['text']!r}")
        self.state = state
        if self.live is not None:
            self._show()

    def here(self, state: Mapping[str, Any] | None = None) -> Places:
        """The texts at the temperature that is set."""
        return self.places[(state or self.state)["temperature"]]

    @property
    def verdicts(self) -> Verdicts:
        """What the settings give on average."""
        return self.by_k(self.state["temperature"])[self.state["k"]]

    @property
    def text(self) -> str:
        """What is to be seen, in words and numbers."""
        now, k = self.verdicts, self.state["k"]
        name = "Greedy" if self.state["temperature"] == 0 else f"Temperature {self.state['temperature']:g}"
        reach = now.judged[-1] / now.drafted[-1]
        return (
            f"{name}, K = {k}: accepted over judged {now.accepted_per_judged:.2f}, over drafted "
            f"{now.accepted_per_drafted:.2f}; mean overlap {self.here().mean_overlap:.2f}.\n"
            f"{now.tokens_per_round:.2f} tokens a round, {now.tokens_per_round_without_bonus:.2f} without the bonus. "
            f"The last draft of a round gets a verdict in {reach:.0%} of the rounds."
        )

    # Pictures

    def parts(self) -> dict[str, Any]:
        """Bars above, metrics below, in one frame that is the same for all settings."""
        upper = verdicts_parts(self.verdicts, sampled=False, places=KS[-1])
        lower = metrics_parts(self.by_k(self.state["temperature"]), self.state["k"], self.most)
        for each in lower["data"]:
            each["xaxis"] = "x2" if each["xaxis"] == "x" else "x3"
            each["yaxis"] = "y2" if each["yaxis"] == "y" else "y3"
            each["legend"] = "legend2"
        heads = [each | dict(y=0.40) for each in lower["layout"]["annotations"]]
        layout = dict(
            height=720,
            barmode="overlay",
            margin=dict(t=16, b=64, l=56, r=12),
            xaxis=upper["layout"]["xaxis"] | dict(anchor="y"),
            yaxis=upper["layout"]["yaxis"] | dict(domain=[0.62, 1]),
            xaxis2=lower["layout"]["xaxis"] | dict(anchor="y2"),
            yaxis2=lower["layout"]["yaxis"] | dict(domain=[0.06, 0.39]),
            xaxis3=lower["layout"]["xaxis2"] | dict(anchor="y3"),
            yaxis3=lower["layout"]["yaxis2"] | dict(domain=[0.06, 0.39], anchor="x3"),
            annotations=heads,
            legend=dict(y=0.52, entrywidth=136),
            legend2=dict(
                orientation="h", x=0, xanchor="left", y=-0.06, yanchor="top", entrywidth=136, font=dict(size=12)
            ),
            meta=dict(alt=self.text),
        )
        return dict(data=upper["data"] + lower["data"], layout=layout)

    def figure(self) -> go.Figure:
        """The picture as it stands now, without controls."""
        import plotly.graph_objects as go

        return go.Figure(self.parts(), layout_template=template())

    def page(self) -> str:
        """One of the texts, each token with its chance."""
        places = self.here()
        text = places.texts[self.state["text"] - 1]
        pieces = [places.decode([token]) for token in text.tokens]
        return chances_html(pieces, text.chance, places.decode(text.prompt))

    def _build(self) -> Any:
        import ipywidgets as w
        import plotly.graph_objects as go

        wide, line = dict(description_width="86px"), w.Layout(width="330px")
        degrees = [(f"{each:g}" if each else "0, greedy", each) for each in self.places]
        texts = len(self.here().texts)
        self.controls = dict(
            temperature=w.SelectionSlider(options=degrees, description="temperature", style=wide, layout=line),
            k=w.IntSlider(self.state["k"], KS[0], KS[-1], description="K", style=wide, layout=line),
            text=w.BoundedIntText(1, min=1, max=texts, description=f"text 1 to {texts}", style=wide),
        )
        self.controls["text"].layout.width = "160px"
        self.controls["temperature"].value = self.state["temperature"]
        self.busy = False
        for name, control in self.controls.items():
            control.observe(lambda change, name=name: self._moved(**{name: change["new"]}), "value")
        self.line, self.words = w.HTML(self._line()), w.HTML(self.page())
        self.plot = go.FigureWidget(self.figure().update_layout(width=WIDTH))
        return w.VBox([w.HBox(list(self.controls.values())), self.line, self.plot, self.words])

    def _moved(self, **changes: Any) -> None:
        """A hand moved a control (or `_show` did, and then nothing is left to do)."""
        if not self.busy:
            self.move(**changes)

    def _show(self) -> None:
        """Controls, readout, figure and text take over the state."""
        self.busy = True
        try:
            for name, control in self.controls.items():
                control.value = self.state[name]
        finally:
            self.busy = False
        self.line.value, self.words.value = self._line(), self.page()
        with self.plot.batch_update():
            for old, new in zip(self.plot.data, self.parts()["data"], strict=True):
                old.update({name: new[name] for name in MOVING if name in new})

    def _line(self) -> str:
        style = f"font:14px/1.5 {SANS};color:{INK};background:{PAPER};padding:4px 8px;max-width:{WIDTH}px"
        lines = escape(self.text).replace("\n", "<br>")
        return f'<div class="specdec-readout" role="status" style="{style}">{lines}</div>'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        if self.live is None:
            return bundle(self.figure()) | {"text/plain": f"{self.text}\n{MISSING}"}
        view = {"version_major": 2, "version_minor": 0, "model_id": self.live.model_id}
        return {WIDGET: view, "text/plain": self.text}
