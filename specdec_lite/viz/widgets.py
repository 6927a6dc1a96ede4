"""Thin controls over pure figures: a control moves, a figure is computed, the live one takes its data.

Controls use `observe` and `batch_update`, so a move costs milliseconds and works without a
browser too. Each widget has a text readout. Where ipywidgets or anywidget is missing, the same
object shows a static figure and one line that says how to get the live one.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..pocket.recorded import Recorded, load_recorded
from .figures import bundle, k_sentence, recorded_race, recorded_race_parts
from .theme import INK, PAPER, SANS
from .tokens import tokens_html

if TYPE_CHECKING:
    import plotly.graph_objects as go

WIDTH = 820  # pixels, as wide as the text under it
MISSING = "A still picture: install ipywidgets and anywidget for the slider (pip install 'specdec-lite[notebooks]')."
MOVING = ("x", "y", "base", "hovertext")  # what differs between two figures of the same make
WIDGET = "application/vnd.jupyter.widget-view+json"


def live_possible() -> bool:
    """Whether sliders can move here."""
    return all(find_spec(name) is not None for name in ("ipywidgets", "anywidget"))


class KExplorer:
    """One slider for k over recorded runs: the race, the prediction in words, the coloured text.

    `explorer.k = 7` and `explorer.temperature = 1` move the controls from code; `explorer.text`
    is what the readout says.

    Args:
        recordings: default, those that ship with the package.
        k: where the slider starts.
    """

    def __init__(self, recordings: Sequence[Recorded] | None = None, k: int = 4) -> None:
        self.recordings = {each.temperature: each for each in recordings or load_recorded()}
        self._temperature = next(iter(self.recordings))
        self._k = self._known(k)
        self.live = self._build() if live_possible() else None

    @property
    def recorded(self) -> Recorded:
        return self.recordings[self._temperature]

    @property
    def text(self) -> str:
        """The readout."""
        return k_sentence(self.recorded, self._k)

    @property
    def k(self) -> int:
        return self._k

    @k.setter
    def k(self, value: int) -> None:
        self._move(k=self._known(value))

    def _known(self, k: int) -> int:
        if k not in self.recorded.runs:
            raise ValueError(f"k must be one of {list(self.recorded.runs)}, got {k}")
        return k

    @property
    def temperature(self) -> float:
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        if value not in self.recordings:
            raise ValueError(f"temperature must be one of {list(self.recordings)}, got {value}")
        self._move(temperature=value)

    def figure(self) -> go.Figure:
        """The race as it stands now, without controls."""
        return recorded_race(self.recorded, self._k)

    def page(self) -> str:
        """The text as it stands now, token by token."""
        return tokens_html(self.recorded.runs[self._k], self.recorded.decode, self.recorded.prompt)

    def _build(self) -> Any:
        import ipywidgets as w
        import plotly.graph_objects as go

        ks = list(self.recorded.runs)
        wide = dict(description_width="initial")
        self.slider = w.IntSlider(
            self._k, ks[0], ks[-1], description="K, tokens drafted a round", style=wide, layout=w.Layout(width="420px")
        )
        choices = [(each.title, temperature) for temperature, each in self.recordings.items()]
        self.switch = w.ToggleButtons(options=choices, value=self._temperature, style=dict(button_width="130px"))
        self.readout, self.words = w.HTML(self._readout()), w.HTML(self.page())
        self.plot = go.FigureWidget(self.figure().update_layout(width=WIDTH))  # of itself it stays at 700
        self.slider.observe(lambda change: setattr(self, "k", change["new"]), "value")
        self.switch.observe(lambda change: setattr(self, "temperature", change["new"]), "value")
        return w.VBox([w.HBox([self.slider, self.switch]), self.readout, self.plot, self.words])

    def _move(self, k: int | None = None, temperature: float | None = None) -> None:
        before = self._k, self._temperature
        self._k = before[0] if k is None else k
        self._temperature = before[1] if temperature is None else temperature
        if self.live is None or before == (self._k, self._temperature):
            return  # also when a control reports the move that code made
        self.slider.value, self.switch.value = self._k, self._temperature
        self.readout.value, self.words.value = self._readout(), self.page()
        redraw(self.plot, recorded_race_parts(self.recorded, self._k))

    def _readout(self) -> str:
        style = f"font:14px/1.5 {SANS};color:{INK};background:{PAPER};padding:4px 8px;max-width:{WIDTH}px"
        lines = escape(self.text).replace("\n", "<br>")
        return f'<div class="specdec-readout" role="status" style="{style}">{lines}</div>'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        if self.live is None:
            return bundle(self.figure()) | {"text/plain": f"{self.text}\n{MISSING}"}
        view = {"version_major": 2, "version_minor": 0, "model_id": self.live.model_id}
        return {WIDGET: view, "text/plain": self.text}


def redraw(plot: go.FigureWidget, parts: dict[str, Any]) -> None:
    """Give a live figure the data and the labels of another one of the same make."""
    layout = parts["layout"]
    with plot.batch_update():
        for old, new in zip(plot.data, parts["data"], strict=True):
            old.update({name: new[name] for name in MOVING if name in new})
        for old, new in zip(plot.layout.annotations, layout["annotations"], strict=True):
            old.text, old.y = new["text"], new["y"]
        plot.layout.xaxis.range, plot.layout.yaxis.range = layout["xaxis"]["range"], layout["yaxis"]["range"]
        plot.layout.height, plot.layout.legend2.y = layout["height"], layout["legend2"]["y"]
