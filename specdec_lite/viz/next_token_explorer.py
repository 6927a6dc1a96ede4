"""A widget that shapes a next-token distribution and walks one uniform number along it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..sampling.distributions import Sampling
from .figures import bundle
from .next_token import Decode, Draw, next_token, next_token_parts, next_token_sentence
from .theme import INK, PAPER, SANS
from .widgets import MISSING, WIDGET, WIDTH, live_possible

if TYPE_CHECKING:
    import plotly.graph_objects as go

TOP_KS = (0, 1, 2, 3, 5, 10, 20, 50, 100, 500)
LARGEST_UNIFORM = 0.999
MOVING = ("x", "y", "base", "text", "hovertext", "marker")


class NextTokenExplorer:
    """A choice of places in a text, and sliders for temperature, top-k, top-p and the uniform number.

    What a hand can move, code can too: `explorer.move(temperature=0.5, top_k=5, uniform=0.9)`.
    `explorer.text` is what the readout says. Logits are computed before, so no move runs a model.

    Args:
        places: name -> logits [vocab]; the first is shown.
        decode: tokens -> text.

    Raises:
        ValueError: no place.
    """

    def __init__(self, places: Mapping[str, Tensor], decode: Decode) -> None:
        if not places:
            raise ValueError("needs at least one place: a name and the logits there")
        self.places = {name: logits.detach().double().cpu() for name, logits in places.items()}
        self.decode = decode
        self.state: dict[str, Any] = dict(place=next(iter(places)), temperature=1.0, top_k=0, top_p=1.0, uniform=0.5)
        self.live: Any = None
        self.live = self._build() if live_possible() else None

    def move(self, **changes: Any) -> None:
        """Set any of place, temperature, top_k (0 is off), top_p (1 is off), uniform.

        Raises:
            ValueError: a name or a value that is not there. Then nothing has changed.
        """
        if unknown := changes.keys() - self.state.keys():
            raise ValueError(f"there is no control {sorted(unknown)}; there are {sorted(self.state)}")
        state = self.state | changes
        if state["place"] not in self.places:
            raise ValueError(f"place must be one of {list(self.places)}, got {state['place']!r}")
        if state["top_k"] not in TOP_KS:
            raise ValueError(f"top_k must be one of {TOP_KS}, 0 to keep every token, got {state['top_k']!r}")
        if not 0 <= state["uniform"] < 1:
            raise ValueError(f"uniform must lie between 0 and 1, and below 1, got {state['uniform']}")
        Sampling(state["temperature"], state["top_k"], state["top_p"])  # refuses what is out of range
        self.state = state
        if self.live is not None:
            self._show()

    @property
    def draw(self) -> Draw:
        """Distribution and token as they stand now."""
        sampling = Sampling(self.state["temperature"], self.state["top_k"], self.state["top_p"])
        return Draw(self.places[self.state["place"]], sampling, self.state["uniform"])

    @property
    def text(self) -> str:
        """The readout."""
        return f"{self.state['place']}\n{next_token_sentence(self.draw, self.decode)}"

    def figure(self) -> go.Figure:
        """The picture as it stands now, without controls."""
        return next_token(self.draw, self.decode)

    def _build(self) -> Any:
        import ipywidgets as w
        import plotly.graph_objects as go

        look = dict(style=dict(description_width="110px"), layout=w.Layout(width="400px"))
        self.controls = dict(
            place=w.Dropdown(options=list(self.places), description="place", **look),
            temperature=w.FloatSlider(1.0, min=0.0, max=2.0, step=0.1, description="temperature", **look),
            top_k=w.SelectionSlider(
                options=[(str(k) if k else "off", k) for k in TOP_KS], value=0, description="top-k", **look
            ),
            top_p=w.FloatSlider(1.0, min=0.05, max=1.0, step=0.05, description="top-p (1: off)", **look),
            uniform=w.FloatSlider(
                0.5, min=0.0, max=LARGEST_UNIFORM, step=0.001, readout_format=".3f", description="uniform number",
                style=dict(description_width="110px"), layout=w.Layout(width=f"{WIDTH}px"),
            ),
        )  # fmt: skip
        for name, control in self.controls.items():
            control.observe(lambda change, name=name: self._moved(name, change["new"]), "value")
        self.busy = False
        self.readout = w.HTML(self._readout())
        self.plot = go.FigureWidget(self.figure().update_layout(width=WIDTH))
        place, temperature, top_k, top_p, uniform = self.controls.values()
        left, right = w.VBox([place, temperature]), w.VBox([top_k, top_p])
        return w.VBox([w.HBox([left, right]), uniform, self.readout, self.plot])

    def _moved(self, name: str, value: Any) -> None:
        """A hand moved a control (or `_show` did, and then nothing is left to do)."""
        if not self.busy:
            self.move(**{name: round(value, 6) if isinstance(value, float) else value})

    def _show(self) -> None:
        """Controls, readout and figure take over the state."""
        self.busy = True
        try:
            for name, control in self.controls.items():
                control.value = self.state[name]
        finally:
            self.busy = False
        self.readout.value = self._readout()
        redraw(self.plot, next_token_parts(self.draw, self.decode))

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
    """Give a live figure the data, the names and the labels of another one of the same make."""
    layout = parts["layout"]
    with plot.batch_update():
        for old, new in zip(plot.data, parts["data"], strict=True):
            old.update({name: new[name] for name in MOVING if name in new})
        for old, new in zip(plot.layout.annotations, layout["annotations"], strict=True):
            old.text = new["text"]
        plot.layout.xaxis.range, plot.layout.yaxis.ticktext = layout["xaxis"]["range"], layout["yaxis"]["ticktext"]
